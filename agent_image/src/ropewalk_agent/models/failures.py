"""What a provider's client raised, as a kind and a sentence. Knows the clients by their errors' shape, not by import.

Every client wraps errors in its own way, Strands wraps some of them again, and LiteLLM gives a status of 500 to a
refused connection. So the whole chain of causes is looked at, what happened on the wire first.
"""

import json
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from ropewalk_agent.errors import redacted

Kind = Literal[
    "rate_limited",
    "provider_failed",
    "unreachable",
    "broken_off",
    "untrusted",
    "timeout",
    "too_long",
    "filtered",
    "key_refused",
    "unknown_model",
    "redirected",
    "refused",
    "other",
]

KEY_REFUSED = ("api key not valid", "api key expired", "expiredtoken", "unrecognizedclient")
"""What says, in lower case, that the key is wrong, where the status does not."""
FALL_BACK: frozenset[Kind] = frozenset(
    ("rate_limited", "provider_failed", "unreachable", "broken_off", "untrusted", "timeout")
)
"""What another model may do better. The others would be papered over: a wrong key, a wrong id, a wrong request."""

_SAYS: dict[Kind, str] = {
    "rate_limited": "its provider limits the rate of requests{status}: {words}",
    "provider_failed": "its provider has failed{status}: {words}",
    "unreachable": "its provider cannot be reached: {words}",
    "broken_off": "its provider broke the connection off: {words}",
    "untrusted": "TLS with its provider has failed: {words}",
    "timeout": "its provider did not answer in time: {words}",
    "too_long": "the conversation is too long for its context window{status}: {words}",
    "filtered": "its provider's content filter refused{status}: {words}",
    "key_refused": "its provider refused the key{status}: {words}",
    "unknown_model": "its provider does not know the model or the address{status}: {words}",
    "redirected": "its provider redirects to another address{status}: {words}",
    "refused": "its provider refused the request{status}: {words}",
    "other": "{words}",
}

# What says so in a stream, where the status was 200 long ago (and, in Bedrock's, where there is none).
_STATUS_OF_TYPE = {
    "overloaded_error": 529,
    "api_error": 500,
    "rate_limit_error": 429,
    "timeout_error": 504,
    "server_error": 500,
    "rate_limit_exceeded": 429,
    "throttlingException": 429,
    "serviceUnavailableException": 503,
    "internalServerException": 500,
    "modelStreamErrorException": 500,
    "modelTimeoutException": 504,
}
_FILTERED = ("content_filter", "content filter", "content management policy", "content_policy", "safety_violation")
_TOO_LONG = (
    "context_length_exceeded",
    "maximum context length",
    "context window",
    "context length",
    "context size",
    "prompt is too long",
    "input is too long",
    "exceeds the maximum number of tokens",
    "too many tokens",
)
_UNREACHABLE = ("ConnectError", "EndpointConnectionError", "ClientConnectorError", "ProxyConnectionError")
_BROKEN_OFF = (
    "ProtocolError",
    "ReadError",
    "WriteError",
    "ConnectionClosedError",
    "ServerDisconnectedError",
    "ClientPayloadError",
    "IncompleteRead",
    "ResponseStreamingError",
)


class ModelsFailed(Exception):
    """Every model that was asked has failed: their names with their errors, in the order in which they were asked."""

    def __init__(self, attempts: list[tuple[str, Exception]]) -> None:
        super().__init__("; ".join(f"{name}: {type(error).__name__}" for name, error in attempts))
        self.attempts = attempts


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed call: what kind it was, the status (None where there was no answer), and the provider's own words."""

    kind: Kind
    status: int | None
    words: str


def explained(error: Exception, model: str, secrets: tuple[str, ...]) -> str:
    """Return a sentence for the client: which model failed, how, in whose words; without any of `secrets`."""
    attempts = error.attempts if isinstance(error, ModelsFailed) else [(model, error)]
    return "; ".join(f"the model {name} failed: {_sentence(failure_of(cause), secrets)}" for name, cause in attempts)


def refuses_key(error: Exception) -> bool:
    """Whether the model that failed last refused its key."""
    cause = error.attempts[-1][1] if isinstance(error, ModelsFailed) else error
    return failure_of(cause).kind == "key_refused"


def _sentence(failure: Failure, secrets: tuple[str, ...]) -> str:
    status = "" if failure.status is None else f" (status {failure.status})"
    words = redacted(failure.words, secrets) or "it gave no reason"
    return _SAYS[failure.kind].format(status=status, words=words)


def failure_of(error: BaseException) -> Failure:
    """Return what happened, from whatever a client or Strands raised."""
    chain = list(_chain(error))
    status, type_ = _status(chain), _type(chain)
    words = _words(chain)
    names = {name for one in chain for name in _names(one)}
    kind = _kind(chain, names, status or _STATUS_OF_TYPE.get(type_), f"{type_} {words}".lower())
    answered = status is not None and kind not in ("unreachable", "broken_off", "untrusted")
    return Failure(kind, status if answered and kind != "timeout" else None, words)


def _kind(chain: list[BaseException], names: set[str], status: int | None, said: str) -> Kind:  # noqa: PLR0911 -- a table, too
    text = " ".join(str(one) for one in chain)
    if any(isinstance(one, ssl.SSLError) for one in chain) or "SSLError" in names or "CERTIFICATE_VERIFY" in text:
        return "untrusted"
    if any(isinstance(one, ConnectionRefusedError | socket.gaierror) for one in chain):
        return "unreachable"
    if any("Timeout" in name for name in names) and status in (None, 408, 500):
        return "timeout"
    if names & {*_UNREACHABLE}:
        return "unreachable"
    if "LocalProtocolError" in names:  # the client's own fault, such as a key with a line break in it
        return "other"
    if names & {*_BROKEN_OFF} or any(isinstance(one, ConnectionResetError) for one in chain):
        return "broken_off"
    if "ConnectionError" in names or "APIConnectionError" in names or "Connection error." in text:
        return "unreachable"
    if "ContextWindowOverflowException" in names and status != 429:
        return "too_long"
    if status is None:
        return "rate_limited" if "ModelThrottledException" in names else "other"
    return _kind_of_status(status, said)


def _kind_of_status(status: int, said: str) -> Kind:  # noqa: PLR0911 -- a table, read from above
    if status == 429:
        return "rate_limited"
    if status >= 500:
        return "provider_failed"
    if status == 408:
        return "timeout"
    if status in (400, 403, 413, 422) and any(sign in said for sign in _FILTERED):
        return "filtered"
    if status in (400, 413, 422) and any(sign in said for sign in _TOO_LONG):
        return "too_long"
    if status in (401, 403) or any(sign in said for sign in KEY_REFUSED):
        return "key_refused"
    if status == 404:
        return "unknown_model"
    return "refused" if status >= 400 else "redirected"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: list[BaseException] = []
    # What is no Exception is how a time limit works inside, and says nothing.
    while isinstance(error, Exception) and error not in seen:
        seen.append(error)
        yield error
        error = error.__cause__ or error.__context__


def _names(error: BaseException) -> list[str]:
    return [kind.__name__ for kind in type(error).__mro__]


def _status(chain: list[BaseException]) -> int | None:
    for error in chain:
        response = getattr(error, "response", None)
        aws = response.get("ResponseMetadata", {}).get("HTTPStatusCode") if isinstance(response, dict) else None
        for found in (getattr(error, "status_code", None), aws, getattr(response, "status_code", None)):
            if isinstance(found, int) and found >= 300:
                return found
        code = getattr(error, "code", None)
        if isinstance(code, int) and 300 <= code < 600:
            return code
    return None


def _body(error: BaseException) -> dict[str, Any]:
    """Return the error object of the provider's answer, wherever the client keeps it."""
    response = getattr(error, "response", None)
    found: Any = getattr(error, "body", None) or (response.get("Error") if isinstance(response, dict) else None)
    found = found or getattr(error, "error", None) or getattr(error, "details", None)
    if found is None and response is not None:
        try:
            found = response.text
        except Exception:  # a stream that was never read has no text
            found = None
    if isinstance(found, str):
        try:
            found = json.loads(found)
        except (ValueError, RecursionError):
            return {"message": found}
    if isinstance(found, dict):
        inner = found.get("error")
        if isinstance(inner, dict):
            return inner
        return {"message": inner, **found} if isinstance(inner, str) else found
    return {}


def _type(chain: list[BaseException]) -> str:
    for error in chain:
        body = _body(error)
        for found in (body.get("code"), body.get("Code"), body.get("type"), body.get("status")):
            if isinstance(found, str) and found:
                return found
    return ""


def _words(chain: list[BaseException]) -> str:
    """Return the provider's words, or, where nobody answered, the innermost words of the client."""
    for error in chain:
        body = _body(error)
        for found in (body.get("message"), body.get("Message"), body.get("detail")):
            if found:
                return found if isinstance(found, str) else json.dumps(found)
    spoken = [error for error in chain if str(error)]
    if not spoken:
        return type(chain[0]).__name__
    last = spoken[-1] if len(chain) > 1 else spoken[0]
    return f"{type(last).__name__}: {last}"
