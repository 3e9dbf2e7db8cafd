"""Turns Agent and MCPServer resources into Kubernetes objects and reports what it sees; it is never in the path of a
request.
"""

__version__ = "0.1.0"
