"""What the a2a-sdk brings into the agent's process, which has little memory to spare."""

import subprocess
import sys
from pathlib import Path

LEAN = """
import sys
from ropewalk_agent import lean
lean.install(with_boto=False)
import ropewalk_agent.routes.a2a_turns
assert "fastapi" not in sys.modules
for package in lean.RE_EXPORTING:
    if package.startswith("a2a"):
        module = sys.modules[package]
        for name in module.__all__:
            getattr(module, name)
"""


def in_a_process(code: str) -> tuple[int, str]:
    environment = {"PYTHONPATH": str(Path(__file__).parents[3] / "agent_image" / "src")}
    ended = subprocess.run([sys.executable, "-c", code], check=False, env=environment, capture_output=True, text=True)
    return ended.returncode, ended.stderr


def test_the_sdk_is_loaded_without_what_it_only_re_exports() -> None:
    assert in_a_process(LEAN) == (0, "")


def test_an_agent_that_is_not_asked_by_a2a_does_not_load_it() -> None:
    code = "import sys, ropewalk_agent.app; assert not {'a2a', 'fastapi', 'sse_starlette'} & set(sys.modules)"
    assert in_a_process(code) == (0, "")
