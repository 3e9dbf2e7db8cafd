"""JSON-RPC 2.0 as plain objects: reading, writing, and the bridge's own refusals. It knows no method of MCP."""

import json
import math
from typing import Any

Message = dict[str, Any]
RequestId = int | str

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
# Of the range that MCP leaves to implementations (-32000 to -32019).
BUSY = -32010
UNAVAILABLE = -32011
TOO_LARGE = -32012
# As MCP's own SDKs answer a request that its client has cancelled.
CANCELLED = -32800

LARGEST_MESSAGE_BYTES = 16 * 1024 * 1024
_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


class Refusal(Exception):
    """What the bridge itself answers: a JSON-RPC code and a sentence, an HTTP status, and when to try again."""

    def __init__(
        self, code: int, message: str, status: int = 200, retry_after_seconds: int | None = None, data: Any = None
    ) -> None:
        super().__init__(message)
        self.code, self.message, self.data = code, message, data
        self.status, self.retry_after_seconds = status, retry_after_seconds


def _no_such_number(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError("a number is too large")
    return number


_decode = json.JSONDecoder(parse_constant=_no_such_number, parse_float=_finite).decode


def decoded(text: bytes) -> Any:
    """Return the value that the JSON text means; ValueError where it is none, or a number fits no float."""
    try:
        return _decode(text.decode())
    except RecursionError:
        raise ValueError("nested too deeply") from None


def encoded(message: Any) -> bytes:
    """Return the JSON text on one line, in ASCII, so that it holds no line break; ValueError where it is too deep."""
    try:
        return _encode(message).encode()
    except RecursionError:
        raise ValueError("nested too deeply") from None


def is_request_id(value: object) -> bool:
    """Tell whether MCP allows this as the id of a request: text or a whole number."""
    return isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool))


def is_message(value: object) -> bool:
    """Tell whether this is one JSON-RPC 2.0 request, notification or response."""
    if not isinstance(value, dict) or value.get("jsonrpc") != "2.0":
        return False
    if "method" in value:
        return isinstance(value["method"], str) and ("id" not in value or is_request_id(value["id"]))
    return "id" in value and (("result" in value) != ("error" in value))


def error_code(message: Message) -> int | None:
    """Return the code of the error that a response carries, or None where it has none."""
    problem = message.get("error")
    code = problem.get("code") if isinstance(problem, dict) else None
    return code if isinstance(code, int) else None


def result(request_id: RequestId | None, value: Any) -> Message:
    """Return the response that carries a result."""
    return {"jsonrpc": "2.0", "id": request_id, "result": value}


def error(request_id: RequestId | None, code: int, message: str, data: Any = None) -> Message:
    """Return the response that carries an error."""
    problem = {"code": code, "message": message} | ({} if data is None else {"data": data})
    return {"jsonrpc": "2.0", "id": request_id, "error": problem}


def request(request_id: RequestId, method: str, params: Any = None) -> Message:
    """Return a request."""
    return {"jsonrpc": "2.0", "id": request_id, "method": method} | ({} if params is None else {"params": params})


def notification(method: str, params: Any = None) -> Message:
    """Return a notification."""
    return {"jsonrpc": "2.0", "method": method} | ({} if params is None else {"params": params})
