"""How agents answer: the numbers that begin the boards about them."""

from __future__ import annotations

from dashboards.panels import Panels, stat_panel
from dashboards.queries import DURATION, FAILED, NO_BATCH, Series, or_none, share


def of_requests(agents: Series, pods: str) -> Panels:
    """Requests, the share that failed, latency; `pods` is what is there while any pod of the agents reports."""
    return [
        stat_panel(
            "Requests",
            "Requests answered each second, and items of batches.",
            or_none(agents.requests(), pods),
            "reqps",
        ),
        stat_panel(
            "Failed",
            "Share of requests that failed and not by the client's fault: model_error, timeout, queue_full, not_ready,"
            " invalid_answer, internal.",
            share(agents.requests(more=FAILED), agents.requests(), pods),
            "percentunit",
            warn=0.01,
            bad=0.05,
        ),
        stat_panel(
            "Latency, p95",
            "95 of 100 requests were answered within this time, the wait in the queue included; refused ones"
            " count, batches do not. Nothing is shown while no request is answered.",
            agents.quantile(0.95, DURATION, more=NO_BATCH),
            "s",
            warn=10,
            bad=30,
        ),
    ]
