"""MCP servers rolled, scaled and taken away in real pods, while four callers ask an agent one query after another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from bench.pods import namespace
from e2e_cluster import Workspace, agent, install_chart
from e2e_programs import calls_by_replica
from e2e_queries import RIGHT, UNAVAILABLE, Queries, constant_queries
from e2e_swaps import KINDS, life, pod_url, servers_of_each_kind, settle
from waiting import until

_TIMES = 5


def run() -> Iterator[tuple[str, str, str]]:
    """Rows of (measure, figure, goal)."""
    install_chart()
    with namespace("ropewalk-bench-swaps") as space:
        space.apply(*servers_of_each_kind(), *[agent(f"{kind}-user", kind) for kind in KINDS])
        for kind in KINDS:
            space.wait(f"agent/{kind}-user")
            yield _row(space, kind, f"rolled {_TIMES} times", _roll, "0 failed")
            yield _row(space, kind, f"scaled to 3 and back {_TIMES} times", _scale, "0 failed")
            yield _row(space, kind, f"scaled to 0 and back {_TIMES} times", _away, "0 failed, tool errors while at 0")


def _row(
    space: Workspace, kind: str, what: str, swap: Callable[[Workspace, str, Queries], None], goal: str
) -> tuple[str, str, str]:
    before = life(space, f"{kind}-user")
    # The pod itself: the Service of an agent leads to nobody while a server that it requires is away.
    with constant_queries(pod_url(space, f"{kind}-user")) as queries:
        for _ in range(_TIMES):
            queries.more(50)
            swap(space, kind, queries)
        queries.more(50)
    counted = Counter(queries.outcomes)
    failed = {said: count for said, count in counted.items() if said not in (RIGHT, UNAVAILABLE)}
    words = "".join(f"; {count} × {said}" for said, count in failed.items())
    same = "not restarted" if life(space, f"{kind}-user") == before else "RESTARTED"
    figure = (
        f"{counted.total()} queries: {counted[RIGHT]} right, {counted[UNAVAILABLE]} told that it is unavailable, "
        f"{sum(failed.values())} failed{words}; slowest {queries.slowest_seconds:.1f} s; agent {same}"
    )
    return f"{kind} server {what}", figure, goal


def _roll(space: Workspace, kind: str, queries: Queries) -> None:
    space.kubectl("rollout", "restart", f"deployment/{kind}-mcp")
    space.kubectl("rollout", "status", f"deployment/{kind}-mcp", "--timeout=120s")
    settle(space, kind)


def _scale(space: Workspace, kind: str, queries: Queries) -> None:
    space.kubectl("scale", f"mcpserver/{kind}", "--replicas=3")
    settle(space, kind)
    if kind != "sessions":
        until(lambda: min(calls_by_replica(space, kind).values()) > 0, "each replica has served calls")
    space.kubectl("scale", f"mcpserver/{kind}", "--replicas=1")
    settle(space, kind)


def _away(space: Workspace, kind: str, queries: Queries) -> None:
    space.kubectl("scale", f"mcpserver/{kind}", "--replicas=0")
    queries.more(50, UNAVAILABLE)
    space.kubectl("scale", f"mcpserver/{kind}", "--replicas=1")
    settle(space, kind)
