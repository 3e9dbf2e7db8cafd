"""POST /batch: up to a hundred questions in one request, several at once, answered in order. Streams nothing.

Each item is a turn like one of /query: in a session of its own unless it names one, with its own deadline from the
moment it is submitted, and its own line in the log. No more than the agent's `concurrency` are submitted at a time, so
a batch does not fill the queue that others wait in; where others have filled it, an item comes back until its deadline.
"""

import asyncio
import time
from collections.abc import Iterator
from contextlib import aclosing
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from starlette.types import Receive, Scope, Send

from ropewalk_agent.config import AgentConfig
from ropewalk_agent.errors import AgentError
from ropewalk_agent.events import Answer, TurnRequest
from ropewalk_agent.metrics import Metrics
from ropewalk_agent.routes import turns
from ropewalk_agent.routes.query import QueryBody, answer_body
from ropewalk_agent.runtime import Runtime

MOST_ITEMS = 100
_pause = asyncio.sleep

_Chain = list[tuple[int, QueryBody]]
"""Items that run one after the other, each with its place in the batch."""


def _query_of_text(item: Any) -> Any:
    return {"query": item} if isinstance(item, str) else item


class BatchBody(BaseModel):
    """What POST /batch takes: questions as plain strings or as bodies of /query."""

    model_config = ConfigDict(extra="forbid")

    queries: list[Annotated[QueryBody, BeforeValidator(_query_of_text)]] = Field(min_length=1, max_length=MOST_ITEMS)


class BatchEndpoint:
    """The ASGI application of POST /batch. The middleware of app.py gives `scope["state"]["request_id"]`."""

    def __init__(self, config: AgentConfig, runtime: Runtime, metrics: Metrics) -> None:
        self._config = config
        self._runtime = runtime
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; a client that leaves cancels what runs and what has not begun."""
        queries = turns.parsed(BatchBody, await turns.read(receive)).queries
        await turns.unless_client_leaves(receive, self._answer_all(queries, scope, send))

    async def _answer_all(self, queries: list[QueryBody], scope: Scope, send: Send) -> None:
        results: list[dict[str, Any]] = [{} for _ in queries]
        chains = _chains(queries)
        left = iter(chains)
        async with asyncio.TaskGroup() as group:
            for _ in range(min(len(chains), self._config.concurrency)):
                group.create_task(self._answer_some(left, results, scope))
        await turns.send_json(send, {"results": results, "request_id": scope["state"]["request_id"]})

    async def _answer_some(self, left: Iterator[_Chain], results: list[dict[str, Any]], scope: Scope) -> None:
        for chain in left:
            for place, query in chain:
                results[place] = await self._answer(query, place, scope)

    async def _answer(self, query: QueryBody, place: int, scope: Scope) -> dict[str, Any]:
        request_id = f"{scope['state']['request_id']}-{place}"
        turn = query.turn(request_id, streaming=False)
        # The outcome of one item is not that of the request.
        item_scope = {**scope, "state": {**scope["state"], "request_id": request_id}}
        seconds = turns.timeout_seconds(query.timeout_seconds, self._config.limits)
        gives_up_at = time.monotonic() + seconds
        try:
            while True:
                try:
                    return {"ok": await self._answered(turn, seconds, item_scope)}
                except AgentError as error:
                    # Where others fill the queue, to be refused at once would cost the whole rest of the batch.
                    pause_seconds = error.retry_after_seconds or 0
                    seconds = gives_up_at - time.monotonic() - pause_seconds
                    if error.code != "queue_full" or seconds <= 0:
                        return error.body(request_id)
                await _pause(pause_seconds)
        finally:
            self._metrics.batch_items.labels(outcome=item_scope["state"]["outcome"]).inc()

    async def _answered(self, turn: TurnRequest, seconds: float, scope: Scope) -> dict[str, Any]:
        body: dict[str, Any] = {}
        async with aclosing(turns.events(self._runtime, turn, seconds, scope)) as events:
            async for event in events:
                if isinstance(event, Answer):
                    body = answer_body(event, turn.request_id)
        return body


def _chains(queries: list[QueryBody]) -> list[_Chain]:
    """Return the items of each session, which run in their order; an item that names no session stands alone."""
    chains: dict[Any, _Chain] = {}
    for place, query in enumerate(queries):
        session = place if query.session_id is None else (query.user_id or "", query.session_id)
        chains.setdefault(session, []).append((place, query))
    return list(chains.values())
