"""Headers for an MCP server whose values are in mounted files, read again when they change. Logs no value."""

import re

from ropewalk_agent.config import McpHeader
from ropewalk_agent.models import KeyFile
from ropewalk_agent.tools.auth import AuthError, mounted

_VALUE = re.compile(r"[\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?")
_SHORTEST_SECRET = 4
"""A value of fewer characters is no secret, and blotting it out would spoil every message that has such letters."""


class MountedHeaders:
    """The headers of one server."""

    def __init__(self, headers: tuple[McpHeader, ...]) -> None:
        self._headers = [(header, KeyFile(header.value_file)) for header in headers]

    def __bool__(self) -> bool:
        return bool(self._headers)

    def read(self) -> dict[str, str]:
        """Return names and values as the files hold them now; while one is away, its last value.

        Raises AuthError where there is no value, or one that no header can carry.
        """
        return {header.name: self._value(header, file) for header, file in self._headers}

    def secrets(self) -> tuple[str, ...]:
        """Return what must not be written anywhere; reads no file and raises nothing.

        Also what follows a scheme such as Bearer: a server may quote it alone.
        """
        values = [value for _, file in self._headers for value in file.secrets()]
        values += [value.partition(" ")[2] for value in values]
        return tuple(value for value in values if len(value) >= _SHORTEST_SECRET)

    def _value(self, header: McpHeader, file: KeyFile) -> str:
        value = mounted(file, header.value_file, f"header {header.name}")
        if not _VALUE.fullmatch(value):
            reason = "must hold one line of visible ASCII characters"
            raise AuthError(f"no header {header.name}: {header.value_file} {reason}")
        return value
