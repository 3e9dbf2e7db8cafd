"""Turns through HTTP: Ropewalk beside the usual recipe, and beside the bare Strands turn in a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time

from bench.load import first_token_delays, requests_per_second
from bench.serving import Served, document, serving

_ROUNDS, _REQUESTS, _CLIENTS = 8, 1500, 32
_STREAMS = 200
_MODEL_SECONDS = 1.0
_BARE_TURNS = 1500
_BARE = f"""
import asyncio, json, time
from strands import Agent
from bench.servers import ScriptedModel
async def main():
    model = ScriptedModel()
    async def turns(count):
        for _ in range(count):
            agent = Agent(model=model, system_prompt="You are a calculator.", callback_handler=None)
            async for _ in agent.stream_async("What is 6 times 7?"):
                pass
    await turns(100)
    began = time.process_time()
    await turns({_BARE_TURNS})
    print((time.process_time() - began) / {_BARE_TURNS})
asyncio.run(main())
"""


def run() -> list[tuple[str, str, str]]:
    """Rows of (measure, figure, goal)."""
    return [*_at_full_speed(), _with_a_slow_model(), _first_token()]


def _at_full_speed() -> list[tuple[str, str, str]]:
    rates = {"ropewalk": 0.0, "recipe": 0.0}
    cpu = bare = float("inf")
    with serving(["-m", "bench.servers", "ropewalk"]) as mine, serving(["-m", "bench.servers", "recipe"]) as theirs:
        for _ in range(_ROUNDS):
            for name, server in (("ropewalk", mine), ("recipe", theirs)):
                rate, seconds = _load(server, _CLIENTS, _REQUESTS)
                rates[name] = max(rates[name], rate)
                if name == "ropewalk":
                    cpu = min(cpu, seconds)
            bare = min(bare, _bare_turn())
    ratio = rates["ropewalk"] / rates["recipe"]
    figure = f"{rates['ropewalk']:.0f} against {rates['recipe']:.0f}: {ratio:.1f} ×"
    cpu_figure = f"{cpu * 1000:.2f} ms against {bare * 1000:.2f} ms: {cpu / bare:.1f} ×"
    return [
        (
            f"queries a second, {_CLIENTS} at once, best of {_ROUNDS} runs of {_REQUESTS}, beside the recipe",
            figure,
            "≥ 3 ×",
        ),
        ("CPU of a trivial turn through HTTP, beside the bare Strands turn in process", cpu_figure, "≤ 2.5 ×"),
    ]


def _with_a_slow_model() -> tuple[str, str, str]:
    slow = {"BENCH_MODEL_SECONDS": str(_MODEL_SECONDS)}
    took = {}
    for name in ("ropewalk", "recipe"):
        with serving(["-m", "bench.servers", name], config=document(concurrency=_CLIENTS), environment=slow) as server:
            began = time.perf_counter()
            asyncio.run(requests_per_second(server.port, clients=_CLIENTS, requests=_CLIENTS))
            took[name] = time.perf_counter() - began
    figure = f"{took['ropewalk']:.2f} s against {took['recipe']:.1f} s"
    return f"{_CLIENTS} sessions at once, a model that takes 1 s, beside the recipe", figure, "≤ 1.3 s against 32 s"


def _first_token() -> tuple[str, str, str]:
    with serving(["-m", "bench.servers", "ropewalk"]) as server:
        delays = sorted(asyncio.run(first_token_delays(server.port, streams=_STREAMS)))
    figure = f"+ {delays[len(delays) // 2] * 1000:.1f} ms (p99 {delays[int(len(delays) * 0.99)] * 1000:.1f} ms)"
    return f"first streamed token after the model's own, p50 of {_STREAMS}", figure, "+ ≤ 10 ms"


def _load(server: Served, clients: int, requests: int) -> tuple[float, float]:
    """Requests a second, and the server's seconds of CPU for each."""
    before = server.cpu_seconds()
    rate = asyncio.run(requests_per_second(server.port, clients=clients, requests=requests))
    return rate, (server.cpu_seconds() - before) / requests


def _bare_turn() -> float:
    """Seconds of CPU of a Strands turn with nothing around it."""
    environment = os.environ | {"PYTHONPATH": f"agent_image/src:{os.getcwd()}"}
    done = subprocess.run([sys.executable, "-c", _BARE], env=environment, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout))
