"""The HTTP side of the demo model: POST /v1/chat/completions, GET /v1/models, GET /health."""

import json
import time
from asyncio import sleep
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from demo_model import protocol
from demo_model.conversation import control, read, reply
from demo_model.protocol import MODEL, Refused
from demo_model.settings import Settings

WHAT_IT_IS = "demo model: not a language model"
_MAX_BODY_BYTES = 10 * 2**20
_MODEL = {"id": MODEL, "object": "model", "created": 0, "owned_by": "ropewalk", "description": WHAT_IT_IS}


def create_app(settings: Settings) -> Starlette:
    """Return the ASGI application."""

    async def chat(request: Request) -> Response:
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > _MAX_BODY_BYTES:
                raise Refused(413, f"the body is larger than {_MAX_BODY_BYTES} bytes; send a shorter conversation")
        try:
            asked = protocol.parsed(bytes(body))
            said = read(asked.messages)
            wanted = control(said.text)
            answer = reply(asked, said, wanted, int(time.time()))
        except RecursionError:
            raise Refused(
                400, "the body is nested too deeply; send it with fewer lists and objects in another"
            ) from None
        delay = settings.delay_seconds + wanted.slow_seconds
        if not asked.stream:
            if delay:
                await sleep(delay)
            return Response(protocol.completion(answer), media_type="application/json")
        events = protocol.chunks(answer, asked.include_usage)
        if not delay and not settings.chunk_seconds:
            # In one piece: load tests measure the agent, not this server.
            return Response(b"".join(events), media_type="text/event-stream")

        async def paced() -> AsyncIterator[bytes]:
            # The wait before the first token takes the place of the wait before its chunk.
            wait = delay
            for event in events:
                if wait:
                    await sleep(wait)
                yield event
                wait = settings.chunk_seconds

        return StreamingResponse(paced(), media_type="text/event-stream")

    async def models(_: Request) -> Response:
        return JSONResponse({"object": "list", "data": [_MODEL]})

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "ok", "server": WHAT_IT_IS})

    async def refused(_: Request, error: Exception) -> Response:
        if not isinstance(error, Refused):
            raise error
        return Response(json.dumps(error.body()), error.status, media_type="application/json")

    async def http_error(_: Request, error: Exception) -> Response:
        if not isinstance(error, HTTPException):
            raise error
        what = Refused(error.status_code, f"{error.detail}; there are /v1/chat/completions, /v1/models and /health")
        return Response(json.dumps(what.body()), error.status_code, error.headers, media_type="application/json")

    return Starlette(
        routes=[
            Route("/v1/chat/completions", chat, methods=["POST"]),
            Route("/v1/models", models),
            Route("/health", health),
        ],
        exception_handlers={Refused: refused, HTTPException: http_error},
    )
