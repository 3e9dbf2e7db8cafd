"""What is run, and how long the bridge waits for what."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from ropewalk_mcp_stdio.packages import environment, installed_command


@dataclass(frozen=True)
class Timing:
    """How long the bridge waits for what, in seconds."""

    start: float = 60.0
    # How long a child may stay silent on server/discover before initialize follows: some old servers ignore what they
    # do not know. A stateless server that is slow to start answers the first, and refuses the second.
    patience: float = 3.0
    # Between two questions for the tools, and how long the answer may take before the server counts as not ready.
    probe_interval: float = 10.0
    probe: float = 10.0
    # A child that has a question open and writes nothing at all for this long is taken for hung, and ended. One of a
    # session may be at work for its client that long: it is ended where a call was given up and a ping is not answered.
    hung: float = 60.0
    # What counts as having run well, and the first and the longest pause before a start.
    steady: float = 5.0
    first_pause: float = 0.5
    longest_pause: float = 30.0
    # How long a call waits for a child that is about to be back.
    wait: float = 10.0
    # How long the calls in flight have after SIGTERM.
    drain: float = 10.0
    # How long a call of a stateless client may wait for its client's answer.
    parked: float = 300.0

    def pause(self, failures: int) -> float:
        """Return how long to wait before a start, after so many failures in a row."""
        # The exponent is bounded: after a night of failures the power would be beyond the range of a float.
        return min(self.longest_pause, self.first_pause * 2 ** min(failures - 1, 16)) if failures else 0.0


class Program:
    """The stdio server: a command, or a package that is installed before its first start."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        variables: dict[str, str],
        *,
        python_package: str | None = None,
        node_package: str | None = None,
        timing: Timing | None = None,
    ) -> None:
        self.name = name
        self.timing = timing or Timing()
        self._package = python_package, node_package
        self._variables = environment(variables) if python_package or node_package else variables
        self._given = list(command)
        self._command = None if python_package or node_package else self._given
        self._installing = asyncio.Lock()

    async def command(self) -> tuple[list[str], dict[str, str]]:
        """Return the command and its environment, once the package is installed; InstallError says why it is not."""
        async with self._installing:
            if self._command is None:
                self._command = await installed_command(*self._package, self._given, self._variables)
            return self._command, self._variables
