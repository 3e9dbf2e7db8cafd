"""`python -m tests.conformance.everything [--http PORT]`: over streamable HTTP on 127.0.0.1, else over stdio."""

import argparse
import logging
import sys
from typing import Any

import uvicorn
from tests.conformance.everything.resumption import Events
from tests.conformance.everything.server import everything_server

_FORMS: dict[str, dict[str, Any]] = {
    "events": {},
    # A client whose stream was closed on purpose comes back after so many milliseconds.
    "resumable": {"event_store": Events(), "retry_interval": 100},
    "json": {"stateless_http": True, "json_response": True},
}


def main() -> None:
    """Serve until the end of stdin, or until a signal."""
    parser = argparse.ArgumentParser(prog="everything", description=__doc__)
    parser.add_argument("--http", type=int, metavar="PORT", help="serve streamable HTTP at /mcp on 127.0.0.1")
    parser.add_argument(
        "--answers",
        choices=_FORMS,
        default="events",
        help="with --http: events, as the package has it; resumable events; or json, without sessions",
    )
    chosen = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, force=True)
    server = everything_server()
    if chosen.http is None:
        server.run("stdio")
        return
    app = server.streamable_http_app(**_FORMS[chosen.answers])
    # uvicorn's faster parser leaves the white space after a header's value, which HTTP says is no part of it (RFC 9110,
    # section 5.5): a scenario looks at that. Where speed is measured it may be used.
    parser_name = "h11" if chosen.answers == "resumable" else "auto"
    uvicorn.run(app, host="127.0.0.1", port=chosen.http, http=parser_name, log_config=None, timeout_graceful_shutdown=1)


if __name__ == "__main__":
    main()
