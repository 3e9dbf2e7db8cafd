"""A model that fails before its first content is stood in for by the next; one that fails later is not."""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent_model_desk import Desk, model_document
from agent_models import ScriptedModel
from agent_providers import (
    INPUT_TOKENS,
    Breaks,
    Calls,
    IsSilent,
    Provider,
    Raw,
    Refuses,
    Says,
    Step,
    provider,
)
from agent_server import agent_document, running_agent
from ports import free_port
from ropewalk_agent.config import ConfigError, load
from ropewalk_agent.events import TextDelta
from ropewalk_agent.models.fallbacks import FallbackModel, ModelChain
from ropewalk_agent.tools import Tool, ToolResult
from waiting import eventually

FIRST, SECOND = "sk-first-key", "sk-second-key"
LABELS = {"from_model": "openai/first", "to_model": "anthropic/second"}
FELL_BACK = "ropewalk_agent_model_fallbacks_total"


@dataclass
class Pair:
    """Two providers and an agent that has the second for when the first fails."""

    first: Provider
    second: Provider
    desk: Desk

    def answered(self, provider: str, model: str) -> dict[str, float | None]:
        """What the metrics count of a model: calls, first chunks, input tokens."""
        labels = {"gen_ai_provider_name": provider, "gen_ai_request_model": model}
        names = ("duration_seconds_count", "time_to_first_chunk_seconds_count", "usage_input_tokens_total")
        return {name: self.desk.sample(f"gen_ai_client_inference_{name}", **labels) for name in names}


@pytest.fixture
async def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Pair, None]:
    monkeypatch.setattr("ropewalk_agent.models.openai.RETRIES", 0)
    monkeypatch.setattr("ropewalk_agent.models.anthropic.RETRIES", 0)
    (tmp_path / "first").write_text(FIRST)
    (tmp_path / "second").write_text(SECOND)
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(provider("openai", Says(("from the first",))))
        second = await stack.enter_async_context(provider("anthropic", Says(("from the second",))))
        documents = (
            model_document("openai", first.url, tmp_path / "first", id="first"),
            model_document("anthropic", second.url, tmp_path / "second", id="second"),
        )
        desk = await stack.enter_async_context(Desk(*documents))
        yield Pair(first, second, desk)


async def test_while_the_first_answers_no_other_is_asked(pair: Pair) -> None:
    assert (await pair.desk.answer()).response == "from the first"
    assert pair.second.asked == []
    assert pair.answered("openai", "first")["usage_input_tokens_total"] == INPUT_TOKENS
    assert pair.answered("anthropic", "second")["usage_input_tokens_total"] == 0


@pytest.mark.parametrize(
    "step", [Refuses(429, "slow down"), Refuses(500, "broken"), Refuses(503, "busy"), Refuses(529, "full"), Breaks()]
)
async def test_a_model_that_fails_is_stood_in_for_in_the_same_turn(
    pair: Pair, step: Step, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "ropewalk.models")
    pair.first.steps = [step]
    *deltas, answer = [event async for event in pair.desk.told()]
    assert deltas == [TextDelta("from the second")]
    assert answer.response == "from the second"
    assert pair.second.keys == [SECOND]
    assert pair.desk.sample(FELL_BACK, **LABELS) == 1
    ours = [record.getMessage() for record in caplog.records if record.name == "ropewalk.models"]
    assert ours == ["a model has failed and the next is asked"]


async def test_the_metrics_carry_the_label_of_the_model_that_answered(pair: Pair) -> None:
    pair.first.steps = [Refuses(500, "broken")]
    await pair.desk.answer()
    counts = {"duration_seconds_count": 1, "time_to_first_chunk_seconds_count": 0, "usage_input_tokens_total": 0}
    assert pair.answered("openai", "first") == counts
    counts = {**dict.fromkeys(counts, 1), "usage_input_tokens_total": INPUT_TOKENS}
    assert pair.answered("anthropic", "second") == counts


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("openai", b'data: {"error": {"message": "no room", "type": "server_error", "code": "server_error"}}\n\n'),
        (
            "anthropic",
            b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"no room"}}\n\n',
        ),
    ],
)
async def test_a_failure_that_is_told_within_a_stream_is_stood_in_for(
    pair: Pair, tmp_path: Path, name: str, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with provider(name, Raw(body)) as failing:
        first = model_document(name, failing.url, tmp_path / "first", id="first")
        second = model_document("anthropic", pair.second.url, tmp_path / "second", id="second")
        async with Desk(first, second) as desk:
            assert (await desk.answer()).response == "from the second"
    assert [record.fields["reason"] for record in caplog.records if hasattr(record, "fields")] == ["provider_failed"]


async def test_a_host_that_nobody_listens_at_is_stood_in_for(pair: Pair, tmp_path: Path) -> None:
    nobody = model_document("openai", f"http://127.0.0.1:{free_port()}", tmp_path / "first", id="first")
    second = model_document("anthropic", pair.second.url, tmp_path / "second", id="second")
    async with Desk(nobody, second) as desk:
        assert (await desk.answer()).response == "from the second"
        assert desk.sample(FELL_BACK, **LABELS) == 1


async def test_a_silent_model_is_stood_in_for_after_its_share_of_the_time(pair: Pair, tmp_path: Path) -> None:
    end = asyncio.Event()
    pair.first.steps = [IsSilent(end)]
    first = model_document("openai", pair.first.url, tmp_path / "first", id="first")
    second = model_document("anthropic", pair.second.url, tmp_path / "second", id="second")
    async with Desk(first, second, timeout_seconds=1) as desk:
        assert isinstance(desk.built, ModelChain)
        assert desk.built.first_content_seconds == 0.5
        assert (await desk.answer()).response == "from the second"
    end.set()


async def test_after_content_nothing_is_repeated(pair: Pair) -> None:
    pair.first.steps = [Breaks(("half an ans",))]
    assert "the model openai/first failed: its provider broke the connection off" in await pair.desk.failure()
    assert pair.second.asked == []


@pytest.mark.parametrize("status", [400, 401, 403, 404])
async def test_what_is_wrong_with_the_settings_is_told_and_not_papered_over(pair: Pair, status: int) -> None:
    pair.first.steps = [Refuses(status, "this is wrong")]
    assert f"(status {status}): this is wrong" in await pair.desk.failure()
    assert pair.second.asked == []
    assert pair.desk.sample(FELL_BACK, **LABELS) is None


async def test_when_all_fail_each_is_told_and_no_key_of_any(pair: Pair) -> None:
    pair.first.steps = [Refuses(503, f"busy with {FIRST} and {SECOND}")]
    pair.second.steps = [Refuses(401, f"no such key {SECOND}")]
    assert await pair.desk.failure() == (
        "the model openai/first failed: its provider has failed (status 503): busy with [redacted] and [redacted]; "
        "the model anthropic/second failed: its provider refused the key (status 401): no such key [redacted]"
    )


async def _ok(_: dict[str, Any]) -> ToolResult:
    return ToolResult("ok", [{"text": "42"}])


async def test_a_turn_stays_with_the_model_that_answered_and_the_next_begins_anew(pair: Pair, tmp_path: Path) -> None:
    pair.first.steps = [Refuses(500, "broken"), Says(("back again",))]
    pair.second.steps = [Calls("add", {"a": 1}), Says(("it is 42",))]
    tool = Tool("add", "srv", "adds", {"type": "object", "properties": {"a": {"type": "integer"}}}, _ok)
    first = model_document("openai", pair.first.url, tmp_path / "first", id="first")
    second = model_document("anthropic", pair.second.url, tmp_path / "second", id="second")
    async with Desk(first, second, tools=(tool,)) as desk:
        assert (await desk.answer()).response == "it is 42"
        assert (len(pair.first.asked), len(pair.second.asked)) == (1, 2)
        assert (await desk.answer()).response == "back again"
        assert "it is 42" in str(pair.first.asked[1].body)


async def test_a_rotated_key_of_a_fallback_is_used(pair: Pair, tmp_path: Path) -> None:
    pair.first.steps = [Refuses(500, "broken")]
    (tmp_path / "new").write_text("sk-third-key")
    (tmp_path / "new").rename(tmp_path / "second")
    await pair.desk.answer()
    assert pair.second.keys == ["sk-third-key"]


async def test_a_cancelled_turn_asks_no_other(pair: Pair) -> None:
    end = asyncio.Event()
    pair.first.steps = [IsSilent(end)]
    running = asyncio.create_task(pair.desk.answer())
    await eventually(lambda: len(pair.first.asked) == 1)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert running.cancelled()
    assert pair.second.asked == []
    end.set()


async def test_thoughts_of_earlier_turns_are_kept_from_a_model_that_may_not_have_had_them(pair: Pair) -> None:
    thought = {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "of another"}}}
    call = {"toolUse": {"toolUseId": "t", "name": "add", "input": {}, "reasoningSignature": "of another"}}
    history = [
        {"role": "user", "content": [{"text": "q"}]},
        {"role": "assistant", "content": [thought]},
        {"role": "assistant", "content": [thought, call]},
    ]
    assert isinstance(pair.desk.built, ModelChain)
    model = FallbackModel(pair.desk.built, lambda _: None)
    own = {"role": "assistant", "content": [thought, {"text": "mine"}]}
    unsigned = {"toolUse": {"toolUseId": "t", "name": "add", "input": {}}}
    assert [message["content"] for message in model._comprehensible(history)] == [
        [{"text": "q"}],
        [{"text": "(no text)"}],
        [unsigned],
    ]
    assert model._comprehensible([*history, own])[-1] == own


async def test_an_agent_asks_the_fallbacks_of_its_settings() -> None:
    model = ScriptedModel([ConnectionRefusedError("nobody")], ["fine"])
    second = {"provider": "ollama", "id": "second", "baseURL": "http://127.0.0.1:9"}
    async with running_agent(model, fallbacks=[second]) as agent:
        answer = await agent.query("hello")
        assert (answer.status_code, answer.json()["response"]) == (200, "fine")
        labels = {"from_model": "openai-compatible/scripted", "to_model": "ollama/second"}
        assert agent.metrics.registry.get_sample_value(FELL_BACK, labels) == 1


def test_a_fallback_whose_key_is_not_mounted_keeps_the_agent_from_starting(tmp_path: Path) -> None:
    second = {"provider": "openai", "id": "second", "apiKeyFile": str(tmp_path / "absent")}
    (tmp_path / "agent.json").write_text(json.dumps(agent_document(fallbacks=[second])))
    with pytest.raises(ConfigError, match=r"fallbacks\.0\.apiKeyFile .*absent does not exist; mount the Secret"):
        load({"ROPEWALK_CONFIG_FILE": str(tmp_path / "agent.json")})
