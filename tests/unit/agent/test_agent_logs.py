"""A log line is one JSON object, and never holds what a library filled into its own message."""

import json
import logging
import sys

from ropewalk_agent.logs import JsonFormatter


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
