"""The names by which a server may be called: else a web page could reach it under a name of its own (DNS rebinding).

The MCP specification asks for it (Transports, Streamable HTTP, security warning).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send


@dataclass(frozen=True)
class OwnNames:
    """The names that a request may call a server by, with any port; `listed` is empty where any name will do."""

    listed: str
    allowed: frozenset[str]

    def refusal(self, host: str, origin: str) -> tuple[int, str] | None:
        """Return the HTTP status and the words that refuse a request with these two headers, or None to let it pass.

        An empty Origin is none: only web pages send it.
        """
        if not self.listed:
            return None
        if _name(f"//{host}") not in self.allowed:
            return 421, f"Host is {host[:100]!r}; call this server by one of its own names: {self.listed}"
        if origin and _name(origin) not in self.allowed:
            words = f"Origin is {origin[:100]!r}; web pages may call this server only from its own names: {self.listed}"
            return 403, words
        return None


def own_names(environment: Mapping[str, str]) -> OwnNames:
    """Return the names of ROPEWALK_MCP_ALLOWED_HOSTS, the address in ROPEWALK_POD_IP and the names of this machine.

    Where the first is unset, any name will do.
    """
    listed = environment.get("ROPEWALK_MCP_ALLOWED_HOSTS", "").lower().replace(" ", "")
    names = {*listed.split(","), environment.get("ROPEWALK_POD_IP", ""), "localhost", "127.0.0.1", "::1"}
    return OwnNames(listed, frozenset(names - {""}))


def own_names_only(app: ASGIApp, names: OwnNames) -> ASGIApp:
    """Return the application behind the check of every request's Host and Origin headers."""

    async def checked(scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        refused = names.refusal(headers.get("host", ""), headers.get("origin", ""))
        await (PlainTextResponse(refused[1], refused[0]) if refused else app)(scope, receive, send)

    return checked


def _name(url: str) -> str:
    """Return the host of an address in lower case, without brackets and port; empty where it is no address."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
