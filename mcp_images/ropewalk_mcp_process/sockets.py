"""The port that a server is given, and the socket that it listens on."""

import argparse
import socket


def port_number(text: str) -> int:
    """Return the port that a setting names; argparse.ArgumentTypeError says what is allowed."""
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"ROPEWALK_PORT is {text!r}; use 0 (any free port) to 65535")
    return int(text)


def listening(port: int) -> socket.socket:
    """Return a socket that listens on all addresses."""
    # Opened by its number, a socket knows its protocol: else asyncio sets no TCP_NODELAY, and every answer waits 40 ms.
    return socket.socket(fileno=socket.create_server(("0.0.0.0", port), backlog=1024).detach())  # noqa: S104
