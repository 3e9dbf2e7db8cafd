"""What agents report of a server that only they can ask, and what of it the MCPServer tells."""

from __future__ import annotations

import asyncio
import json
import weakref
from dataclasses import replace
from typing import Any, Literal

import pytest

from mcp_wire import served
from operator_world import mcp_server
from operator_world import pod as pod_body
from ropewalk_operator import api, observe
from ropewalk_operator.discovery import AgentPod, ListingError, NotYetKnown
from ropewalk_operator.facts import Discovered, LeftOut, Tool
from ropewalk_operator.observe import AgentClient
from ropewalk_operator.pods import Pod, pod
from ropewalk_operator.reports import AGENTS_ASKED, Report, ask, judged, report
from ropewalk_operator.targets import admitted, agents_target

FOUND = Discovered((Tool("add", "adds", "sha256:1"),), "2026-07-28", "math", "1")
DEFINITION = {"name": "add", "description": "adds", "hash": "sha256:1"}
CONNECTED: dict[str, Any] = {
    "name": "math",
    "state": "connected",
    "last_error": "long over",
    "protocol_version": "2026-07-28",
    "server_info": {"name": "math", "version": "1"},
    "has_session": False,
    "definitions": [DEFINITION],
    "left_out": [{"tool": "bad", "reason": "no"}],
}


def body(**server: Any) -> dict[str, Any]:
    return {"servers": [{"name": "other", "state": "disconnected", "last_error": "x"}, {**CONNECTED, **server}]}


def test_a_connected_server_is_reported_whatever_was_wrong_before() -> None:
    assert report("calc", "math", body()) == Report("calc", replace(FOUND, left_out=(LeftOut("bad", "no"),)))


@pytest.mark.parametrize("state", ["connecting", "disconnected"])
def test_a_server_that_is_not_connected_is_reported_with_its_error(state: str) -> None:
    assert report("calc", "math", body(state=state, last_error="HTTP 401")) == Report("calc", error="HTTP 401")


def test_a_server_that_an_agent_is_still_connecting_to_is_neither_good_nor_bad() -> None:
    assert report("calc", "math", body(state="connecting", last_error=None)) == Report("calc")


@pytest.mark.parametrize("said", [None, [], {}, {"servers": 1}, {"servers": [1, {"name": "other"}]}, "text"])
def test_an_answer_that_says_nothing_of_the_server_is_none(said: Any) -> None:
    assert report("calc", "math", said) == Report("calc")


def test_an_answer_with_odd_parts_is_taken_as_far_as_it_goes() -> None:
    odd: list[Any] = [1, {"name": 7}, {"name": ""}, {}]
    said = report("calc", "math", body(definitions=odd, server_info="x", left_out=None, has_session=1))
    assert said.discovered == Discovered((Tool("7", "", "None"),), "2026-07-28", "", "")


def test_what_is_longer_than_the_status_takes_is_cut() -> None:
    long = "x" * 5000
    definition = {"name": long, "description": long, "hash": long}
    info = {"name": long, "version": long}
    said = report("calc", "math", body(definitions=[definition], protocol_version=long, server_info=info)).discovered
    assert said is not None
    (tool,) = said.tools
    assert [len(each) for each in (tool.name, tool.description, tool.hash)] == [256, 1024, 128]
    assert [len(each) for each in (said.protocol_version, said.server_name, said.server_version)] == [64, 256, 256]


def test_an_agent_of_an_old_image_is_told_so() -> None:
    old = {key: value for key, value in CONNECTED.items() if key != "definitions"}
    assert "too old" in str(report("calc", "math", {"servers": [old]}).error)


def test_the_first_success_wins_and_failures_are_named() -> None:
    other = replace(FOUND, server_version="2")
    said = judged([Report("a"), Report("b", error="HTTP 401"), Report("c", FOUND), Report("d", other)])
    assert said == replace(FOUND, note='as agent "c" reports; not so agent "b": HTTP 401')


def test_with_failures_alone_the_first_three_are_named_and_the_rest_counted() -> None:
    with pytest.raises(ListingError, match=r'^agent "a0": no; agent "a1": no; agent "a2": no; and 2 more agents$'):
        judged([Report(f"a{number}", error="no") for number in range(5)])


def test_with_nothing_said_nothing_is_known() -> None:
    with pytest.raises(NotYetKnown):
        judged([Report("a"), Report("b")])


async def test_of_many_agents_the_first_are_asked() -> None:
    asked: list[str] = []

    async def tools(ip: str) -> Any:
        asked.append(ip)
        return body()

    await ask("math", [AgentPod(f"a{number}", f"ip{number}") for number in range(100)], tools)
    assert asked == [f"ip{number}" for number in range(AGENTS_ASKED)]


async def test_what_an_agent_said_is_let_go_before_the_next_one_is_read() -> None:
    class Parsed(dict[str, Any]):
        """An answer that can be watched."""

    held: list[weakref.ref[Parsed]] = []

    async def tools(ip: str) -> Any:
        await asyncio.sleep(0)
        assert [each for each in held if each() is not None] == [], "all of them would fill the memory"
        answer = Parsed(body())
        held.append(weakref.ref(answer))
        return answer

    found = await ask("math", [AgentPod(f"a{number}", f"ip{number}") for number in range(AGENTS_ASKED)], tools)
    assert [tool.name for tool in found.tools] == ["add"]
    assert len(held) == AGENTS_ASKED


def running(agent: str, *, created: str = "2026-01-01T00:00:00Z", ready: bool = True, **fields: Any) -> Pod:
    made = pod_body(agent, ready=ready, state={"running": {}}, **fields)
    made["metadata"]["creationTimestamp"] = created
    found = pod(made)
    assert found is not None
    return found


SERVER = api.mcp_server(
    mcp_server(remote={"url": "https://x/mcp"}, auth={"bearerTokenSecretRef": {"name": "s", "key": "k"}})
)


def test_one_pod_of_each_agent_is_asked_the_newest_agent_first_and_a_ready_pod_before_others() -> None:
    old = running("old", created="2026-01-01T00:00:00Z")
    new = running("new", created="2026-01-02T00:00:00Z")
    unready = running("new", name="new-2", created="2026-01-03T00:00:00Z", ready=False)
    target = agents_target(SERVER, [[old], [unready, new], []])
    assert target is not None
    assert [pod.agent for pod in target.agents] == ["new", "old"]
    assert "uid-of-new-new" in target.fingerprint


def test_a_pod_that_is_not_ready_is_asked_where_there_is_no_other() -> None:
    # A required server that refuses keeps the pod from ever being ready: it alone can tell why.
    assert agents_target(SERVER, [[running("calc", ready=False)]]) is not None


def test_pods_that_do_not_run_are_not_asked() -> None:
    waiting = replace(running("calc"), running=False)
    going = replace(running("calc"), deleting=True)
    assert agents_target(SERVER, [[waiting, going, replace(running("calc"), ip=None)], []]) is None


def test_a_pod_that_becomes_ready_is_a_reason_to_ask_again() -> None:
    before, after = (agents_target(SERVER, [[running("calc", ready=ready)]]) for ready in (False, True))
    assert before is not None
    assert after is not None
    assert before.fingerprint != after.fingerprint


def test_what_agents_may_see_is_kept_and_the_rest_counted() -> None:
    tools = tuple(Tool(name, "", "h") for name in ("add", "divide", "power"))
    allowed = api.ToolFilter(allow=("add", "divide", "typo"), deny=("divide",))
    said = admitted(replace(FOUND, tools=tools), allowed)
    assert [tool.name for tool in said.tools] == ["add"]
    assert (said.hidden, said.unknown) == (2, ("typo",))


class Pages:
    """An agent pod that answers as told."""

    def __init__(self, status: int = 200, content: bytes = b"{}", headers: dict[str, str] | None = None) -> None:
        self.answer = status, content, [(k.encode(), v.encode()) for k, v in (headers or {}).items()]
        self.paths: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        self.paths.append(scope["path"])
        status, content, headers = self.answer
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})


async def told(page: Pages) -> Any:
    async with served(page) as base:
        client = AgentClient(int(base.rsplit(":", 1)[1]))
        try:
            return await client.tools("127.0.0.1")
        finally:
            await client.close()


async def test_an_agents_tools_are_read() -> None:
    page = Pages(content=b'{"servers": []}')
    assert await told(page) == {"servers": []}
    assert page.paths == ["/tools"]


@pytest.mark.parametrize("content", [b"", b"not json", b"\xff", b"[" * 100_000])
async def test_an_answer_that_is_not_json_is_none(content: bytes) -> None:
    assert await told(Pages(content=content)) is None


async def test_an_answer_without_end_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observe, "TOOLS_BYTES", 1000)
    assert await told(Pages(content=b'"' + b"x" * 1000 + b'"')) is None


class Gate(asyncio.Lock):
    """Tells who has come to it."""

    def __init__(self) -> None:
        super().__init__()
        self.came: asyncio.Queue[None] = asyncio.Queue()

    async def acquire(self) -> Literal[True]:
        self.came.put_nowait(None)
        return await super().acquire()


async def test_large_answers_are_read_one_at_a_time_and_small_ones_wait_for_none() -> None:
    large = b'"' + b"x" * observe.LARGE_BYTES + b'"'
    async with served(Pages(content=large)) as large_at, served(Pages()) as small_at:
        client, other = (AgentClient(int(base.rsplit(":", 1)[1])) for base in (large_at, small_at))
        client._large = other._large = gate = Gate()
        async with gate:
            await gate.came.get()
            asked = [asyncio.create_task(client.tools("127.0.0.1")) for _ in range(2)]
            for _ in asked:
                await gate.came.get()
            assert await other.tools("127.0.0.1") == {}
            assert not any(each.done() for each in asked)
        assert await asyncio.gather(*asked) == [json.loads(large)] * 2
        await client.close()
        await other.close()


@pytest.mark.parametrize("reasons", [["x" * 60_000], ["down"] * 5_000, [""] * 10_000, [{"deep": ["x" * 9_000]}, "y"]])
async def test_of_a_pod_that_has_much_to_say_of_itself_the_first_words_are_kept(reasons: list[Any]) -> None:
    async with served(Pages(503, json.dumps({"reasons": reasons}).encode())) as base:
        client = AgentClient(int(base.rsplit(":", 1)[1]))
        said = await client.ready("127.0.0.1")
        await client.close()
    assert said[0] == str(reasons[0])[: observe.WORDS_CHARACTERS]
    assert sum(map(len, said)) <= observe.WORDS_CHARACTERS
    assert len(said) <= observe.WORDS_CHARACTERS


async def test_an_agent_pod_redirects_nobody() -> None:
    victim = Pages()
    async with served(victim) as elsewhere:
        assert await told(Pages(307, b"", {"location": f"{elsewhere}/tools"})) is None
    assert victim.paths == []


async def test_a_pod_that_is_not_there_says_nothing() -> None:
    client = AgentClient(9)
    assert await asyncio.wait_for(client.tools("127.0.0.1"), 10) is None
    assert await client.ready("127.0.0.1") == []
    await client.close()
