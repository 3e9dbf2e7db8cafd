"""The model's key is tried before the first question, and doubted when a turn is refused."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from agent_model_desk import model_document
from agent_models import ScriptedModel
from agent_providers import IsSilent, Refuses, Says, provider
from agent_server import agent_config, running_agent
from ports import free_port
from ropewalk_agent.models import BuiltModel, KeyFile, build, trial
from ropewalk_agent.models.built import WORDS_BYTES
from ropewalk_agent.models.trial import KeyTrial, is_refusal
from waiting import eventually

REFUSED = Refuses(401, "Incorrect API key provided: sk-wr***ng")
TRIALS = {
    "openai": "/v1/models",
    "openai-compatible": "/v1/models",
    "anthropic": "/v1/models",
    "gemini": "/v1beta/models",
    "mistral": "/v1/models",
}


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    (tmp_path / "key").write_text("sk-wrong\n")
    return tmp_path / "key"


def rotate(key_file: Path, key: str) -> None:
    """Somebody edits the Secret."""
    key_file.write_text(key)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes seconds between trials takes none; what takes a minute stays out of reach."""
    monkeypatch.setattr(trial, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(trial, "_LOOK_SECONDS", 0.01)
    monkeypatch.setattr(trial, "AGAIN_SECONDS", (60.0,))


@pytest.mark.parametrize(
    ("status", "body", "wanted"),
    [
        (200, "", False),
        (401, '{"error": {"message": "Incorrect API key provided"}}', True),
        (401, '{"error": {"message": "Missing scopes: api.model.read"}}', False),
        (401, '{"error": {"message": "You have insufficient permissions for this operation."}}', False),
        (403, '{"error": {"message": "forbidden"}}', False),
        (400, '{"error": {"message": "API key not valid. Please pass a valid API key."}}', True),
        (400, '{"error": {"message": "API key expired. Please renew the API key."}}', True),
        (400, '{"error": {"message": "page size"}}', False),
        (404, "no such path", False),
        (429, "slow down", False),
        (500, "", False),
    ],
)
def test_only_a_refusal_of_the_key_itself_counts_against_it(status: int, body: str, wanted: bool) -> None:
    assert is_refusal(status, body) is wanted


@pytest.mark.parametrize("name", TRIALS)
async def test_each_provider_is_asked_for_its_models_with_the_key_as_it_wants_it(name: str, key_file: Path) -> None:
    async with provider(name) as server:
        server.listing = REFUSED
        model = build(agent_config(model=model_document(name, server.url, key_file)).model, 5)
        assert model.try_key is not None
        status, body = await model.try_key()
        await model.close()
    assert [asked.path for asked in server.listed] == [TRIALS[name]]
    assert [server.protocol.key(asked.headers) for asked in server.listed] == ["sk-wrong"]
    assert status == 401
    assert "Incorrect API key" in body


OPENAI_LIKE = ("openai", "openai-compatible")


@pytest.mark.parametrize("name", OPENAI_LIKE)
async def test_a_gateway_that_refuses_the_list_alone_does_not_refuse_the_key(name: str, key_file: Path) -> None:
    async with provider(name) as server:
        server.listing, server.empty_chat = REFUSED, Refuses(400, "you must provide a model parameter")
        model = build(agent_config(model=model_document(name, server.url, key_file)).model, 5)
        assert model.try_key is not None
        assert not is_refusal(*await model.try_key())
        await model.close()
    (asked,) = server.empty_chats
    assert asked.path == "/v1/chat/completions"
    assert server.protocol.key(asked.headers) == "sk-wrong"
    assert server.asked == []


async def test_a_trial_brings_the_headers_and_the_query_of_a_chat(key_file: Path) -> None:
    async with provider("openai-compatible") as server:
        server.listing = REFUSED
        document = model_document("openai-compatible", server.url, key_file)
        document["parameters"] = {"extra_headers": {"X-Team": "blue"}, "extra_query": {"api-version": "7"}}
        model = build(agent_config(model=document).model, 5)
        assert model.try_key is not None
        await model.try_key()
        await model.close()
    for asked in (*server.listed, *server.empty_chats):
        assert asked.headers["x-team"] == "blue"
        assert asked.query == "api-version=7"
    assert len(server.listed) == len(server.empty_chats) == 1


async def test_of_a_refusal_without_end_the_beginning_is_read(key_file: Path) -> None:
    async with provider("openai") as server:
        server.listing = Refuses(400, "x" * (2 * WORDS_BYTES))
        model = build(agent_config(model=model_document("openai", server.url, key_file)).model, 5)
        assert model.try_key is not None
        _, words = await model.try_key()
        await model.close()
    assert len(words) == WORDS_BYTES


@pytest.mark.parametrize("name", ["ollama", "llamacpp", "litellm", "bedrock"])
async def test_of_other_providers_no_trial_is_known(name: str, key_file: Path) -> None:
    model = build(agent_config(model=model_document(name, "http://127.0.0.1:9", key_file)).model, 5)
    assert model.try_key is None
    await model.close()


class Desk:
    """A trial whose provider answers what the test says."""

    def __init__(self, key_file: Path | None, *answers: int | Exception) -> None:
        self.answers = list(answers)
        self.tried: list[str] = []
        self.told: list[str | None] = []
        key = KeyFile(key_file)

        async def try_key() -> tuple[int, str]:
            answer = self.answers[min(len(self.tried), len(self.answers) - 1)]
            self.tried.append(key.read())
            if isinstance(answer, Exception):
                raise answer
            return answer, ""

        model = BuiltModel(ScriptedModel(), key, key.read, close, try_key=try_key)  # type: ignore[arg-type]
        self.trial = KeyTrial(model, "m", lambda: self.told.append(self.trial.problem))

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.trial.watch())
        try:
            yield
        finally:
            task.cancel()


async def close() -> None:
    pass


async def test_a_key_that_is_refused_is_a_problem_that_says_what_to_do_and_never_the_key(key_file: Path) -> None:
    desk = Desk(key_file, 401)
    assert desk.trial.untried
    async with desk.watching():
        await eventually(lambda: desk.trial.problem)
    assert not desk.trial.untried
    (said,) = desk.told
    assert said == (
        "the model m cannot be asked: its provider refused the key (status 401); put a valid key into the Secret that "
        "apiKeySecretRef of the model names"
    )


@pytest.mark.parametrize("answer", [200, 404, 500, httpx.ConnectError("nobody there"), TimeoutError()])
async def test_whatever_else_is_answered_proves_nothing_against_the_key(
    key_file: Path, answer: int | Exception
) -> None:
    desk = Desk(key_file, answer)
    async with desk.watching():
        await eventually(lambda: not desk.trial.untried)
    assert desk.trial.problem is None


async def test_a_key_that_has_changed_is_tried_at_once(key_file: Path) -> None:
    desk = Desk(key_file, 401, 200)
    async with desk.watching():
        await eventually(lambda: desk.trial.problem)
        rotate(key_file, "sk-right")
        await eventually(lambda: desk.trial.problem is None)
    assert desk.tried == ["sk-wrong", "sk-right"]


async def test_a_key_that_was_refused_is_tried_again_soon_and_then_less_often(
    key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "AGAIN_SECONDS", (0.0, 0.0, 60.0))
    desk = Desk(key_file, 401)
    async with desk.watching():
        await eventually(lambda: len(desk.tried) == 3)
        desk.answers[:] = [200]
        for _ in range(100):
            await asyncio.sleep(0)
    assert len(desk.tried) == 3


async def test_a_key_that_stays_refused_is_tried_for_as_long_as_it_takes(
    key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "AGAIN_SECONDS", (0.0,))
    desk = Desk(key_file, 401, 401, 401, 200)
    async with desk.watching():
        await eventually(lambda: len(desk.tried) == 4)
        await eventually(lambda: desk.trial.problem is None)


async def test_a_key_that_was_good_in_between_is_tried_again_soon_as_at_first(
    key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "AGAIN_SECONDS", (0.0, 60.0))
    desk = Desk(key_file, 401, 401, 200, 401)
    async with desk.watching():
        await eventually(lambda: len(desk.tried) == 2)
        rotate(key_file, "sk-right")
        await eventually(lambda: desk.trial.problem is None)
        desk.trial.doubt()
        await eventually(lambda: len(desk.tried) == 5)


@pytest.mark.parametrize("answer", [httpx.ConnectError("nobody there"), 408, 429, 500, 503])
async def test_a_provider_that_cannot_be_asked_again_leaves_a_refusal_as_it_is(
    key_file: Path, answer: int | Exception
) -> None:
    desk = Desk(key_file, 401, answer)
    async with desk.watching():
        await eventually(lambda: desk.trial.problem)
        rotate(key_file, "sk-other")
        await eventually(lambda: len(desk.tried) == 2)
        rotate(key_file, "sk-third")
        await eventually(lambda: len(desk.tried) == 3)
        assert desk.trial.problem


async def test_a_key_is_tried_again_when_it_is_doubted_and_not_before(key_file: Path) -> None:
    desk = Desk(key_file, 200, 401)
    async with desk.watching():
        await eventually(lambda: not desk.trial.untried)
        assert desk.tried == ["sk-wrong"]
        desk.trial.doubt()
        await eventually(lambda: desk.trial.problem)


async def test_without_a_key_there_is_nothing_to_try() -> None:
    desk = Desk(None, 401)
    assert not desk.trial.untried
    async with desk.watching():
        await asyncio.sleep(0)
    assert desk.tried == []


def real_model(url: str, key_file: Path) -> dict[str, Any]:
    return model_document("openai-compatible", url, key_file)


async def test_an_agent_whose_key_is_refused_is_not_ready_until_it_has_another(key_file: Path) -> None:
    async with provider("openai-compatible") as server:
        server.listing = REFUSED
        async with running_agent(None, wait=False, model=real_model(server.url, key_file)) as agent:

            async def says_why() -> str | None:
                answer = await agent.client.get("/ready")
                return answer.text if "its provider refused the key" in answer.text else None

            said = await eventually(says_why)
            assert "sk-wr" not in said
            server.listing = Says(("{}",))
            rotate(key_file, "sk-right")
            await agent.until("/ready", 200)
            assert (await agent.query("Hello")).status_code == 200


async def test_an_agent_whose_key_is_revoked_stops_being_ready_when_a_turn_finds_out(key_file: Path) -> None:
    async with (
        provider("openai-compatible") as server,
        running_agent(None, model=real_model(server.url, key_file)) as agent,
    ):
        server.steps, server.listing = [REFUSED], REFUSED
        assert (await agent.query("Hello")).json()["error"]["code"] == "model_error"
        assert "its provider refused the key" in (await agent.until("/ready", 503)).text


async def test_a_turn_that_is_refused_alone_leaves_the_agent_ready(key_file: Path) -> None:
    async with (
        provider("openai-compatible", REFUSED) as server,
        running_agent(None, model=real_model(server.url, key_file)) as agent,
    ):
        before = len(server.listed)
        assert (await agent.query("Hello")).status_code == 502
        await eventually(lambda: len(server.listed) > before)
        assert (await agent.client.get("/ready")).status_code == 200


async def test_an_agent_whose_provider_is_not_there_is_ready_all_the_same(key_file: Path) -> None:
    async with running_agent(None, model=real_model(f"http://127.0.0.1:{free_port()}", key_file)) as agent:
        assert (await agent.client.get("/ready")).json() == {"ready": True, "reasons": []}


async def test_a_provider_that_is_silent_holds_a_start_for_a_bounded_time(
    key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "TRIAL_SECONDS", 0.05)
    silence = asyncio.Event()
    async with provider("openai-compatible") as server:
        server.listing = IsSilent(silence)
        async with running_agent(None, model=real_model(server.url, key_file)) as agent:
            assert (await agent.client.get("/ready")).status_code == 200
        silence.set()
