"""Tasks that the bridge cannot do without: one that fails ends the bridge, so that it is started again."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

_log = logging.getLogger("ropewalk.mcp.stdio")


def essential(work: Coroutine[Any, Any, None], fail: Callable[[], None]) -> asyncio.Task[None]:
    """Run the work as a task; where it raises, that is logged and `fail` is called. It may end, or be cancelled."""

    def judge(ended: asyncio.Task[None]) -> None:
        if not ended.cancelled() and (error := ended.exception()) is not None:
            _log.critical("the bridge has failed and ends", exc_info=error)
            fail()

    task = asyncio.create_task(work)
    task.add_done_callback(judge)
    return task
