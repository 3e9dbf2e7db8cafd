"""The session that kopf watches with: what it asks for, how often, and what it gets to see of the answers.

Knows which kinds are asked for, never what the objects mean.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from ssl import SSLContext
from typing import Protocol

import aiohttp

from ropewalk_operator import retry_after, streams
from ropewalk_operator.kinds import CONFIG_MAP, Kind, collection

METADATA_ONLY = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
METADATA_LIST_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"

ENDS_SESSIONS = "[SSL: "
"""Begins the words of errors of TLS. After one of them kopf closes the session, which all watches share."""


class StaysRefused(Exception):
    """A listing or watch is refused, and goes on being so."""


class StaysForbidden(StaysRefused):
    """Something that is to be watched in a place is forbidden, and without it nothing can be done there."""


class Listener(Protocol):
    """Is told what becomes of a place's watching; `place` is a namespace, or "" for all."""

    def begin_listing(self, kind: Kind, place: str) -> None:
        """The first page of a listing has an answer. What came before it may be half a listing."""

    def begin_watch(self, kind: Kind, place: str, version: str) -> None:
        """A watch has begun after this version. After a listing, the first one begins after that one's version."""


class WatchSession:
    """Makes the session. kopf never learns that credentials are refused: each request has them as they are just then,
    and a session that is closed for a login would be missing to all other watches.

    `headers` gives those of a request, `observe` gets verb and status code, `clock` gives seconds that never go back.
    """

    def __init__(
        self,
        headers: Callable[[], Awaitable[dict[str, str]]],
        observe: Callable[[str, int], None],
        clock: Callable[[], float],
    ) -> None:
        self._headers = headers
        self._observe = observe
        self._pace = streams.Pace(clock)
        self._refusals = streams.Refusals(clock)

    def open(self, listener: Listener, ssl: SSLContext) -> aiohttp.ClientSession:
        """`listener` is told of each listing and watch that begins.

        ConfigMaps are asked for by their metadata alone: those of all the cluster's users are none of our business,
        and would fill the memory. Raises StaysRefused where a listing or watch goes on being refused: kopf would ask
        for ever.
        """

        async def middleware(
            request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
        ) -> aiohttp.ClientResponse:
            request.headers.update(await self._headers())
            place = collection(request.url.path)
            is_watch = request.url.query.get("watch") == "true"
            if place is not None and place[0] is CONFIG_MAP:
                request.headers["Accept"] = METADATA_ONLY if is_watch else METADATA_LIST_ONLY
            verb = "WATCH" if is_watch else "LIST" if place else "GET"
            what = f"{verb} {request.url.path}"
            is_begin = "continue" not in request.url.query
            if place is not None and is_begin:
                await asyncio.sleep(self._pace.delay(what))
            try:
                response = await handler(request)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                self._observe(verb, 0)
                self._refusals.forget(what)
                if ENDS_SESSIONS in str(error):
                    raise aiohttp.ClientConnectionError(str(error).replace(ENDS_SESSIONS, "[TLS: ")) from error
                raise
            self._observe(verb, response.status)
            await self._mend_error(response, what)
            if place is not None and response.status == 410:
                await streams.list_anew(response, is_watch=is_watch)
            elif place is not None and response.status == 200:
                if is_watch:
                    listener.begin_watch(*place, request.url.query.get("resourceVersion", ""))
                    streams.only_whole_lines(response)
                elif is_begin:
                    listener.begin_listing(*place)
            return response

        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=ssl),
            middlewares=(middleware,),
            response_class=streams.Answer,
            read_bufsize=2**21,
        )

    async def _mend_error(self, response: aiohttp.ClientResponse, what: str) -> None:
        if (seconds := self._refusals.seconds(what, response.status)) >= streams.REFUSED_SECONDS:
            said = f"for {seconds:.0f} s now: {streams.words(await response.read())}"
            if response.status == 403:
                advice = "see the role of the operator's ServiceAccount, which the chart brings"
                raise StaysForbidden(f"{what} is forbidden, {said}; {advice}")
            advice = "see who stands between the operator and the API server"
            raise StaysRefused(f"{what} is refused with {response.status}, {said}; {advice}")
        if response.status == 429:
            retry_after.bound(response)
        elif response.status == 401 or streams.is_refusal(response.status):
            # Then kopf asks again, ever more slowly.
            response.status = 503
