"""A program: a model that calls the tool which the question names, whether it was offered or not.

`call NAME` in the last message of the user makes it call NAME with a=2 and b=3; then it repeats what the tool answered.
Speaks as much of OpenAI's streaming protocol as that takes, on port 8080.
"""

import json
import re
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


async def chat(request: Request) -> Response:
    """POST /v1/chat/completions."""
    last = (await request.json())["messages"][-1]
    content = last["content"]
    text = content if isinstance(content, str) else " ".join(part.get("text", "") for part in content)
    if last["role"] == "tool":
        delta: dict[str, Any] = {"role": "assistant", "content": text}
        reason = "stop"
    else:
        name = re.findall(r"call (\w+)", text)[-1]
        function = {"name": name, "arguments": '{"a": 2, "b": 3}'}
        call = {"index": 0, "id": "call_1", "type": "function", "function": function}
        delta = {"role": "assistant", "content": None, "tool_calls": [call]}
        reason = "tool_calls"
    frame = {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": "stubborn"}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    events = [
        {**frame, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]},
        {**frame, "choices": [{"index": 0, "delta": {}, "finish_reason": reason}]},
        {**frame, "choices": [], "usage": usage},
    ]
    lines = [f"data: {json.dumps(event)}\n\n" for event in events]
    return Response("".join([*lines, "data: [DONE]\n\n"]), media_type="text/event-stream")


if __name__ == "__main__":
    app = Starlette(routes=[Route("/v1/chat/completions", chat, methods=["POST"])])
    uvicorn.run(app, host="0.0.0.0", port=8080, access_log=False)
