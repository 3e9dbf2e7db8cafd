"""Starts the demo model: `python -m demo_model`."""

from demo_model.app import WHAT_IT_IS, create_app
from demo_model.settings import from_environment
from stand_in_process import serve

if __name__ == "__main__":
    serve("demo_model", f"the {WHAT_IT_IS}", lambda: create_app(from_environment()))
