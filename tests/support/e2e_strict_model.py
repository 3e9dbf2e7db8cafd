"""A program: a model that refuses every key but the one of its argument, and says nothing worth hearing to that one.

Speaks as much of OpenAI's protocol as that takes, on port 8080.
"""

import sys

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

_KEY = sys.argv[1]
_REFUSAL = {
    "error": {"message": "Incorrect API key provided", "type": "invalid_request_error", "code": "invalid_api_key"}
}


def _is_known(request: Request) -> bool:
    return request.headers.get("authorization") == f"Bearer {_KEY}"


async def models(request: Request) -> Response:
    """GET /v1/models."""
    if not _is_known(request):
        return JSONResponse(_REFUSAL, 401)
    return JSONResponse(
        {"object": "list", "data": [{"id": "strict", "object": "model", "created": 0, "owned_by": "me"}]}
    )


async def chat(request: Request) -> Response:
    """POST /v1/chat/completions."""
    return JSONResponse({"error": {"message": "out of words"}} if _is_known(request) else _REFUSAL, 401)


if __name__ == "__main__":
    routes = [Route("/v1/models", models), Route("/v1/chat/completions", chat, methods=["POST"])]
    uvicorn.run(Starlette(routes=routes), host="0.0.0.0", port=8080, access_log=False)
