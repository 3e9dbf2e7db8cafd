"""The loops around the work queue: workers and the slow resync.

They never end by themselves; a worker does when it may write no more.
"""

from __future__ import annotations

import logging
import random
import time
from asyncio import sleep, timeout
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from functools import partial

from ropewalk_operator.cache import Cache
from ropewalk_operator.guard import NotLeading
from ropewalk_operator.kinds import RESOURCES, WATCHED, Key
from ropewalk_operator.kube import ApiError, Kube
from ropewalk_operator.metrics import Metrics
from ropewalk_operator.patience import Patience
from ropewalk_operator.streams import LONGEST_PAUSE_SECONDS
from ropewalk_operator.watches import Watches, list_into
from ropewalk_operator.workqueue import BASE_DELAY_SECONDS, JITTER, MAX_DELAY_SECONDS, WorkQueue

logger = logging.getLogger(__name__)

URGENT_PAUSE_SECONDS = 1.0
"""However long the API server is in trouble, a try for each worker and second is no storm."""


async def work(queue: WorkQueue[Key], reconcile: Callable[[Key], Awaitable[float | None]], metrics: Metrics) -> None:
    """One worker: whatever a reconcile runs into, the next one is not affected.

    While the API server is in trouble it pauses between two of them, so that thousands of resources are no storm. What
    a user has changed meanwhile ends the pause.
    """
    troubles = 0
    while True:
        key = await queue.get()
        began = time.monotonic()
        ok = False
        pause = left_alone = 0.0
        try:
            again = await reconcile(key)
            ok = True
            troubles = 0
            queue.forgive(key)
            if again is not None:
                queue.add_after(key, again)
        except NotLeading:
            # The process ends with it; the election says why.
            return
        except ApiError as error:
            # What is none of the resource's doing, or a conflict, passes: then nobody shall wait for long.
            at_most = LONGEST_PAUSE_SECONDS if error.is_trouble or error.status == 409 else MAX_DELAY_SECONDS
            if error.is_trouble:
                pause = min(BASE_DELAY_SECONDS * float(2 ** min(troubles, 16)), at_most)
                left_alone = error.retry_after_seconds
                troubles += 1
            delay = queue.retry(key, at_least=error.retry_after_seconds, at_most=at_most)
            logger.warning(
                "reconcile failed",
                extra={"fields": {"object": str(key), "error": str(error), "retry_seconds": round(delay, 2)}},
            )
        except Exception:
            delay = queue.retry(key)
            logger.exception(
                "reconcile failed", extra={"fields": {"object": str(key), "retry_seconds": round(delay, 2)}}
            )
        finally:
            metrics.reconciled(key, time.monotonic() - began, ok=ok)
            queue.done(key)
        if pause:
            await _pause(queue, pause, left_alone)


async def _pause(queue: WorkQueue[Key], seconds: float, left_alone: float) -> None:
    """`left_alone`: seconds that the API server itself has asked for, whatever is urgent."""
    # The workers have met the same trouble at the same time, and are not to come back all at once.
    seconds = max(seconds, left_alone) * random.uniform(1, 1 + JITTER)
    at_least = min(seconds, max(left_alone, URGENT_PAUSE_SECONDS))
    await sleep(at_least)
    with suppress(TimeoutError):
        async with timeout(seconds - at_least):
            await queue.pressed()


async def catch_up(cache: Cache, kube: Kube, watches: Watches, patience: Patience) -> None:
    """List all resources into the cache. Raises the ApiError of a refusal that stays."""
    for place in watches.places:
        try:
            for kind in () if place in cache.left_out else RESOURCES:
                await patience.ask(partial(list_into, cache, kube, [kind], place))
        except ApiError as error:
            if error.status != 403 or len(watches.places) == 1:
                raise
            # Its watches are refused as well when they begin anew, and then it is left out.
            logger.warning("a namespace was not listed", extra={"fields": {"namespace": place, "error": str(error)}})


async def resync(
    cache: Cache, kube: Kube, watches: Watches, enqueue: Callable[[Key, bool], None], every_seconds: float
) -> None:
    """List everything now and then and look at every resource: a safety net for whatever a watch may miss."""
    while True:
        await sleep(every_seconds * random.uniform(0.8, 1.2))
        for place in watches.places:
            if place in cache.left_out:
                continue
            try:
                # What only a listing finds gone is in no cache any more, and has to be forgotten all the same.
                await list_into(cache, kube, WATCHED, place, partial(_all, enqueue))
            except ApiError as error:
                logger.warning("resync failed", extra={"fields": {"namespace": place, "error": str(error)}})
        _all(enqueue, cache.resources)


def _all(enqueue: Callable[[Key, bool], None], keys: Iterable[Key]) -> None:
    for key in keys:
        enqueue(key, False)
