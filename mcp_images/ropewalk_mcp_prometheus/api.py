"""Questions to Prometheus' HTTP API, with its errors put into codes. Knows nothing of tools.

Source: Prometheus' documentation, "HTTP API".
"""

import json
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from ropewalk_mcp_common.errors import CodedError
from ropewalk_mcp_upstream.client import Limits, Upstream

LIMITS = Limits(deadline_seconds=15, requests_per_second=20, burst=40, max_answer_bytes=8 * 2**20)
# The names of a server's metrics change seldom, and are large.
CACHE_SECONDS = 60.0
_MAX_MESSAGE = 1_000
_ASK_FOR_LESS = (
    "ask for less: a shorter range, a longer step, a label matcher, or an aggregation such as sum by (job) (…)"
)


class PrometheusApi:
    """A Prometheus at a base URL, which may have a path; a bearer token is read from its file for each request."""

    def __init__(self, upstream: Upstream, base_url: str, token_file: Path | None = None) -> None:
        self._upstream = upstream
        self._base_url = base_url
        self._token_file = token_file

    async def ask(self, path: str, query: dict[str, str], cache_seconds: float = 0) -> dict[str, Any]:
        """Return the answer of /api/v1/PATH as a whole, with its data and warnings.

        Raises CodedError: INVALID_INPUT with Prometheus' own words for what is wrong with the query, NOT_FOUND for a
        path that this server does not have, FORBIDDEN for credentials, and the codes of an upstream.
        """
        async with AsyncExitStack() as kept:
            try:
                url = f"{self._base_url}/api/v1/{path}"
                asking = self._upstream.asked(url, query, headers=self._headers(), cache_seconds=cache_seconds)
                answer = await kept.enter_async_context(asking)
            except CodedError as error:
                if error.code not in ("UPSTREAM_TIMEOUT", "UPSTREAM_INVALID"):
                    raise
                # It takes long, or is larger than what is read of an answer: often the query's doing.
                said = str(error).removeprefix(f"{error.code}: ")
                raise CodedError(error.code, f"{said}; or {_ASK_FOR_LESS}") from None
            try:
                document = json.loads(answer.body)
            except (ValueError, RecursionError):
                # A proxy before it, and Prometheus itself for an unknown path, refuse in plain text.
                document = None
            document = document if isinstance(document, dict) else {}
            if answer.status < 400 and document.get("status") == "success" and "data" in document:
                return document
            raise self._refusal(answer.status, document)

    def unreadable(self) -> CodedError:
        """Return the error for an answer whose data has another form than documented."""
        return self._upstream.invalid("data of another form")

    def _headers(self) -> dict[str, str]:
        if not self._token_file:
            return {}
        try:
            # Read each time: a rotated Secret changes the file.
            token = self._token_file.read_text().strip()
        except (OSError, ValueError):
            token = ""
        if not token or not token.isascii() or not token.isprintable():
            raise CodedError(
                "FORBIDDEN", f"no bearer token can be read from {self._token_file}; mount a Secret there that holds one"
            )
        return {"Authorization": f"Bearer {token}"}

    def _refusal(self, status: int, document: dict[str, Any]) -> CodedError:
        said = " ".join(str(document.get("error", "")).split())[:_MAX_MESSAGE]
        match status:
            case 401 | 403:
                how = "accept the bearer token" if self._token_file else "answer without a bearer token"
                return CodedError(
                    "FORBIDDEN",
                    f"Prometheus does not {how} (HTTP status {status}); set --bearer-token-file "
                    "(ROPEWALK_PROMETHEUS_TOKEN_FILE) to a file with a token that it takes",
                )
            case 400 | 422 if said:
                return CodedError("INVALID_INPUT", f"Prometheus says: {said}")
            case 404 | 405:
                return CodedError("NOT_FOUND", "this Prometheus, or what stands in for it, does not have that question")
        return self._upstream.invalid(f"status {status} without the word success")
