"""GET /health, /ready, /metrics and /tools: the truth about the pod, answered by the server's loop alone."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ropewalk_agent.metrics import Metrics
from ropewalk_agent.runtime import STUCK_SECONDS_UNHEALTHY, Runtime

_PATIENCE_SECONDS = 1.5
"""How long /ready holds a question to a starting pod; less than the probe's own time limit of 2 s."""


def routes(runtime: Runtime, metrics: Metrics) -> list[Route]:
    """Return the routes."""

    async def health(_: Request) -> Response:
        stuck = runtime.stuck_seconds()
        if stuck > STUCK_SECONDS_UNHEALTHY:
            return JSONResponse({"healthy": False, "reason": f"the worker has not answered for {stuck:.0f} s"}, 503)
        return JSONResponse({"healthy": True})

    async def ready(_: Request) -> Response:
        await runtime.wait_until_ready(_PATIENCE_SECONDS)
        reasons = runtime.reasons_not_ready()
        return JSONResponse({"ready": not reasons, "reasons": reasons}, 503 if reasons else 200)

    async def exposition(request: Request) -> Response:
        await runtime.measure_lag()
        body, content_type = metrics.exposition(request.headers.get("accept", ""))
        return Response(body, headers={"content-type": content_type})

    async def tools(_: Request) -> Response:
        return JSONResponse(runtime.tools_report())

    return [
        Route("/health", health),
        Route("/ready", ready),
        Route("/metrics", exposition),
        Route("/tools", tools),
    ]
