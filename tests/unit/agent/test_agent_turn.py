"""One turn on a scripted model: what is answered, what is saved, and what is left alone."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agent_models import Call, Cut, Gate, ScriptedModel, Step, built
from agent_server import agent_config
from ropewalk_agent.bridge import Turn
from ropewalk_agent.errors import AgentError
from ropewalk_agent.events import Answer, TextDelta, ToolEnded, ToolStarted, TurnRequest
from ropewalk_agent.metrics import Metrics
from ropewalk_agent.models import KeyFile
from ropewalk_agent.sessions import Message, SessionKey, is_consistent
from ropewalk_agent.sessions.memory import MemorySessions
from ropewalk_agent.tools import Tool, ToolResult
from ropewalk_agent.turn import TurnRunner

KEY = SessionKey("", "s")


async def _ok(_: dict[str, Any]) -> ToolResult:
    return ToolResult("ok", [{"text": "tool says hi"}])


def tool(name: str, call: Callable[[dict[str, Any]], Awaitable[ToolResult]] = _ok) -> Tool:
    return Tool(name, "srv", f"does {name}", {"type": "object", "properties": {}}, call)


class Desk:
    """A TurnRunner with its surroundings."""

    def __init__(
        self,
        *answers: Sequence[Step],
        tools: tuple[Tool, ...] = (),
        key: KeyFile | None = None,
        store: MemorySessions | None = None,
        **changes: Any,
    ) -> None:
        self.model = ScriptedModel(*answers)
        self.sessions = (
            store if store is not None else MemorySessions(ttl_seconds=60, max_sessions=10, clock=lambda: 0.0)
        )
        self.metrics = Metrics()
        self.runner = TurnRunner(
            agent_config(**changes), built(self.model, key), lambda: tools, self.sessions, self.metrics
        )

    async def events(self, query: str = "question", turn: Turn | None = None) -> list[Any]:
        request = TurnRequest(query, "s", "", "r", streaming=True)
        async with aclosing(self.runner.run(request, turn or Turn(0.0))) as events:
            return [event async for event in events]

    async def answer(self, query: str = "question") -> Answer:
        answer: Answer = (await self.events(query))[-1]
        return answer

    async def history(self) -> tuple[Message, ...]:
        return await self.sessions.load(KEY)

    def sample(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)


async def test_text_is_told_as_it_is_written_and_answered_whole() -> None:
    desk = Desk(["Hel", "lo"])
    *deltas, answer = await desk.events()
    assert deltas == [TextDelta("Hel"), TextDelta("lo")]
    assert (answer.response, answer.stop_reason) == ("Hello", "end_turn")
    assert (answer.input_tokens, answer.output_tokens) == (10, 5)


async def test_a_tool_call_is_told_and_its_result_reaches_the_model() -> None:
    desk = Desk([Call("add", {"a": 1})], ["42"], tools=(tool("add"),))
    events = await desk.events()
    use = events[0].tool_use_id
    assert events[:2] == [ToolStarted("add", "srv", use), ToolEnded("add", "srv", use, "ok")]
    assert events[-1].tools_used == ("add",)
    assert desk.model.asked[1][-1]["content"][0]["toolResult"]["content"] == [{"text": "tool says hi"}]
    assert desk.sample("ropewalk_agent_tool_calls_total", tool="add", server="srv", outcome="ok") == 1


async def test_the_next_turn_sees_the_last_one() -> None:
    desk = Desk(["one"], ["two"])
    await desk.events("first")
    await desk.events("second")
    assert [m["content"][0]["text"] for m in desk.model.asked[1]] == ["first", "one", "second"]


async def test_of_a_message_only_role_and_content_are_kept() -> None:
    desk = Desk(["fine"])
    await desk.answer()
    assert [message.keys() for message in await desk.history()] == [{"role", "content"}] * 2


async def test_history_is_cut_to_the_window() -> None:
    desk = Desk(["x"], sessions={"windowSize": 4})
    for number in range(5):
        await desk.events(str(number))
    assert [m["content"][0]["text"] for m in await desk.history()] == ["3", "x", "4", "x"]


async def test_a_failing_model_leaves_the_history_and_gives_the_providers_reason_without_the_key(
    tmp_path: Path,
) -> None:
    (tmp_path / "key").write_text("sk-very-secret\n")
    desk = Desk(["fine"], [RuntimeError("quota of sk-very-secret used up")], key=KeyFile(tmp_path / "key"))
    await desk.events()
    before = await desk.history()
    with pytest.raises(AgentError) as failed:
        await desk.events("again")
    assert failed.value.code == "model_error"
    assert "quota of [redacted] used up" in failed.value.message
    assert await desk.history() == before


async def test_a_cancelled_turn_leaves_the_history() -> None:
    gate = Gate()
    desk = Desk(["fine"], ["par", gate, "tial"])
    await desk.events()
    before = await desk.history()
    running = asyncio.create_task(desk.events("again"))
    await gate.wait_reached()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert await desk.history() == before


async def test_a_turn_cancelled_at_its_very_end_saves_nothing() -> None:
    desk, turn = Desk(["fine"]), Turn(0.0)
    turn.try_cancel()
    with pytest.raises(asyncio.CancelledError):
        await desk.events(turn=turn)
    assert await desk.history() == ()


async def test_a_failing_tool_tells_the_model_and_the_turn_goes_on() -> None:
    async def fails(_: dict[str, Any]) -> ToolResult:
        return ToolResult("unavailable", [{"text": "server srv is away"}])

    desk = Desk([Call("add")], ["sorry"], tools=(tool("add", fails),))
    answer = await desk.answer()
    assert answer.response == "sorry"
    result = desk.model.asked[1][-1]["content"][0]["toolResult"]
    assert (result["status"], result["content"]) == ("error", [{"text": "server srv is away"}])
    assert desk.sample("ropewalk_agent_tool_calls_total", tool="add", server="srv", outcome="unavailable") == 1


async def test_a_tool_that_is_not_shown_is_not_run_although_the_model_names_it() -> None:
    desk = Desk([Call("hidden")], ["sorry"], tools=(tool("add"),))
    answer = await desk.answer()
    assert desk.model.tools_shown[0] == ["add"]
    assert answer.tools_used == ()
    assert desk.model.asked[1][-1]["content"][0]["toolResult"]["status"] == "error"


async def test_tools_of_one_answer_run_at_once_but_no_more_than_allowed() -> None:
    running, most = 0, 0

    async def call(_: dict[str, Any]) -> ToolResult:
        nonlocal running, most
        running += 1
        most = max(most, running)
        for _turn in range(20):
            await asyncio.sleep(0)
        running -= 1
        return ToolResult("ok", [{"text": "x"}])

    desk = Desk([Call("t")] * 1 + [Call("t")] * 5, ["done"], tools=(tool("t", call),), limits={"maxParallelTools": 3})
    assert (await desk.answer()).response == "done"
    assert most == 3


async def test_the_limit_of_turns_is_an_answer_and_leaves_a_consistent_history() -> None:
    desk = Desk(["thinking", Call("add")], tools=(tool("add"),), limits={"maxTurns": 2})
    answer = await desk.answer()
    assert (answer.stop_reason, answer.response) == ("limit_turns", "thinking")
    history = await desk.history()
    assert is_consistent(history)
    assert history[-1]["role"] == "assistant"


async def test_the_limit_of_tokens_is_an_answer() -> None:
    desk = Desk([Call("add")], tools=(tool("add"),), limits={"maxTokensPerRequest": 20})
    assert (await desk.answer()).stop_reason == "limit_tokens"


async def test_a_model_that_is_cut_short_answers_with_what_it_has() -> None:
    desk = Desk(["half of", Cut()])
    answer = await desk.answer()
    assert (answer.stop_reason, answer.response) == ("max_tokens", "half of")
    assert is_consistent(await desk.history())


async def test_nothing_of_one_turn_leaks_into_anothers_session() -> None:
    desk = Desk(["x"])
    await desk.events("first")
    request = TurnRequest("other", "t", "", "r", streaming=False)
    async with aclosing(desk.runner.run(request, Turn(0.0))) as events:
        told = [event async for event in events]
    assert len(told) == 1, "without a reader only the answer is made"
    assert len(desk.model.asked[1]) == 1


async def test_half_a_character_reaches_no_later_call_of_the_model_and_no_history() -> None:
    async def half(_: dict[str, Any]) -> ToolResult:
        return ToolResult("ok", [{"text": "b\ud83d"}])

    steps: list[Step] = ["a\ud83d", Call("add", {"x\ud83d": ["\ude00", "\ud83d\ude00"]})]
    desk = Desk(steps, ["c\ude00"], ["d"], tools=(tool("add", half),))
    answer = await desk.answer()
    await desk.answer("again")
    json.dumps([desk.model.asked, await desk.history(), answer.response], ensure_ascii=False).encode()
    said, result = desk.model.asked[1][-2:]
    assert said["content"][0] == {"text": "a?"}
    assert said["content"][1]["toolUse"]["input"] == {"x?": ["?", "\U0001f600"]}
    assert result["content"][0]["toolResult"]["content"] == [{"text": "b?"}]
    assert answer.response == "c?"


class Away(MemorySessions):
    """A store of which one method does not answer."""

    method = ""

    async def load(self, key: SessionKey) -> tuple[Message, ...]:
        if self.method == "load":
            raise AgentError("not_ready", "the session store is away")
        return await super().load(key)

    async def save(self, key: SessionKey, messages: tuple[Message, ...]) -> None:
        if self.method == "save":
            raise AgentError("not_ready", "the session store is away")
        await super().save(key, messages)


@pytest.mark.parametrize(("method", "begun"), [("load", False), ("save", True)])
async def test_a_store_that_fails_tells_whether_the_turn_had_begun(method: str, begun: bool) -> None:
    sessions = Away(ttl_seconds=60, max_sessions=10, clock=lambda: 0.0)
    sessions.method = method
    with pytest.raises(AgentError) as failed:
        await Desk(["fine"], store=sessions).events()
    assert (failed.value.code, failed.value.begun) == ("not_ready", begun)


async def test_an_error_that_needs_no_explanation_is_not_its_own_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("a defect")
        yield

    monkeypatch.setattr("ropewalk_agent.turn.Agent.stream_async", fail)
    with pytest.raises(RuntimeError) as failed:
        await Desk().events()
    assert failed.value.__cause__ is None


async def test_the_total_time_includes_the_wait_for_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("ropewalk_agent.turn.time", SimpleNamespace(monotonic=lambda: now))

    class Slow(MemorySessions):
        async def load(self, key: SessionKey) -> tuple[Message, ...]:
            nonlocal now
            now += 5
            return await super().load(key)

    desk = Desk(["fine"], store=Slow(ttl_seconds=60, max_sessions=10, clock=lambda: 0.0))
    assert (await desk.answer()).timings.total == 5
