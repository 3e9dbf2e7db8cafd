"""A program: an MCP server that behaves as its one argument says, to run in any image that has uvicorn and Starlette.

The argument is a JSON object: `tools` (definitions, sent as they are), `copies` (so many more of the first, numbered),
`sessions` (true: the era before 2026-07-28, with sessions in memory), `listing_seconds` and `call_seconds` (how long
tools/list and a call take), `redirect` (where POSTs are sent). A call adds `a` and `b`, whatever the tool is called.
Serves /mcp and /metrics on port 8000.
"""

import asyncio
import json
import signal
import sys
import uuid
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

Json = dict[str, Any]

told: Json = json.loads(sys.argv[1])
tools = told["tools"] + [{**told["tools"][0], "name": f"copy_{n}"} for n in range(told.get("copies", 0))]
sessions: set[str] = set()
calls: list[str] = []
WHO = {"name": "odd", "version": "1"}


async def result_of(method: str, params: Json) -> Json | None:
    """What a method gives; None where there is no such method."""
    if method == "server/discover" and not told.get("sessions"):
        newer = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private", "serverInfo": WHO}
        return {**newer, "supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}
    if method == "initialize" and told.get("sessions"):
        return {"protocolVersion": "2025-11-25", "serverInfo": WHO, "capabilities": {"tools": {}}}
    if method == "tools/list":
        await asyncio.sleep(told.get("listing_seconds", 0))
        return {"resultType": "complete", "ttlMs": 0, "cacheScope": "private", "tools": tools}
    if method == "tools/call":
        calls.append(params["name"])
        await asyncio.sleep(told.get("call_seconds", 0))
        a, b = params["arguments"].get("a", 0), params["arguments"].get("b", 0)
        return {"resultType": "complete", "content": [{"type": "text", "text": f"{a} + {b} = {a + b}"}]}
    return None


async def mcp(request: Request) -> Response:
    """One JSON-RPC message."""
    if where := told.get("redirect"):
        return RedirectResponse(where, 307)
    message = await request.json()
    headers = {}
    if told.get("sessions"):
        if message["method"] == "initialize":
            headers["mcp-session-id"] = str(uuid.uuid4())
            sessions.add(headers["mcp-session-id"])
        elif request.headers.get("mcp-session-id") not in sessions:
            return PlainTextResponse("no such session", 404)
    if "id" not in message:
        return Response(status_code=202)
    result = await result_of(message["method"], message.get("params") or {})
    answer = {"error": {"code": -32601, "message": "no such method"}} if result is None else {"result": result}
    return JSONResponse({"jsonrpc": "2.0", "id": message["id"], **answer}, headers=headers)


async def metrics(request: Request) -> Response:
    """The number of calls, as the servers that ship count them."""
    return PlainTextResponse(f'ropewalk_mcp_tool_calls_total{{outcome="ok",tool="any"}} {len(calls)}\n')


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    app = Starlette(routes=[Route("/mcp", mcp, methods=["POST"]), Route("/metrics", metrics)])
    uvicorn.run(app, host="0.0.0.0", port=8000, access_log=False)
