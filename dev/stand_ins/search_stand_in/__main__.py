"""Starts the stand-in: `python -m search_stand_in`, on port 8080 or ROPEWALK_PORT."""

from search_stand_in.app import WHAT_IT_IS, create_app
from stand_in_process import serve

if __name__ == "__main__":
    serve("search_stand_in", WHAT_IT_IS, create_app)
