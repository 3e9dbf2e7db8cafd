"""`python -m tests.conformance.everything [--http PORT]`: over streamable HTTP on 127.0.0.1, else over stdio."""

import argparse
import logging
import sys

import uvicorn
from tests.conformance.everything.resumption import Events
from tests.conformance.everything.server import everything_server

_RETRY_MILLISECONDS = 100
"""How soon a client whose stream was closed on purpose comes back."""


def main() -> None:
    """Serve until the end of stdin, or until a signal."""
    parser = argparse.ArgumentParser(prog="everything", description=__doc__)
    parser.add_argument("--http", type=int, metavar="PORT", help="serve streamable HTTP at /mcp on 127.0.0.1")
    port = parser.parse_args().http
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, force=True)
    server = everything_server()
    if port is None:
        server.run("stdio")
        return
    app = server.streamable_http_app(event_store=Events(), retry_interval=_RETRY_MILLISECONDS)
    uvicorn.run(app, host="127.0.0.1", port=port, log_config=None, timeout_graceful_shutdown=1)


if __name__ == "__main__":
    main()
