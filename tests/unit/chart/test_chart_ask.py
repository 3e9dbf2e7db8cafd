"""The program of `helm test` waits, asks, and fails unless the answer is right."""

from __future__ import annotations

import runpy
import threading
from collections.abc import Callable, Iterator
from http.server import ThreadingHTTPServer
from typing import Any

import pytest

from chart_helm import CHART
from json_handler import JsonHandler

Reply = tuple[int, dict[str, Any]]


class FakeAgent:
    """Answers as an agent does: not ready a few times, then what it is told to answer."""

    def __init__(self) -> None:
        self.not_ready = 0
        self.reply: Reply = (200, {"response": "The result is 42.", "tools_used": ["add"]})
        self.asked: list[dict[str, Any]] = []
        agent = self

        class Handler(JsonHandler):
            def do_GET(self) -> None:
                assert self.path == "/ready"
                agent.not_ready -= 1
                ready = agent.not_ready < 0
                self.answer(200 if ready else 503, {"ready": ready, "reasons": [] if ready else ["mcp server math"]})

            def do_POST(self) -> None:
                assert self.path == "/query"
                agent.asked.append(self.taken())
                self.answer(*agent.reply)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def agent() -> Iterator[FakeAgent]:
    fake = FakeAgent()
    thread = threading.Thread(target=fake.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield fake
    fake.server.shutdown()
    thread.join()
    fake.server.server_close()


@pytest.fixture
def ask() -> Callable[[str, float], int]:
    program = runpy.run_path(str(CHART / "files" / "test" / "ask.py"))
    # The program waits between two looks; the test need not.
    main = program["main"]
    clock = FakeClock()
    main.__globals__["time"] = clock
    found: Callable[[str, float], int] = main
    return found


class FakeClock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_a_right_answer_passes_and_is_printed(
    agent: FakeAgent, ask: Callable[[str, float], int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(agent.url, 10) == 0
    printed = capsys.readouterr().out
    assert "answer: The result is 42." in printed
    assert "tools used: add" in printed
    assert agent.asked == [{"query": "What is 21.5 plus 20.5?"}]


def test_it_waits_until_the_agent_is_ready(
    agent: FakeAgent, ask: Callable[[str, float], int], capsys: pytest.CaptureFixture[str]
) -> None:
    agent.not_ready = 3
    assert ask(agent.url, 10) == 0
    assert capsys.readouterr().out.count("not ready yet") == 1


def test_an_agent_that_never_gets_ready_fails_with_what_it_said(
    agent: FakeAgent, ask: Callable[[str, float], int], capsys: pytest.CaptureFixture[str]
) -> None:
    agent.not_ready = 100
    assert ask(agent.url, 10) == 1
    assert "mcp server math" in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ((200, {"response": "41", "tools_used": ["add"]}), "42 is not in the answer"),
        ((200, {"response": "42", "tools_used": []}), "the tool add was not used"),
        ((502, {"error": {"code": "model_error"}}), "model_error"),
    ],
)
def test_a_wrong_answer_fails_with_the_reason(
    reply: Reply,
    reason: str,
    agent: FakeAgent,
    ask: Callable[[str, float], int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    agent.reply = reply
    assert ask(agent.url, 10) == 1
    assert reason in capsys.readouterr().out.splitlines()[-1]
