"""What Strands does in every turn although no agent of ours uses it, switched off. Changes no answer.

- Plugins. An Agent gets a plugin for delegation to other agents unless it is given one of that name; we give it one
  that does nothing. To make a plugin, Strands looks at every attribute of its classes.
- A folder of tools, which is looked for on disk.
- Tracing as Strands does it, which is dear and writes down what was said; turn_spans.py takes its place.
- Random bytes of the system for names. A turn names seven things by `uuid.uuid4`, none of them a secret. Each is a
  system call, which lets go of the interpreter's lock, and the server's thread then keeps the worker waiting for it:
  a fifth of a busy pod's CPU went there. Ours come from a generator that the system seeded once.
"""

import random
import uuid
from types import ModuleType

from strands.agent import agent as strands_agent
from strands.event_loop import event_loop
from strands.models.model import _ModelPlugin
from strands.plugins import Plugin
from strands.telemetry import metrics as strands_metrics
from strands.telemetry import tracer as strands_tracer
from strands.tools import registry
from strands.types import content

from ropewalk_agent.turn_spans import TurnTracer

_random = random.Random()


class NoDelegation(Plugin):
    """Takes the place of Strands' own plugin of this name. One may serve all agents."""

    name = "strands:agent-delegation"


# The bits of a UUID that say "version 4, of RFC 9562" (its section 5.4), and all the others.
_IS_VERSION_4 = 0x4000_8000000000000000
_RANDOM = (1 << 128) - 1 & ~0xF000_C000000000000000


class _Name:
    """As much of a uuid.UUID as Strands uses of one, at half its cost. Not for secrets."""

    __slots__ = ("hex",)

    def __init__(self) -> None:
        self.hex = f"{_random.getrandbits(128) & _RANDOM | _IS_VERSION_4:032x}"

    def __str__(self) -> str:
        digits = self.hex
        return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def _cheap_uuid() -> ModuleType:
    module = ModuleType("uuid", uuid.__doc__)
    vars(module).update(vars(uuid), uuid4=_Name)
    return module


def install() -> None:
    """Switch off, once for the process, what no argument of an Agent switches off. Strands is pinned, and tests watch.

    Strands makes its one tracer when it is first asked for; this forestalls it. `_ModelPlugin` is made for every Agent
    and declares no hooks or tools, so finding none can be skipped. No agent of ours loads tools from a folder, so
    there is no folder to look for.
    """
    strands_tracer._tracer_instance = TurnTracer()  # type: ignore[assignment]
    _ModelPlugin._hooks, _ModelPlugin._tools = [], []
    registry.ToolRegistry.get_tools_dirs = lambda _: []  # type: ignore[method-assign, assignment]
    for module in (content, event_loop, registry, strands_agent, strands_metrics):
        module.uuid = _cheap_uuid()  # type: ignore[attr-defined]
