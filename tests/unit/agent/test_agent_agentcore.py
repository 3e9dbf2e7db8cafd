"""The AgentCore Runtime contract over real HTTP and real websockets, beside the runtime app of bedrock-agentcore."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
import uvicorn
from bedrock_agentcore.runtime import BedrockAgentCoreApp
from bedrock_agentcore.runtime.models import REQUEST_ID_HEADER as THEIR_REQUEST_HEADER
from bedrock_agentcore.runtime.models import SESSION_HEADER as THEIR_SESSION_HEADER
from bedrock_agentcore.runtime.models import PingStatus
from starlette.websockets import WebSocket
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from agent_models import Call, Gate, ScriptedModel
from agent_server import RunningAgent, agent_document, running_agent
from ports import free_port
from ropewalk_agent.routes import turns
from ropewalk_agent.routes.agentcore import SESSION_HEADER, USER_HEADER, Ping
from ropewalk_agent.runtime import Runtime
from ropewalk_agent.structured import TOOL_NAME
from waiting import eventually

SESSION = "a-session-of-thirty-three-letters"
EVENT_STREAM = {"accept": "text/event-stream"}


def frames(text: str) -> list[dict[str, Any]]:
    """The frames of a stream that consists of nothing but data lines."""
    return [json.loads(frame.removeprefix("data: ")) for frame in text.split("\n\n") if frame]


@asynccontextmanager
async def their_app() -> AsyncIterator[httpx.AsyncClient]:
    """The runtime app of the package, which answers `prompt` and streams two pieces for the prompt "stream"."""
    app = BedrockAgentCoreApp()

    @app.entrypoint
    async def invoke(payload: dict[str, Any]) -> Any:
        async def pieces() -> AsyncIterator[dict[str, str]]:
            yield {"type": "text", "text": "one"}
            yield {"type": "text", "text": "two"}

        return pieces() if payload["prompt"] == "stream" else {"response": payload["prompt"]}

    @app.websocket
    async def talk(socket: WebSocket, _: Any) -> None:
        await socket.accept()
        while True:
            await socket.send_json({"response": (await socket.receive_json())["prompt"]})

    server = uvicorn.Server(uvicorn.Config(cast(Any, app), port=(port := free_port()), log_config=None))
    serving = asyncio.create_task(server._serve())
    await eventually(lambda: server.started)
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10) as client:
            yield client
    finally:
        server.should_exit = True
        await serving


def socket_to(client: httpx.AsyncClient, path: str = "/ws", **headers: str) -> connect:
    """A websocket to the same server as the client."""
    url = str(client.base_url.join(path)).replace("http://", "ws://")
    return connect(url, additional_headers=headers)


async def said(socket: ClientConnection) -> list[dict[str, Any]]:
    """The frames of one turn, its last included."""
    got: list[dict[str, Any]] = []
    while not got or got[-1]["type"] not in ("result", "error"):
        got.append(json.loads(await socket.recv()))
    return got


async def invoke(agent: RunningAgent, payload: Any, **headers: str) -> httpx.Response:
    return await agent.client.post("/invocations", json=payload, headers=headers)


async def closed_with(socket: ClientConnection) -> int | None:
    with contextlib.suppress(ConnectionClosed):
        while True:
            await socket.recv()
    return socket.close_code


def count(agent: RunningAgent, endpoint: str, outcome: str) -> float | None:
    labels = {"endpoint": endpoint, "outcome": outcome}
    return agent.metrics.registry.get_sample_value("ropewalk_agent_requests_total", labels)


async def test_payloads_states_and_frames_are_those_of_the_runtime_app() -> None:
    async with running_agent(ScriptedModel(["one", "two"])) as agent, their_app() as theirs:
        for payload in ({"prompt": "hello"}, "no json"):
            content = json.dumps(payload) if isinstance(payload, dict) else payload
            ours, other = [await client.post("/invocations", content=content) for client in (agent.client, theirs)]
            assert ours.status_code == other.status_code
            assert ours.headers["content-type"] == other.headers["content-type"]
        mine, other = [await client.get("/ping") for client in (agent.client, theirs)]
        assert mine.status_code == other.status_code
        assert {key: type(value) for key, value in mine.json().items()} == {
            key: type(value) for key, value in other.json().items()
        }
        assert mine.json()["status"] == other.json()["status"]
        mine, other = [
            await client.post("/invocations", json={"prompt": "stream"}, headers=EVENT_STREAM)
            for client in (agent.client, theirs)
        ]
        assert mine.headers["content-type"] == other.headers["content-type"]
        assert frames(mine.text)[:2] == frames(other.text)
        assert mine.text.startswith(other.text)
        mine, other = [await client.get("/invocations") for client in (agent.client, theirs)]
        assert (mine.status_code, other.status_code) == (405, 405)
        async with socket_to(agent.client) as our_socket, socket_to(theirs) as their_socket:
            await our_socket.send('{"prompt": "x"}')
            await their_socket.send('{"prompt": "x"}')
            ours_said, theirs_said = (await said(our_socket))[-1], json.loads(await their_socket.recv())
            assert ours_said["response"] == "onetwo"
            assert set(theirs_said) <= set(ours_said)
    assert SESSION_HEADER == THEIR_SESSION_HEADER


@pytest.mark.parametrize("name", ["prompt", "query", "message", "input"])
async def test_a_question_is_taken_under_each_of_its_names(name: str) -> None:
    async with running_agent(ScriptedModel(["42"])) as agent:
        answer = await invoke(agent, {name: "what?", "of_no_concern": 1})
    body = answer.json()
    assert (body["response"], body["stop_reason"]) == ("42", "end_turn")
    assert body["request_id"] == answer.headers["x-request-id"]
    assert body["session_id"] == answer.headers[SESSION_HEADER]
    assert agent.model.texts_asked == ["what?"]


@pytest.mark.parametrize(
    "payload",
    [
        {"input": "c", "message": "b", "query": "d", "prompt": "a"},
        {"prompt": "a", "message": {"role": "user"}},
        {"prompt": "a", "input": [1]},
        {"prompt": "", "query": "a"},
        {"prompt": None, "message": "a", "input": ""},
    ],
)
async def test_the_first_name_with_something_in_it_counts(payload: dict[str, Any]) -> None:
    async with running_agent(ScriptedModel()) as agent:
        await invoke(agent, payload)
    assert agent.model.texts_asked == ["a"]


async def test_an_error_names_the_session_too() -> None:
    async with running_agent(ScriptedModel([RuntimeError("no luck")])) as agent:
        for payload, status in (({}, 400), ({"prompt": "q"}, 502)):
            answer = await invoke(agent, payload, **{SESSION_HEADER: SESSION})
            assert (answer.status_code, answer.headers.get_list(SESSION_HEADER)) == (status, [SESSION])


@pytest.mark.parametrize(
    ("payload", "words"),
    [("[]", "should be an object"), ("{}", "prompt is missing"), ('{"prompt": 7}', "prompt: "), ("{", "Invalid JSON")],
)
async def test_a_payload_without_a_question_is_refused(payload: str, words: str) -> None:
    async with running_agent(ScriptedModel()) as agent:
        answer = await agent.client.post("/invocations", content=payload)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request")
        assert words in answer.json()["error"]["message"]
        assert count(agent, "/invocations", "invalid_request") == 1


async def test_the_session_header_names_the_session_and_the_user_header_its_user() -> None:
    async with running_agent(ScriptedModel()) as agent:
        for _ in range(2):
            answer = await invoke(agent, {"prompt": "x"}, **{SESSION_HEADER: SESSION})
            assert answer.json()["session_id"] == SESSION
        await invoke(agent, {"prompt": "x"}, **{SESSION_HEADER: SESSION, USER_HEADER: "anna"})
        assert [len(asked) for asked in agent.model.asked] == [1, 3, 1]


async def test_without_a_session_header_each_invocation_gets_a_session_that_can_be_continued() -> None:
    async with running_agent(ScriptedModel()) as agent:
        first = (await invoke(agent, {"prompt": "x"})).json()["session_id"]
        second = (await invoke(agent, {"prompt": "x"})).json()["session_id"]
        assert first != second
        assert (await invoke(agent, {"prompt": "x"}, **{SESSION_HEADER: first})).status_code == 200
        assert [len(asked) for asked in agent.model.asked] == [1, 1, 3]


@pytest.mark.parametrize(
    ("session_id", "status"), [("x" * 32, 400), ("x" * 33, 200), ("x" * 256, 200), ("x" * 257, 400)]
)
async def test_a_session_has_33_to_256_characters(session_id: str, status: int) -> None:
    async with running_agent(ScriptedModel()) as agent:
        answer = await invoke(agent, {"prompt": "x"}, **{SESSION_HEADER: session_id})
    assert answer.status_code == status
    if status == 400:
        assert answer.json()["error"]["code"] == "invalid_request"
        assert f"has {len(session_id)} characters; use 33 to 256" in answer.json()["error"]["message"]


@pytest.mark.parametrize(("payload", "headers"), [({}, EVENT_STREAM), ({"stream": True}, {})])
async def test_a_stream_is_frames_of_data_alone_that_leave_before_the_model_has_finished(
    payload: dict[str, Any], headers: dict[str, str]
) -> None:
    gate = Gate()
    async with (
        running_agent(ScriptedModel(["first ", gate, "second"])) as agent,
        agent.client.stream("POST", "/invocations", json={"prompt": "q", **payload}, headers=headers) as answer,
    ):
        received = ""
        async for chunk in answer.aiter_text():
            if not received:
                assert frames(chunk) == [{"type": "text", "text": "first "}]
                gate.open()
            received += chunk
    assert all(line.startswith("data: ") for line in received.splitlines() if line)
    assert [frame["type"] for frame in frames(received)] == ["text", "text", "result"]
    assert frames(received)[-1]["response"] == "first second"


async def test_agentcore_names_the_request_where_nobody_else_does() -> None:
    async with running_agent(ScriptedModel()) as agent:
        answer = await invoke(agent, {"prompt": "x"}, **{THEIR_REQUEST_HEADER: "named-by-aws"})
    assert answer.json()["request_id"] == "named-by-aws"


async def test_an_invocation_takes_the_options_of_a_query() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    async with running_agent(ScriptedModel([Call(TOOL_NAME, {"n": 7})])) as agent:
        answer = await invoke(agent, {"prompt": "x", "output_schema": schema, "tools": []})
        assert answer.json().get("structured") == {"n": 7}


async def test_half_a_character_of_the_model_breaks_no_stream_and_no_socket() -> None:
    async with running_agent(ScriptedModel(["\ud83d"])) as agent, socket_to(agent.client) as socket:
        assert (await invoke(agent, {"prompt": "x"})).json()["response"] == "?"
        streamed = await invoke(agent, {"prompt": "x", "stream": True})
        assert frames(streamed.text)[-1]["response"] == "?"
        await socket.send('{"prompt": "x"}')
        assert (await said(socket))[-1]["response"] == "?"


async def test_stream_false_beats_the_accept_header() -> None:
    async with running_agent(ScriptedModel(["x"])) as agent:
        answer = await agent.client.post("/invocations", json={"prompt": "q", "stream": False}, headers=EVENT_STREAM)
    assert answer.json()["response"] == "x"


async def test_an_error_has_its_status_or_is_the_last_frame_of_a_stream_that_has_begun() -> None:
    model = ScriptedModel([RuntimeError("no luck")], ["some text", RuntimeError("no luck")])
    async with running_agent(model) as agent:
        answer = await invoke(agent, {"prompt": "q", "stream": True})
        assert (answer.status_code, answer.json()["error"]["code"]) == (502, "model_error")
        answer = await invoke(agent, {"prompt": "q", "stream": True})
        last = frames(answer.text)[-1]
        assert (answer.status_code, last["type"], last["error"]["code"]) == (200, "error", "model_error")
        assert count(agent, "/invocations", "model_error") == 2


async def test_a_client_that_leaves_an_invocation_cancels_it_and_frees_its_place() -> None:
    gate = Gate()
    async with running_agent(ScriptedModel([gate, "never"], ["fine"]), concurrency=1) as agent:
        asking = asyncio.create_task(invoke(agent, {"prompt": "a"}, **{SESSION_HEADER: SESSION}))
        await gate.wait_reached()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        assert (await invoke(agent, {"prompt": "b"}, **{SESSION_HEADER: SESSION})).json()["response"] == "fine"
        assert len(agent.model.asked[1]) == 1
        assert count(agent, "/invocations", "cancelled") == 1


async def test_ping_is_busy_while_a_turn_runs() -> None:
    gate = Gate()
    async with running_agent(ScriptedModel([gate, "x"])) as agent:
        assert (await agent.client.get("/ping")).json()["status"] == PingStatus.HEALTHY
        asking = asyncio.create_task(invoke(agent, {"prompt": "a"}))
        await gate.wait_reached()
        assert (await agent.client.get("/ping")).json()["status"] == PingStatus.HEALTHY_BUSY
        gate.open()
        await asking
        await eventually(lambda: not agent.runtime.busy)
        assert (await agent.client.get("/ping")).json()["status"] == PingStatus.HEALTHY


class StandIn:
    """What Ping asks of a runtime."""

    def __init__(self) -> None:
        self.busy = False
        self.stuck = 0.0

    def stuck_seconds(self) -> float:
        return self.stuck


async def test_the_time_of_a_ping_is_that_of_the_last_change() -> None:
    runtime, now = StandIn(), [1000.0]
    ping = Ping(cast(Runtime, runtime), lambda: now[0])
    seen = []
    for busy in (False, False, True, True, False):
        runtime.busy = busy
        now[0] += 10
        body = json.loads(bytes((await ping.answer(cast(Any, None))).body))
        seen.append((body["status"], body["time_of_last_update"]))
    assert seen == [
        ("Healthy", 1000),
        ("Healthy", 1000),
        ("HealthyBusy", 1030),
        ("HealthyBusy", 1030),
        ("Healthy", 1050),
    ]


async def test_a_socket_answers_one_turn_after_the_other_in_one_session() -> None:
    model = ScriptedModel(["a", "b"], [Call("no_such_tool")], ["done"])
    async with running_agent(model) as agent, socket_to(agent.client, **{SESSION_HEADER: SESSION}) as socket:
        assert socket.response is not None
        assert socket.response.headers[SESSION_HEADER] == SESSION
        await socket.send('{"prompt": "one"}')
        await socket.send('{"prompt": "two"}')
        first, second = await said(socket), await said(socket)
        assert [frame["type"] for frame in first] == ["text", "text", "result"]
        assert (first[-1]["response"], first[-1]["session_id"]) == ("ab", SESSION)
        assert second[-1]["response"] == "done"
        request_id = socket.response.headers["x-request-id"]
        assert [turn[-1]["request_id"] for turn in (first, second)] == [f"{request_id}-1", f"{request_id}-2"]
        assert len(agent.model.asked[1]) == 3
        assert count(agent, "/ws", "ok") == 2


async def test_the_session_of_a_socket_may_stand_in_its_address() -> None:
    path = f"/ws?{SESSION_HEADER}={SESSION}"
    async with running_agent(ScriptedModel()) as agent, socket_to(agent.client, path) as socket:
        await socket.send('{"prompt": "one", "stream": false}')
        only = json.loads(await socket.recv())
        assert (only["type"], only["session_id"]) == ("result", SESSION)


async def test_a_socket_with_a_bad_session_is_refused_before_it_opens() -> None:
    async with running_agent(ScriptedModel()) as agent:
        with pytest.raises(InvalidStatus) as refused:
            await socket_to(agent.client, **{SESSION_HEADER: "short"}).__aenter__()
        response = refused.value.response
        assert response.status_code == 400
        assert json.loads(response.body or b"")["error"]["code"] == "invalid_request"


async def test_a_socket_outlives_bad_messages_and_failed_turns() -> None:
    model = ScriptedModel([RuntimeError("no luck")], ["fine"])
    async with running_agent(model) as agent, socket_to(agent.client) as socket:
        codes = []
        for message in ("no json", "{}", '{"prompt": "a"}'):
            await socket.send(message)
            codes.append((await said(socket))[-1]["error"]["code"])
        assert codes == ["invalid_request", "invalid_request", "model_error"]
        await socket.send(b'{"prompt": "b"}')
        assert (await said(socket))[-1]["response"] == "fine"
        assert count(agent, "/ws", "invalid_request") == 2


async def test_a_socket_that_closes_cancels_its_turn_and_frees_its_place() -> None:
    gate = Gate()
    async with running_agent(ScriptedModel([gate, "never"], ["fine"]), concurrency=1) as agent:
        async with socket_to(agent.client, **{SESSION_HEADER: SESSION}) as socket:
            await socket.send('{"prompt": "a"}')
            await gate.wait_reached()
        assert (await invoke(agent, {"prompt": "b"}, **{SESSION_HEADER: SESSION})).json()["response"] == "fine"
        assert len(agent.model.asked[1]) == 1
        assert count(agent, "/ws", "cancelled") == 1


async def test_a_connection_that_breaks_cancels_its_turn() -> None:
    gate = Gate()
    async with running_agent(ScriptedModel([gate, "never"], ["fine"]), concurrency=1) as agent:
        socket = await socket_to(agent.client).__aenter__()
        await socket.send('{"prompt": "a"}')
        await gate.wait_reached()
        socket.transport.abort()
        await eventually(lambda: count(agent, "/ws", "cancelled") == 1)
        assert (await invoke(agent, {"prompt": "b"})).json()["response"] == "fine"


async def test_a_socket_with_too_many_messages_waiting_is_closed() -> None:
    gate = Gate()
    async with running_agent(ScriptedModel([gate, "x"])) as agent, socket_to(agent.client) as socket:
        await socket.send('{"prompt": "a"}')
        await gate.wait_reached()
        for _ in range(17):
            await socket.send('{"prompt": "b"}')
        assert await closed_with(socket) == 1008


async def test_a_socket_with_too_much_waiting_is_closed() -> None:
    gate = Gate()
    async with running_agent(ScriptedModel([gate, "x"])) as agent, socket_to(agent.client) as socket:
        await socket.send('{"prompt": "a"}')
        await gate.wait_reached()
        for _ in range(2):
            await socket.send("x" * (turns.LARGEST_BODY // 2 + 1))
        assert await closed_with(socket) == 1008


async def test_there_is_no_end_to_large_messages_one_after_the_other() -> None:
    async with running_agent(ScriptedModel(["fine"])) as agent, socket_to(agent.client) as socket:
        for _ in range(3):
            await socket.send(json.dumps({"prompt": "q", "more": "x" * (turns.LARGEST_BODY - 100)}))
            assert (await said(socket))[-1]["response"] == "fine"


async def test_one_socket_too_many_is_refused_until_another_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ropewalk_agent.routes.agentcore.SPARE_SOCKETS", 1)
    async with running_agent(ScriptedModel(), queue={"maxLength": 1}) as agent, socket_to(agent.client) as staying:
        async with socket_to(agent.client):
            with pytest.raises(InvalidStatus) as refused:
                await socket_to(agent.client).__aenter__()
        response = refused.value.response
        assert (response.status_code, response.headers["retry-after"]) == (429, "1")
        assert json.loads(response.body or b"")["error"]["code"] == "queue_full"
        async with socket_to(agent.client):
            await staying.send('{"prompt": "x"}')
            assert (await said(staying))[-1]["response"] == "ok"


async def test_a_message_that_is_too_large_closes_its_socket() -> None:
    async with running_agent(ScriptedModel()) as agent, socket_to(agent.client) as socket:
        await socket.send("x" * (turns.LARGEST_BODY + 1))
        assert await closed_with(socket) == 1009


async def test_a_drain_closes_idle_sockets_as_going_away_and_refuses_new_ones() -> None:
    gate = Gate()
    async with running_agent(ScriptedModel([gate, "x"])) as agent, socket_to(agent.client) as idle:
        holding = asyncio.create_task(invoke(agent, {"prompt": "a"}))
        await gate.wait_reached()
        draining = asyncio.create_task(agent.runtime.drain(5))
        assert await closed_with(idle) == 1001
        with pytest.raises(InvalidStatus) as refused:
            await socket_to(agent.client).__aenter__()
        assert refused.value.response.status_code == 503
        gate.open()
        assert (await holding).status_code == 200
        await draining


async def test_a_drain_lets_the_turn_of_a_socket_finish_and_refuses_those_behind_it() -> None:
    gate = Gate()
    async with running_agent(ScriptedModel([gate, "done"])) as agent, socket_to(agent.client) as socket:
        await socket.send('{"prompt": "a"}')
        await gate.wait_reached()
        draining = asyncio.create_task(agent.runtime.drain(5))
        await eventually(lambda: agent.runtime.leaving)
        await socket.send('{"prompt": "b"}')
        await (await socket.ping())
        gate.open()
        assert (await said(socket))[-1]["response"] == "done"
        assert (await said(socket))[-1]["error"]["code"] == "not_ready"
        assert await closed_with(socket) == 1001
        await draining


async def connected(url: str) -> ClientConnection:
    """A websocket to a server that may still be starting."""
    return await eventually(lambda: connect(url), f"{url} accepts a websocket", 60)


async def test_sigterm_closes_the_sockets_of_a_real_process_as_going_away(tmp_path: Path) -> None:
    (tmp_path / "agent.json").write_text(json.dumps(agent_document()))
    variables = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(Path(__file__).parents[3] / "agent_image" / "src"),
        "ROPEWALK_CONFIG_FILE": str(tmp_path / "agent.json"),
        "ROPEWALK_HOST": "127.0.0.1",
        "ROPEWALK_PORT": str(port := free_port()),
    }
    null = asyncio.subprocess.DEVNULL
    child = await asyncio.create_subprocess_exec(sys.executable, "-m", "ropewalk_agent", env=variables, stdout=null)
    try:
        socket = await connected(f"ws://127.0.0.1:{port}/ws")
        child.send_signal(signal.SIGTERM)
        assert await closed_with(socket) == 1001
        assert await child.wait() == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()
