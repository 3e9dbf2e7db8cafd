"""The command line, read once and checked. Messages name the option, the value seen and what is allowed."""

import argparse
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from ropewalk_mcp_stdio.packages import name_of

SHARED, PER_SESSION = "shared", "perSession"
_EPILOG = """examples:
  ropewalk-mcp-stdio serve -- python my_server.py
  ropewalk-mcp-stdio serve --session-mode=perSession --max-sessions=20 -- /usr/bin/my-server --verbose
  ropewalk-mcp-stdio serve --python-package=mcp-server-time==2026.1.1 -- --local-timezone=Europe/Paris
  ropewalk-mcp-stdio install /bridge
"""


@dataclass(frozen=True)
class ServeOptions:
    """What `serve` was asked to do."""

    name: str
    port: int
    path: str
    session_mode: str
    max_sessions: int
    idle_timeout_seconds: int
    python_package: str | None
    node_package: str | None
    command: tuple[str, ...]


@dataclass(frozen=True)
class InstallOptions:
    """What `install` was asked to do."""

    folder: str


def _number(lowest: int, highest: int) -> Callable[[str], int]:
    def convert(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", text) or not lowest <= int(text) <= highest:
            raise argparse.ArgumentTypeError(f"it is {text!r}; use a whole number from {lowest} to {highest}")
        return int(text)

    return convert


def _path(text: str) -> str:
    if not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+/?", text) or text in ("/health", "/ready", "/metrics"):
        raise argparse.ArgumentTypeError(
            f"it is {text!r}; use a path such as /mcp, and none of /health, /ready, /metrics"
        )
    return text


def _python_package(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*(\[[A-Za-z0-9,._-]+\])?==[A-Za-z0-9][A-Za-z0-9.!+_-]*", text):
        raise argparse.ArgumentTypeError(
            f"it is {text!r}; name a package and its version, as mcp-server-time==2026.1.1"
        )
    return text


def _node_package(text: str) -> str:
    if not re.fullmatch(r"(@[a-z0-9~._-]+/)?[a-z0-9~][a-z0-9~._-]*@[0-9][A-Za-z0-9.+-]*", text):
        raise argparse.ArgumentTypeError(f"it is {text!r}; name a package and its version, as @scope/name@1.2.3")
    return text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "ropewalk-mcp-stdio",
        description="Serves a stdio MCP server over streamable HTTP, in both eras of the protocol.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="action", required=True, metavar="serve | install")
    serve = commands.add_parser(
        "serve", help="run a server and serve it", epilog=_EPILOG, formatter_class=parser.formatter_class
    )
    serve.add_argument("--name", help="the server's name in logs and errors; default: the program's or package's")
    serve.add_argument("--port", type=_number(0, 65535), default=8000, help="default 8000; 0 is any free one")
    serve.add_argument("--path", type=_path, default="/mcp", help="of MCP; default /mcp")
    serve.add_argument(
        "--session-mode", choices=(SHARED, PER_SESSION), default=SHARED,
        help="shared (default): one process for all clients; perSession: one for each",
    )  # fmt: skip
    serve.add_argument(
        "--max-sessions", type=_number(1, 1000), default=100, help="of perSession; default 100, at most 1000"
    )
    serve.add_argument(
        "--idle-timeout-seconds", type=_number(1, 86400), default=300,
        help="of perSession: a session without any request for this long is ended; default 300",
    )  # fmt: skip
    package = serve.add_mutually_exclusive_group()
    package.add_argument("--python-package", type=_python_package, metavar="NAME==VERSION", help="installed at start")
    package.add_argument("--node-package", type=_node_package, metavar="NAME@VERSION", help="installed at start")
    serve.add_argument("command", nargs="*", metavar="-- COMMAND ARGUMENT", help="the stdio server to run")
    install = commands.add_parser("install", help="copy this program, with all it needs, into a folder")
    install.add_argument("folder", help="where to; an empty volume, mounted at /ropewalk where it is to run")
    return parser


def read(arguments: Sequence[str]) -> ServeOptions | InstallOptions:
    """Return what was asked for; the process ends with code 2 and a message where it makes no sense."""
    parser = _parser()
    # Everything behind the first -- is the server's, whatever it looks like.
    split = list(arguments).index("--") if "--" in arguments else len(arguments)
    own, command = list(arguments[:split]), tuple(arguments[split + 1 :])
    parsed = parser.parse_args(own)
    if parsed.action == "install":
        return InstallOptions(parsed.folder)
    if parsed.command:
        parser.error(f"unknown argument {parsed.command[0]!r}; put -- before the server's command")
    package = parsed.python_package or parsed.node_package
    if not command and not package:
        parser.error("there is nothing to run; name the server's command behind --, or a package")
    if command and not command[0]:
        parser.error("the command behind -- is empty; name a program")
    name = parsed.name or (name_of(package) if package else PurePosixPath(command[0]).name)
    return ServeOptions(
        name, parsed.port, parsed.path, parsed.session_mode, parsed.max_sessions, parsed.idle_timeout_seconds,
        parsed.python_package, parsed.node_package, command,
    )  # fmt: skip
