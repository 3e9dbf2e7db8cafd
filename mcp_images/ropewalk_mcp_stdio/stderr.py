"""The child's stderr in the pod's log: one JSON object a line, with the server's name, of bounded length."""

import json
import logging

_LONGEST = 4096
_LEVELS = {
    "trace": logging.DEBUG, "debug": logging.DEBUG, "info": logging.INFO, "notice": logging.INFO,
    "warn": logging.WARNING, "warning": logging.WARNING, "error": logging.ERROR, "err": logging.ERROR,
    "critical": logging.CRITICAL, "fatal": logging.CRITICAL, "panic": logging.CRITICAL,
}  # fmt: skip
# Where structured logs keep their level and their text, as common logging libraries write them.
_LEVEL_KEYS = ("level", "severity", "levelname", "lvl")
_TEXT_KEYS = ("message", "msg", "event")
_log = logging.getLogger("ropewalk.mcp.stdio.stderr")
# How much it writes is the child's own business: its debug lines are wanted by whoever has switched them on.
_log.setLevel(logging.DEBUG)


def level_and_text(line: str) -> tuple[int, str]:
    """Return what a line of stderr says and how severe it is: a JSON object's own level, else info."""
    text = line
    level = logging.INFO
    if line.startswith("{"):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            return level, text[:_LONGEST]
        named = next((record[key] for key in _LEVEL_KEYS if isinstance(record.get(key), str)), "")
        level = _LEVELS.get(named.lower(), level)
        text = next((record[key] for key in _TEXT_KEYS if isinstance(record.get(key), str)), text)
    return level, text[:_LONGEST]


class ErrorLines:
    """Takes the lines of one child."""

    def __init__(self, server: str) -> None:
        self._server = server

    def take(self, line: bytes) -> None:
        """Log one line."""
        text = line.decode(errors="replace").rstrip()
        if text:
            level, said = level_and_text(text)
            _log.log(level, said, extra={"server": self._server})
