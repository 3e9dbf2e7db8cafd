"""The endpoints of an agent pod, one module for each group. They know Starlette and the runtime, never Strands."""
