"""Queries a second at 32 at once with a model that takes no time: Ropewalk beside the usual recipe, taking turns."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.load import requests_per_second
from cluster.processes import wait_until

_ROUNDS, _REQUESTS, _CLIENTS = 8, 1500, 32
_CONFIG = {
    "formatVersion": 1,
    "name": "bench",
    "namespace": "bench",
    "description": "",
    "systemPrompt": "You are a calculator.",
    "model": {"provider": "openai-compatible", "id": "m", "baseURL": "http://127.0.0.1:9/v1", "region": None,
              "apiKeyFile": None, "parameters": {}},
    "mcpServers": [],
    "limits": {"requestTimeoutSeconds": 60, "toolTimeoutSeconds": 30, "maxTurns": 20, "maxParallelTools": 10,
               "maxTokensPerRequest": None},
    "concurrency": 8,
    "queue": {"maxLength": 100},
    "sessions": {"store": "memory", "ttlSeconds": 3600, "maxSessions": 1000, "windowSize": 20},
}  # fmt: skip


def run() -> list[tuple[str, str, str]]:
    """Rows of (measure, figure, goal)."""
    best = {"ropewalk": 0.0, "recipe": 0.0}
    with _server("ropewalk") as mine, _server("recipe") as theirs:
        for _ in range(_ROUNDS):
            for name, port in (("ropewalk", mine), ("recipe", theirs)):
                rate = asyncio.run(requests_per_second(port, clients=_CLIENTS, requests=_REQUESTS))
                best[name] = max(best[name], rate)
    ratio = best["ropewalk"] / best["recipe"]
    figure = f"{best['ropewalk']:.0f} against {best['recipe']:.0f}: {ratio:.1f} ×"
    return [(f"queries a second, {_CLIENTS} at once, best of {_ROUNDS} runs of {_REQUESTS}", figure, "≥ 3 ×")]


@contextmanager
def _server(name: str) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "agent.json"
        config.write_text(json.dumps(_CONFIG))
        environment = os.environ | {
            "PYTHONPATH": "agent_image/src",
            "ROPEWALK_CONFIG_FILE": str(config),
            "ROPEWALK_HOST": "127.0.0.1",
            "ROPEWALK_PORT": str(port),
        }
        command = [sys.executable, "-m", "bench.servers", name]
        with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as server:
            try:
                wait_until(lambda: _answers(port), name, seconds=60)
                yield port
            finally:
                server.terminate()


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
