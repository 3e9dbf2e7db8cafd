"""What the servers write into their logs, and what they never do."""

import json
import logging
import subprocess
import sys

from pydantic import BaseModel

from ropewalk_mcp_process.logs import JsonFormatter


class Answer(BaseModel):
    """An answer of an upstream."""

    number: int


def misread() -> None:
    """Break off in the words of pydantic, which quote what it was given."""
    Answer.model_validate({"number": "a secret"})


def test_an_error_is_told_by_its_kind_and_place_and_not_in_its_own_words() -> None:
    try:
        try:
            misread()
        except ValueError as error:
            raise RuntimeError("the tool said: a secret") from error
    except RuntimeError:
        record = logging.LogRecord("mcp", logging.ERROR, "x", 1, "Tool %r failed", ("search",), sys.exc_info())
    said = JsonFormatter().format(record)
    assert "secret" not in said
    line = json.loads(said)
    assert (line["level"], line["message"], line["error"]) == ("error", "Tool 'search' failed", "ValidationError")
    assert [place.split()[1] for place in line["where"]][:2] == [
        "test_an_error_is_told_by_its_kind_and_place_and_not_in_its_own_words",
        "misread",
    ]
    assert line["where"][1].startswith("test_mcp_logs.py:")


def test_a_line_without_an_error_has_the_fields_that_were_given() -> None:
    fields = {"name": "ropewalk.mcp", "msg": "tool call", "levelname": "INFO", "tool": "add", "created": 1.5}
    record = logging.makeLogRecord(fields)
    line = json.loads(JsonFormatter().format(record))
    assert line.keys() == {"time", "level", "logger", "message", "tool"}
    assert (line["tool"], line["time"]) == ("add", "1970-01-01T00:00:01.500Z")


def test_a_stdio_servers_debug_lines_are_in_the_log_too() -> None:
    program = """
from ropewalk_mcp_process.logs import log_as_json
from ropewalk_mcp_stdio.stderr import ErrorLines
log_as_json()
ErrorLines("files").take(b'{"level": "debug", "msg": "opened"}')
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    line = json.loads(done.stderr)
    assert (line["level"], line["message"], line["server"]) == ("debug", "opened", "files")
