"""A log line is one JSON object, never holds what a library filled into its own message, and costs few writes."""

import asyncio
import io
import json
import logging
import sys
from collections.abc import Iterator

import pytest

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


def test_of_a_librarys_line_only_the_template_and_the_class_of_the_error_are_written() -> None:
    parsed = line("openai", "sent %s", "canary", error=ValueError("canary"))
    assert (parsed["message"], parsed["error"]) == ("sent %s", "ValueError")
    assert "canary" not in json.dumps(parsed)


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


def test_without_a_loop_every_line_is_written_at_once(log: tuple[logging.Logger, RecordingStream]) -> None:
    logger, stream = log
    logger.info("alone")
    assert stream.pieces == [["alone"]]
