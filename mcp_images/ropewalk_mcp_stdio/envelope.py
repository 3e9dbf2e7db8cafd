"""Checks a request of the stateless era, as revision 2026-07-28 demands (basic/index, basic/transports): pure."""

import base64
import binascii

from ropewalk_mcp_stdio import jsonrpc
from ropewalk_mcp_stdio.calls import Caller
from ropewalk_mcp_stdio.jsonrpc import Message, Refusal
from ropewalk_mcp_stdio.protocol import (
    CAPABILITIES_KEY,
    HEADER_MISMATCH,
    LOG_LEVEL_KEY,
    STATELESS_VERSION,
    UNSUPPORTED_VERSION,
    VERSION_KEY,
)

_NAMED_BY = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}


def check_headers(message: Message, version: str, headers: dict[bytes, bytes]) -> None:
    """Refuse a request with an incomplete `_meta`, headers that say something else, or a version not served."""
    params = message.get("params")
    meta = params.get("_meta") if isinstance(params, dict) else None
    meta = meta if isinstance(meta, dict) else {}
    missing = [key for key in (VERSION_KEY, CAPABILITIES_KEY) if key not in meta]
    if missing or not isinstance(params, dict):
        problem = f"params._meta lacks {' and '.join(missing)}, which every request of MCP {STATELESS_VERSION} carries"
        raise Refusal(jsonrpc.INVALID_PARAMS, problem, 400)
    if meta[VERSION_KEY] != version:
        raise _mismatch("MCP-Protocol-Version", "the protocol version in params._meta")
    if headers.get(b"mcp-method", b"").decode("latin-1") != message["method"]:
        raise _mismatch("Mcp-Method", "the body's method")
    key = _NAMED_BY.get(message["method"])
    if key is not None and params.get(key) is not None and decoded_value(headers.get(b"mcp-name")) != params[key]:
        raise _mismatch("Mcp-Name", f"params.{key}")
    if version != STATELESS_VERSION:
        data = {"supported": [STATELESS_VERSION], "requested": version}
        raise Refusal(UNSUPPORTED_VERSION, "Unsupported protocol version", 400, data=data)


def caller_of(message: Message, headers: dict[bytes, bytes]) -> Caller:
    """Return who sends this request, which check_headers has let through, and in which words."""
    meta = message["params"]["_meta"]
    capabilities = meta[CAPABILITIES_KEY]
    caller = Caller(capabilities if isinstance(capabilities, dict) else {}, stateless=True)
    level = meta.get(LOG_LEVEL_KEY)
    caller.log_level = level if isinstance(level, str) else None
    caller.headers = headers
    return caller


def decoded_value(value: bytes | None) -> str | None:
    """Return what a header means: the text itself, or that in base64 between =?base64? and ?=; None if broken."""
    if value is None:
        return None
    text = value.decode("latin-1")
    if not (text.startswith("=?base64?") and text.endswith("?=")):
        return text
    packed = text[len("=?base64?") : -len("?=")]
    try:
        raw = base64.b64decode(packed, validate=True)
        return raw.decode() if base64.b64encode(raw).decode() == packed else None
    except (binascii.Error, UnicodeDecodeError):
        return None


def _mismatch(header: str, other: str) -> Refusal:
    return Refusal(HEADER_MISMATCH, f"the header {header} does not match {other}", 400)
