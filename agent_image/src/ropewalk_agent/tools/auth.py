"""How an agent proves itself to an MCP server: a mounted bearer token, or OAuth client credentials. Logs no secret.

A token is fetched when it is needed, kept in memory, and renewed before its end. The token endpoint is asked over a
client of its own that follows no redirect.
"""

import asyncio
import base64
import json
import logging
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote_plus

import httpx2

from ropewalk_agent.config import ClientCredentials, McpAuth
from ropewalk_agent.models import KeyFile, without_authorities

_log = logging.getLogger("ropewalk.mcp.auth")

RENEW_BEFORE_END_SECONDS = 300.0
"""A token is renewed so long before its end, or at half its life where that is later."""
ASSUMED_LIFE_SECONDS = 600.0
"""Life of a token whose endpoint does not tell it; RFC 6749, section 5.1, only recommends to."""
_ENDPOINT_SECONDS = 4.0
"""Bound on one answer of the token endpoint: less than a connection has to be made."""
_NEW_SECONDS = 10.0
"""A server that does not accept a token as new as this will not accept the next one either."""
_FAILURE_SECONDS = 1.0
"""So long a failure of the token endpoint stands for the next askers too, and the pause before it is asked again."""
_LARGEST_ANSWER = 65_536
_REASON = re.compile(r"[a-z_]{1,40}")
_TOKEN = re.compile(r"[\x21-\x7e]+")


class AuthError(Exception):
    """There is no token; the message says why, for whoever runs the agent, and holds no secret."""


class TokenSource(Protocol):
    """Where a connection gets its token."""

    async def token(self) -> str:
        """Return a token that is good as far as anybody knows; raises AuthError."""

    def rejected(self, token: str) -> bool:
        """Note that the server did not accept this token; return whether it is worth to ask for another."""

    def secrets(self) -> tuple[str, ...]:
        """Return what must not be written anywhere; reads no file and raises nothing."""


def token_source(auth: McpAuth | None, told: Callable[[str], None]) -> TokenSource | None:
    """Return the source that the settings name; `told` hears of a renewal that failed while the old token is good."""
    if auth is None:
        return None
    if auth.client_credentials is not None:
        return ClientCredentialTokens(auth.client_credentials, told)
    if auth.bearer_token_file is None:
        raise ValueError("auth names neither a token nor client credentials")
    return BearerFile(auth.bearer_token_file)


class BearerFile:
    """A token in a mounted file, read again when the file changes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = KeyFile(path)

    async def token(self) -> str:
        """See TokenSource."""
        token = mounted(self._file, self._path)
        if not _TOKEN.fullmatch(token):
            raise AuthError(f"no token: {self._path} must hold one word of visible ASCII characters")
        return token

    def rejected(self, token: str) -> bool:
        """See TokenSource: only if the file holds another one meanwhile."""
        return self._file.read() not in ("", token)

    def secrets(self) -> tuple[str, ...]:
        """See TokenSource."""
        return self._file.secrets()


class ClientCredentialTokens:
    """Tokens by the client credentials grant (RFC 6749, section 4.4). Belongs to one event loop."""

    def __init__(
        self,
        config: ClientCredentials,
        told: Callable[[str], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._told = told
        self._clock = clock
        self._id, self._secret = KeyFile(config.client_id_file), KeyFile(config.client_secret_file)
        self._in_body = False
        self._token = self._token_before = ""
        self._asked_at = self._renew_at = self._ends_at = 0.0
        self._failure: tuple[float, AuthError] | None = None
        self._renewal = asyncio.Lock()

    async def token(self) -> str:
        """See TokenSource. One renewal at a time: others go on with the token that they have, or wait for the new."""
        if not self._is_due() or (self._is_good() and self._renewal.locked()):
            return self._token
        async with self._renewal:
            if self._is_due():
                await self._renew()
            return self._token

    def rejected(self, token: str) -> bool:
        """See TokenSource: the token is dropped, unless it has been renewed meanwhile."""
        if token == self._token:
            if self._clock() < self._asked_at + _NEW_SECONDS:
                return False
            self._hold("")
        return True

    def secrets(self) -> tuple[str, ...]:
        """See TokenSource."""
        return (*self._secret.secrets(), self._token, self._token_before)

    def _hold(self, token: str) -> None:
        # Requests with the one before may still be under way.
        self._token_before = self._token or self._token_before
        self._token = token

    def _is_good(self) -> bool:
        return bool(self._token) and self._clock() < self._ends_at

    def _is_due(self) -> bool:
        return not self._token or self._clock() >= self._renew_at

    async def _renew(self) -> None:
        if self._failure is not None and self._clock() < self._failure[0]:
            if self._is_good():
                return
            raise self._failure[1]
        try:
            asked_at = self._clock()
            token, life = await self._fetch()
        except AuthError as error:
            self._failure = (self._clock() + _FAILURE_SECONDS, error)
            if not self._is_good():
                raise
            # The old one will do for a while: ask again later, not with every request.
            self._renew_at = self._clock() + min(10 * _FAILURE_SECONDS, (self._ends_at - self._clock()) / 2)
            _log.warning("a token was not renewed", extra={"fields": {"reason": str(error)}})
            self._told(str(error))
        else:
            self._failure = None
            self._hold(token)
            self._asked_at, self._ends_at = asked_at, asked_at + life
            self._renew_at = asked_at + max(life - RENEW_BEFORE_END_SECONDS, life / 2)

    async def _fetch(self) -> tuple[str, float]:
        """Return a new token and its life in seconds."""
        status, body = await self._ask()
        if not self._in_body and (status == 401 or (status == 400 and body.get("error") == "invalid_client")):
            # The endpoint takes the secret in the body only: not what RFC 6749, section 2.3.1, asks of it, but common.
            self._in_body = True
            status, body = await self._ask()
            self._in_body = status == 200
        if status != 200:
            error = body.get("error")
            reason = f": {error}" if isinstance(error, str) and _REASON.fullmatch(error) else ""
            raise self._error(f"answered HTTP {status}{reason}")
        token, kind = body.get("access_token"), body.get("token_type", "bearer")
        if not isinstance(token, str) or not _TOKEN.fullmatch(token):
            raise self._error("sent no access_token")
        if str(kind).lower() != "bearer":
            raise self._error("sent a token that is not of type Bearer")
        try:
            life = float(body.get("expires_in", ASSUMED_LIFE_SECONDS))
        except (TypeError, ValueError):
            life = ASSUMED_LIFE_SECONDS
        if not life > 0:
            raise self._error("sent a token that has ended already")
        return token, life

    async def _ask(self) -> tuple[int, dict[str, Any]]:
        config = self._config
        client_id = mounted(self._id, config.client_id_file)
        secret = mounted(self._secret, config.client_secret_file)
        form = {"grant_type": "client_credentials"}
        # A bound on what is read says nothing about what it unpacks to.
        headers = {"accept": "application/json", "accept-encoding": "identity"}
        if config.scopes:
            form["scope"] = " ".join(config.scopes)
        if self._in_body:
            form.update(client_id=client_id, client_secret=secret)
        else:
            pair = f"{quote_plus(client_id)}:{quote_plus(secret)}"  # as forms encode them: RFC 6749, section 2.3.1
            headers["authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        verify = without_authorities() if config.token_url.startswith("http://") else True
        try:
            async with (
                asyncio.timeout(_ENDPOINT_SECONDS),
                httpx2.AsyncClient(verify=verify, timeout=_ENDPOINT_SECONDS) as client,
                client.stream("POST", config.token_url, data=form, headers=headers) as response,
            ):
                if response.headers.get("content-encoding", "identity") != "identity":
                    raise self._error("sent a compressed answer, which was not asked for")
                body = b""
                async for chunk in response.aiter_raw():
                    body += chunk
                    if len(body) > _LARGEST_ANSWER:
                        raise self._error(f"sent more than {_LARGEST_ANSWER} bytes")
        except TimeoutError:
            raise self._error(f"did not answer within {_ENDPOINT_SECONDS:g} s") from None
        except httpx2.HTTPError as error:
            raise self._error(f"cannot be asked ({type(error).__name__})") from None
        try:
            document = json.loads(body)
        except (ValueError, RecursionError):
            document = None
        return response.status_code, document if isinstance(document, dict) else {}

    def _error(self, what: str) -> AuthError:
        url = httpx2.URL(self._config.token_url)
        return AuthError(f"no token: the token endpoint {url.scheme}://{url.netloc.decode()}{url.path} {what}")


def mounted(file: KeyFile, path: Path, what: str = "token") -> str:
    """Return what a mounted file holds; raises AuthError, which says what there is none of."""
    try:
        content = file.read()
    except (OSError, ValueError) as error:
        raise AuthError(f"no {what}: {path} cannot be read ({type(error).__name__})") from None
    if not content:
        raise AuthError(f"no {what}: {path} is missing or empty; mount the Secret with it there")
    return content
