"""What was said, and what is secret, is in no log line, metric, span or error: every way a turn can go is scanned."""

import asyncio
import io
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError

from agent_otlp import otlp_receiver
from agent_providers import Calls, IsSilent, Refuses, Says, Step, provider
from agent_server import LoopbackMcpServer, agent_config, running_agent
from ropewalk_agent import logs, tracing
from waiting import eventually

SYSTEM, QUERY, ANSWER = "canary-system", "canary-query", "canary-answer"
ARGUMENT, RESULT, TOOL_ERROR, INVENTED = "canary-argument", "canary-result", "canary-tool-error", "canary-invented"
KEY, TOKEN, USER, SESSION = "canary-key", "canary-token", "canary-user", "canary-session"
BAGGAGE = "canary-baggage"
NOWHERE = (SYSTEM, QUERY, ANSWER, ARGUMENT, RESULT, TOOL_ERROR, INVENTED, KEY, TOKEN, USER, BAGGAGE)


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What the agent's own logging at level debug writes."""
    root, ours = logging.getLogger(), logging.getLogger(logs.OURS)
    before = (root.handlers[:], root.level, ours.level)
    stream = io.StringIO()
    monkeypatch.setattr("sys.stdout", stream)
    logs.configure("debug", tracing.log_fields({"OTEL_EXPORTER_OTLP_ENDPOINT": "set"}))
    # Libraries too: what they log below warnings is not written by default, but nobody should have to rely on that.
    root.setLevel("DEBUG")
    yield stream
    root.handlers[:], ours.level = before[0], before[2]
    root.setLevel(before[1])


class SecretTools:
    """An MCP server whose tools say canaries; remembers the tokens and the words that it got."""

    def __init__(self) -> None:
        server = MCPServer("secret")
        self.tokens: list[str] = []
        self.words: list[str] = []

        @server.tool()
        def look_up(word: str, context: Context[None, None]) -> str:
            """Look up a word."""
            request = context.request_context.request
            self.tokens.append(request.headers.get("authorization", "") if request is not None else "")
            self.words.append(word)
            return RESULT

        @server.tool()
        def fail(word: str) -> str:
            """Fail."""
            raise ToolError(f"{TOOL_ERROR} {word}")

        self.loopback = LoopbackMcpServer(server)


async def test_no_canary_is_in_any_log_line_metric_span_or_error(
    written: io.StringIO, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text(KEY)
    (tmp_path / "token").write_text(TOKEN)
    never = asyncio.Event()
    tool_turn = (Calls("look_up", {"word": ARGUMENT}), Says((ANSWER,)))
    steps: list[Step] = [
        *tool_turn,
        *tool_turn,
        *(Calls("fail", {"word": ARGUMENT}), Says((ANSWER,))),
        *(Calls(INVENTED, {"word": ARGUMENT}), Says((ANSWER,))),
        Refuses(400, f"{KEY} may not ask {QUERY}"),
        IsSilent(never),
    ]
    tools = SecretTools()
    await asyncio.to_thread(tools.loopback.start)
    with otlp_receiver() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        async with provider("openai", *steps) as model:
            document: dict[str, Any] = {
                "systemPrompt": SYSTEM,
                "model": {
                    "provider": "openai-compatible",
                    "id": "small",
                    "baseURL": f"{model.url}/v1",
                    "apiKeyFile": str(tmp_path / "key"),
                },
                "mcpServers": [
                    {
                        "name": "secret",
                        "url": tools.loopback.url,
                        "auth": {"bearerTokenFile": str(tmp_path / "token")},
                    }
                ],
            }
            traces = tracing.start(os.environ, agent_config(**document))
            assert traces is not None
            async with running_agent(None, traces=traces, **document) as agent:
                who = {"session_id": SESSION, "user_id": USER}
                streamed = {"accept": "text/event-stream", "baggage": f"word={BAGGAGE}"}
                well = [await agent.query(QUERY, **who)]
                well.append(await agent.client.post("/query", json={"query": QUERY, **who}, headers=streamed))
                well += [await agent.query(QUERY, **who), await agent.query(QUERY, **who)]
                failed = [await agent.query(QUERY, **who), await agent.query(QUERY, timeout_seconds=0.3, **who)]
                failed.append(await agent.client.post("/query", json={"query": QUERY, "canary": ANSWER, **who}))
                failed.append(await agent.client.post("/query", content=f"{{not JSON {QUERY}"))
                never.set()
                await eventually(lambda: agent.runtime._bridge.running == 0)
                expositions = [
                    (await agent.client.get("/metrics", headers={"accept": accept})).text
                    for accept in ("text/plain", "application/openmetrics-text")
                ]
            await traces.close(5)
    await asyncio.to_thread(tools.loopback.stop)
    for handler in logging.getLogger().handlers:
        handler.flush()

    # The canaries were where they belong, and all that is scanned is there.
    assert [answer.status_code for answer in well] == [200, 200, 200, 200]
    assert [answer.status_code for answer in failed] == [502, 504, 400, 400]
    first = json.dumps(model.asked[0].body)
    assert all(word in first for word in (SYSTEM, QUERY))
    assert (tools.words, set(tools.tokens)) == ([ARGUMENT, ARGUMENT], {f"Bearer {TOKEN}"})
    assert RESULT in json.dumps(model.asked[1].body)
    assert model.keys[0] == KEY
    assert "baggage" not in model.asked[2].headers
    lines = written.getvalue().splitlines()
    ended = [json.loads(line) for line in lines if '"turn ended"' in line]
    assert [line["outcome"] for line in ended] == ["ok", "ok", "ok", "ok", "model_error", "timeout"]
    assert {line["session_id"] for line in ended} == {SESSION}
    assert {"POST /query", "invoke_agent tested", "chat small", "execute_tool fail"} <= set(collector.names)

    spans = [span.text for span in collector.spans]
    assert found((*NOWHERE, SESSION), [*spans, *expositions]) == []
    assert found(NOWHERE, lines) == []
    # The client wrote the question itself, and the provider's reason may quote it.
    in_errors = tuple(canary for canary in NOWHERE if canary != QUERY)
    assert found((*in_errors, SESSION), [answer.text for answer in failed]) == []


def found(canaries: tuple[str, ...], texts: list[str]) -> list[tuple[str, str]]:
    return [(canary, text[:300]) for canary in canaries for text in texts if canary in text]
