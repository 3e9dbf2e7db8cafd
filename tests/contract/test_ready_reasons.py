"""What an agent says at /ready, and what the operator makes of it: the few sentences that both sides know."""

from __future__ import annotations

from pathlib import Path

from agent_models import ScriptedModel, built
from agent_server import agent_config
from ropewalk_agent.metrics import Metrics
from ropewalk_agent.models import BuiltModel, KeyFile
from ropewalk_agent.models.trial import KeyTrial
from ropewalk_agent.runtime import Runtime
from ropewalk_operator import observe
from waiting import eventually


def test_an_agent_that_is_starting_says_so_first_and_is_in_no_trouble() -> None:
    reasons = Runtime(agent_config(), Metrics()).reasons_not_ready()
    assert reasons[0] == observe.STARTING


async def test_an_agent_that_cannot_start_says_so_first() -> None:
    def build(*_: object) -> BuiltModel:
        raise ValueError("no such parameter")

    failures: list[str] = []
    runtime = Runtime(agent_config(), Metrics(), build_model=build, on_failure=failures.append)
    runtime.start()
    try:
        (said,) = await eventually(lambda: failures)
        assert runtime.reasons_not_ready()[0] == said
        assert said.startswith(observe.CANNOT_START)
    finally:
        await runtime.close()


async def test_an_agent_whose_key_is_refused_says_so_in_the_words_that_the_operator_looks_for(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sk-wrong")
    key = KeyFile(tmp_path / "key")

    async def try_key() -> tuple[int, str]:
        return 401, ""

    part = built(ScriptedModel(), key)
    model = BuiltModel(part.model, key, part.refresh_key, part.close, try_key=try_key)
    trial = KeyTrial(model, "m", lambda: None)
    await trial._try()
    assert trial.problem is not None
    assert observe.KEY_REFUSED in trial.problem
