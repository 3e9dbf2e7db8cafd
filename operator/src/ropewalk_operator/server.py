"""The operator's own HTTP endpoints: /health, /ready, /metrics. Nothing that an agent or a request depends on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiohttp import web

Report = Callable[[], list[str]]
"""Gives the problems; none means that all is well."""


def app(*, health: Report, ready: Report, metrics: Callable[[], bytes], metrics_type: str) -> web.Application:
    """The endpoints as one application; `metrics` is called in a thread."""

    async def answer_health(_request: web.Request) -> web.Response:
        return _answer("healthy", health())

    async def answer_ready(_request: web.Request) -> web.Response:
        return _answer("ready", ready())

    async def answer_metrics(_request: web.Request) -> web.Response:
        # With thousands of resources this takes a quarter of a second, in which the event loop has other work.
        return web.Response(body=await asyncio.to_thread(metrics), headers={"Content-Type": metrics_type})

    application = web.Application()
    application.router.add_get("/health", answer_health)
    application.router.add_get("/ready", answer_ready)
    application.router.add_get("/metrics", answer_metrics)
    return application


async def start(application: web.Application, host: str, port: int) -> web.AppRunner:
    """Listen; the runner's `cleanup` ends it."""
    runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=0.2)
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    return runner


def _answer(name: str, problems: list[str]) -> web.Response:
    return web.json_response({name: not problems, "reasons": problems}, status=503 if problems else 200)
