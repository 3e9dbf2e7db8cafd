"""What is switched off in Strands: that it is off, and that nothing is lost by it."""

import uuid
from typing import Any

import pytest
from strands import Agent
from strands.models.model import _ModelPlugin
from strands.plugins import Plugin
from strands.plugins._discovery import discover_hooks, discover_tools
from strands.telemetry.tracer import get_tracer

from agent_models import ScriptedModel
from ropewalk_agent import spare


@pytest.fixture(autouse=True)
def _installed() -> None:
    spare.install()


def test_the_skipped_plugin_declares_no_hooks_and_no_tools() -> None:
    plugin = _ModelPlugin()
    assert (discover_hooks(plugin, "p"), discover_tools(plugin, "p")) == ([], [])
    assert (plugin.hooks, plugin.tools) == ([], [])


def test_strands_takes_our_plugin_in_place_of_its_own() -> None:
    ours: list[Plugin] = [spare.NoDelegation()]
    plugins = Agent(model=ScriptedModel(), callback_handler=None, plugins=ours)._plugin_registry._plugins
    assert plugins["strands:agent-delegation"] is ours[0]


def test_an_agent_looks_for_no_folder_of_tools(monkeypatch: pytest.MonkeyPatch) -> None:
    def looked(*_: Any) -> None:
        raise AssertionError("a folder was looked for")

    monkeypatch.setattr("pathlib.Path.cwd", looked)
    assert Agent(model=ScriptedModel(), callback_handler=None).tool_names == []


def test_strands_traces_in_silence_and_serialises_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def serialised(*_: Any) -> str:
        raise AssertionError("a history was serialised")

    monkeypatch.setattr("strands.telemetry.tracer.serialize", serialised)
    agent = Agent(model=ScriptedModel(["fine"]), callback_handler=None)
    assert agent.tracer is get_tracer()
    assert str(agent("q")).strip() == "fine"


def test_a_turn_asks_the_system_for_no_random_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(_: int) -> bytes:
        raise AssertionError("the system was asked for random bytes")

    agent = Agent(model=ScriptedModel(["fine"]), callback_handler=None)
    monkeypatch.setattr("os.urandom", asked)
    assert str(agent("q")).strip() == "fine"


def test_the_names_are_uuids_that_differ() -> None:
    made = [spare._Name() for _ in range(100)]
    names = [uuid.UUID(str(name)) for name in made]
    assert [name.hex for name in names] == [name.hex for name in made]
    assert len(set(names)) == 100
    assert {(name.version, name.variant) for name in names} == {(4, uuid.RFC_4122)}
