"""What an agent imports before it is ready, and what it takes idle, by provider, with an MCP server and without."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.lifecycle import IMPORTS
from bench.serving import document, serving

_STARTS = 10
_LINE = re.compile(r"^import time:\s+(\d+) \|\s+\d+ \|", re.M)
_PROVIDERS: dict[str, dict[str, Any]] = {
    "openai-compatible": {"id": "m", "baseURL": "http://127.0.0.1:9/v1"},
    "anthropic": {"id": "claude-sonnet-4-5", "baseURL": "http://127.0.0.1:9"},
    "gemini": {"id": "gemini-2.5-flash", "baseURL": "http://127.0.0.1:9"},
}
_NEED_KEY = ("anthropic", "gemini")


def run() -> list[tuple[str, str, str]]:
    """Rows of (measure, figure, goal)."""
    with serving(["-m", "bench.servers", "tools"]) as tools, tempfile.TemporaryDirectory() as folder:
        key = Path(folder) / "key"
        key.write_text("not-a-real-key")
        servers = [{"name": "bench", "url": f"http://127.0.0.1:{tools.port}/mcp"}]
        return [_imports(servers), *(_idle(provider, key, servers) for provider in _PROVIDERS)]


def _imports(servers: list[dict[str, Any]]) -> tuple[str, str, str]:
    """`python -X importtime`: modules and their own time, of the plain imports and of an agent until it is ready."""
    plain, agents = [], []
    for _ in range(_STARTS):
        timed = [sys.executable, "-X", "importtime", "-c", IMPORTS]
        plain.append(_summary(subprocess.run(timed, check=True, capture_output=True, text=True).stderr))
        with tempfile.TemporaryFile("w+") as said:
            with serving(
                ["-X", "importtime", "-m", "ropewalk_agent"], config=document(mcpServers=servers), errors=said
            ):
                pass
            said.seek(0)
            agents.append(_summary(said.read()))
    before, after = min(plain, key=lambda each: each[1]), min(agents, key=lambda each: each[1])
    return (
        f"modules imported until ready, and their time, minimum of {_STARTS}, beside those of `import strands`, "
        "its MCP client and OpenAI model",
        f"{after[0]} in {after[1]:.2f} s against {before[0]} in {before[1]:.2f} s",
        "",
    )


def _summary(text: str) -> tuple[int, float]:
    own = [int(microseconds) for microseconds in _LINE.findall(text)]
    return len(own), sum(own) / 1e6


def _idle(provider: str, key: Path, servers: list[dict[str, Any]]) -> tuple[str, str, str]:
    model = {"provider": provider, **_PROVIDERS[provider]}
    if provider in _NEED_KEY:
        model["apiKeyFile"] = str(key)
    figures = []
    for named in ([], servers):
        with serving(["-m", "ropewalk_agent"], config=document(model=model, mcpServers=named)) as agent:
            figures.append(agent.pss_mib())
    return (
        f"idle memory (PSS) with provider {provider}, without and with an MCP server",
        f"{figures[0]:.0f} and {figures[1]:.0f} MiB",
        "≤ 90 MiB",
    )
