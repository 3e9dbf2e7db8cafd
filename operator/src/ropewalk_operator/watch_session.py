"""The sessions that kopf watches with: what it asks for, how often, and what it gets to see of the answers.

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

LOGIN = "login"


class StaysForbidden(Exception):
    """Something that is to be watched in a place is forbidden, and without it nothing can be done there."""


class Listener(Protocol):
    """Is told what becomes of a place's watching; `place` is a namespace, or "" for all."""

    def begin_listing(self, kind: Kind, place: str) -> None:
        """The first page of a listing has an answer. What came before it may be half a listing."""

    def begin_watch(self, kind: Kind, place: str, version: str) -> None:
        """A watch has begun after this version. After a listing, the first one begins after that one's version."""


class WatchSessions:
    """kopf wants a new one after each login; how often what is asked is counted for all of them.

    `authorization` gives headers for a request, `observe` gets verb and status code, `clock` gives seconds that never
    go back.
    """

    def __init__(
        self,
        authorization: Callable[[], Awaitable[dict[str, str]]],
        observe: Callable[[str, int], None],
        clock: Callable[[], float],
    ) -> None:
        self._authorization = authorization
        self._observe = observe
        self._pace = streams.Pace(clock)
        self._refusals = streams.Refusals(clock)

    def session(self, listener: Listener, ssl: SSLContext) -> aiohttp.ClientSession:
        """`listener` is told of each listing and watch that begins.

        ConfigMaps are asked for by their metadata alone: those of all the cluster's users are none of our business,
        and would fill the memory. Raises StaysForbidden where a listing or watch goes on being forbidden: kopf would
        ask for ever.
        """

        async def middleware(
            request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
        ) -> aiohttp.ClientResponse:
            request.headers.update(await self._authorization())
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
            except (aiohttp.ClientError, TimeoutError, OSError):
                self._observe(verb, 0)
                self._refusals.forget(what)
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
            said = streams.json_object(await response.read()).get("message", "")
            advice = "see the role of the operator's ServiceAccount, which the chart brings"
            raise StaysForbidden(f"{what} is forbidden, for {seconds:.0f} s now: {said}; {advice}")
        if response.status == 401:
            # kopf logs in anew and asks at once, and whoever judges tokens may be away for longer.
            await asyncio.sleep(self._pace.delay(LOGIN))
        elif response.status == 429:
            retry_after.bound(response)
