"""What every program tells of its process: the panels at the end of a dashboard, by pod."""

from __future__ import annotations

from dashboards.panels import Panels, graph
from dashboards.queries import Series


def of_pods(pods: Series, about: str = "") -> Panels:
    """Memory, CPU and restarts; `about` says of which pods, where that is not all."""
    return [
        graph(
            "Memory",
            f"Resident memory. {about}".strip(),
            [(pods.of("process_resident_memory_bytes"), "{{pod}}")],
            "bytes",
        ),
        graph(
            "CPU", f"CPU cores in use. {about}".strip(), [(pods.rate("process_cpu_seconds_total", "pod"), "{{pod}}")]
        ),
        graph(
            "Restarts, last 15 minutes",
            f"Containers that were started again, counted from the start times of their processes. {about}".strip(),
            [(pods.restarts("15m", "pod"), "{{pod}}")],
        ),
    ]
