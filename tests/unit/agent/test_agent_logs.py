"""A log line is one JSON object, never holds what a library filled into its own message, and costs few writes."""

import asyncio
import io
import json
import logging
import sys
import threading
from collections.abc import Iterator

import pytest

from agent_models import ScriptedModel
from agent_server import running_agent
from ropewalk_agent.logs import GatheringHandler, JsonFormatter


def line(
    name: str, message: str, *arguments: object, error: Exception | None = None, **extra: object
) -> dict[str, object]:
    exc_info = None
    if error is not None:
        try:
            raise error
        except type(error):
            exc_info = sys.exc_info()
    record = logging.LogRecord(name, logging.WARNING, __file__, 1, message, arguments, exc_info)
    record.__dict__.update(extra)
    parsed: dict[str, object] = json.loads(JsonFormatter().format(record))
    return parsed


def test_our_own_lines_have_their_message_and_fields() -> None:
    parsed = line("ropewalk.turn", "ended %s", "well", fields={"request_id": "r"})
    assert (parsed["level"], parsed["logger"], parsed["message"]) == ("warning", "ropewalk.turn", "ended well")
    assert parsed["request_id"] == "r"
    assert str(parsed["time"]).endswith("Z")


@pytest.fixture
def library() -> Iterator[tuple[logging.Logger, io.StringIO]]:
    stream, logger = io.StringIO(), logging.getLogger("library")
    handler = GatheringHandler(stream)
    handler.setFormatter(JsonFormatter())
    logger.addHandler(handler)
    yield logger, stream
    logger.removeHandler(handler)


def test_of_a_librarys_line_only_the_template_and_the_class_of_the_error_are_written(
    library: tuple[logging.Logger, io.StringIO],
) -> None:
    logger, stream = library
    try:
        raise ValueError("canary")
    except ValueError:
        logger.exception("sent %s", "canary")
    parsed = json.loads(stream.getvalue())
    assert (parsed["message"], parsed["error"]) == ("sent %s", "ValueError")
    assert "test_of_a_librarys_line" in parsed["where"][0]
    assert "canary" not in stream.getvalue()


def test_a_librarys_line_without_a_template_is_left_out_but_for_its_place(
    library: tuple[logging.Logger, io.StringIO],
) -> None:
    logger, stream = library
    word = "canary"
    logger.warning(f"sent {word}")
    assert "test_agent_logs.py" in json.loads(stream.getvalue())["message"]
    assert "canary" not in stream.getvalue()


async def test_an_error_that_nobody_awaited_is_told_without_its_text(
    library: tuple[logging.Logger, io.StringIO],
) -> None:
    handler = library[0].handlers[0]
    logging.getLogger("asyncio").addHandler(handler)
    try:
        context = {"message": "canary", "exception": ValueError("canary")}
        asyncio.get_running_loop().default_exception_handler(context)
    finally:
        logging.getLogger("asyncio").removeHandler(handler)
    assert json.loads(library[1].getvalue())["error"] == "ValueError"
    assert "canary" not in library[1].getvalue()


def test_what_the_context_knows_is_added_to_every_line() -> None:
    record = logging.LogRecord("ropewalk.turn", logging.INFO, __file__, 1, "ended", (), None)
    assert json.loads(JsonFormatter(lambda: {"trace_id": "t"}).format(record))["trace_id"] == "t"


def test_an_error_of_ours_tells_where_it_happened_but_not_its_text() -> None:
    parsed = line("ropewalk.query", "turn failed", error=ValueError("canary"))
    assert parsed["where"]
    assert "canary" not in json.dumps(parsed)


class RecordingStream(io.StringIO):
    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[list[str]] = []

    def write(self, text: str) -> int:
        self.pieces.append([json.loads(line)["message"] for line in text.splitlines()])
        return len(text)


@pytest.fixture
def log() -> Iterator[tuple[logging.Logger, RecordingStream]]:
    stream, logger = RecordingStream(), logging.getLogger("ropewalk.test-of-logs")
    handler = GatheringHandler(stream)
    handler.setFormatter(JsonFormatter())
    logger.addHandler(handler)
    logger.setLevel("INFO")
    yield logger, stream
    logger.removeHandler(handler)


async def test_lines_of_one_round_of_the_loop_are_written_in_one_piece(
    log: tuple[logging.Logger, RecordingStream],
) -> None:
    logger, stream = log
    logger.info("first")
    logger.info("second")
    assert stream.pieces == []
    await asyncio.sleep(0)
    logger.info("third")
    await asyncio.sleep(0)
    assert stream.pieces == [["first", "second"], ["third"]]


async def test_a_warning_is_written_at_once_behind_what_was_logged_before(
    log: tuple[logging.Logger, RecordingStream],
) -> None:
    logger, stream = log
    logger.info("first")
    logger.warning("last words")
    assert stream.pieces == [["first", "last words"]]


async def test_a_loop_that_is_held_up_holds_up_no_lines_of_another(
    log: tuple[logging.Logger, RecordingStream],
) -> None:
    logger, stream = log
    logged, release = threading.Event(), threading.Event()

    async def hog() -> None:
        logger.info("worker")
        logged.set()
        release.wait(10)

    worker = asyncio.get_running_loop().run_in_executor(None, asyncio.run, hog())
    await asyncio.to_thread(logged.wait, 10)
    logger.info("server")
    await asyncio.sleep(0)
    written = list(stream.pieces)
    release.set()
    await worker
    assert written == [["worker", "server"]]


def test_without_a_loop_every_line_is_written_at_once(log: tuple[logging.Logger, RecordingStream]) -> None:
    logger, stream = log
    logger.info("alone")
    assert stream.pieces == [["alone"]]


async def test_each_request_leaves_one_line_whether_it_was_a_turn_or_not(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "ropewalk")
    async with running_agent(ScriptedModel(["hi"], [ValueError("broken")])) as agent:
        caplog.clear()
        await agent.query("q")
        await agent.query("q")
        await agent.client.post("/query", json={})
    told = [(record.message, record.__dict__["fields"]["outcome"]) for record in caplog.records]
    assert told == [("turn ended", "ok"), ("turn ended", "model_error"), ("request refused", "invalid_request")]
