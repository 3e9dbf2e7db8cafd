"""A Prometheus that is asked as Grafana asks it. Only reads."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import httpx

from cluster.console import Failure

Series = tuple[dict[str, str], list[float]]
_STEP_SECONDS = 15


class Prometheus:
    """`url` is where it answers; a range is the last `minutes`."""

    def __init__(self, url: str, minutes: int) -> None:
        self._client = httpx.Client(base_url=url, timeout=30)
        self._minutes = minutes

    def instant(self, expression: str) -> Iterator[Series]:
        """Labels and value of each series now. Raises Failure with what Prometheus says."""
        for each in self._asked("query", query=expression)["result"]:
            yield dict(each["metric"]), [float(each["value"][1])]

    def range(self, expression: str) -> Iterator[Series]:
        """Labels and values of each series over the time span. Raises Failure with what Prometheus says."""
        now = time.time()
        span = {"start": now - self._minutes * 60, "end": now, "step": _STEP_SECONDS}
        for each in self._asked("query_range", query=expression, **span)["result"]:
            yield dict(each["metric"]), [float(value) for _, value in each["values"]]

    def busiest(self, label: str, known: Mapping[str, str]) -> str:
        """The value of an agents' label with the most requests. Raises Failure where there is none."""
        chosen = ", ".join(f'{name}="{value}"' for name, value in known.items())
        found = list(self.instant(f"topk(1, sum by ({label}) (ropewalk_agent_requests_total{{{chosen}}}))"))
        if not found:
            raise Failure(
                f"no agent has been asked anything, so there is no {label} to look at: ask one, or `make demo`."
            )
        return found[0][0][label]

    def _asked(self, path: str, **parameters: Any) -> dict[str, Any]:
        try:
            answer = self._client.get(f"/api/v1/{path}", params=parameters).json()
        except (httpx.TransportError, ValueError) as error:
            raise Failure(f"{self._client.base_url} does not answer ({error}): `make observe` starts it.") from None
        if answer["status"] != "success":
            raise Failure(f"Prometheus refuses {parameters['query']}: {answer['error']}")
        return dict(answer["data"])
