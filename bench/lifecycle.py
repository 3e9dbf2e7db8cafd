"""One agent process: how fast it starts and ends, what it takes idle, and whether it grows."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time

from bench.load import requests_per_second
from bench.serving import document, serving

_STARTS = 5
_SESSIONS, _TURNS = 1000, 20_000
IMPORTS = (
    "from strands import Agent; from strands.tools.mcp import MCPClient; "
    "from strands.models.openai import OpenAIModel; "
)
_PSS = "import re; print(re.findall(r'^Pss:\\s+(\\d+)', open('/proc/self/smaps_rollup').read(), re.M)[0])"


def run() -> list[tuple[str, str, str]]:
    """Rows of (measure, figure, goal)."""
    return [*_start_and_end(), _growth()]


def _start_and_end() -> list[tuple[str, str, str]]:
    starts, ends, imports, idle = [], [], [], []
    with serving(["-m", "bench.servers", "tools"]) as tools:
        servers = [{"name": "bench", "url": f"http://127.0.0.1:{tools.port}/mcp"}]
        for _ in range(_STARTS):
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", IMPORTS], check=True)
            imports.append(time.perf_counter() - began)
            with serving(["-m", "ropewalk_agent"], config=document(mcpServers=servers)) as agent:
                starts.append(agent.ready_seconds)
                idle.append(agent.pss_mib())
                ends.append(agent.stop())
    script = [sys.executable, "-c", IMPORTS + _PSS]
    alone = int(subprocess.run(script, capture_output=True, text=True, check=True).stdout) / 1024
    start, alone_seconds = min(starts), min(imports)
    return [
        (
            f"process start to Ready with an MCP server, beside the imports alone, minimum of {_STARTS}",
            f"{start:.2f} s against {alone_seconds:.2f} s: {start / alone_seconds:.1f} ×",
            "≤ 1.5 ×",
        ),
        (
            "idle memory (PSS) with an MCP server, beside `import strands`, its MCP client and OpenAI model",
            f"{min(idle):.0f} MiB against {alone:.0f} MiB",
            "≤ 90 MiB",
        ),
        (f"idle SIGTERM to exit, maximum of {_STARTS}", f"{max(ends):.2f} s", "< 0.5 s"),
    ]


def _growth() -> tuple[str, str, str]:
    with serving(["-m", "bench.servers", "ropewalk"]) as agent:
        asyncio.run(requests_per_second(agent.port, clients=32, requests=_SESSIONS, sessions=_SESSIONS))
        before = agent.pss_mib()
        asyncio.run(requests_per_second(agent.port, clients=32, requests=_TURNS - _SESSIONS, sessions=_SESSIONS))
        after = agent.pss_mib()
    figure = f"{before:.1f} → {after:.1f} MiB: + {(after / before - 1) * 100:.1f} %"
    return (
        f"memory after {_TURNS:,} turns in {_SESSIONS:,} sessions, beside that after {_SESSIONS:,}",
        figure,
        "+ ≤ 5 %",
    )
