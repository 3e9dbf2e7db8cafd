"""The names by which a server may be called: else a web page could reach it under a name of its own (DNS rebinding).

The MCP specification asks for it (Transports, Streamable HTTP, security warning).
"""

from collections.abc import Mapping
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send


def refusal(headers: Mapping[str, str], environment: Mapping[str, str]) -> tuple[int, str] | None:
    """Return the HTTP status and the words that refuse a request with these headers, or None to let it pass.

    Host and Origin, where there is one, must have a name of ROPEWALK_MCP_ALLOWED_HOSTS, the address in ROPEWALK_POD_IP
    or a name of this machine, with any port. Where the first is unset all requests pass. Header names are lower case.
    """
    listed = environment.get("ROPEWALK_MCP_ALLOWED_HOSTS", "").lower().replace(" ", "")
    if not listed:
        return None
    allowed = {*listed.split(","), environment.get("ROPEWALK_POD_IP"), "localhost", "127.0.0.1", "::1"} - {""}
    host, origin = headers.get("host", ""), headers.get("origin", "")
    if _name(f"//{host}") not in allowed:
        return 421, f"Host is {host[:100]!r}; call this server by one of its own names: {listed}"
    if origin and _name(origin) not in allowed:
        return 403, f"Origin is {origin[:100]!r}; web pages may call this server only from its own names: {listed}"
    return None


def own_names_only(app: ASGIApp, environment: Mapping[str, str]) -> ASGIApp:
    """Return the application behind the check of every request's Host and Origin headers."""

    async def checked(scope: Scope, receive: Receive, send: Send) -> None:
        refused = refusal(Headers(scope=scope), environment)
        await (PlainTextResponse(refused[1], refused[0]) if refused else app)(scope, receive, send)

    return checked


def _name(url: str) -> str:
    """Return the host of an address in lower case, without brackets and port; empty where it is no address."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
