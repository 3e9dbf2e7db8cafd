"""PodMonitors -> the configuration of a Prometheus without the Prometheus operator. Pure.

So what the local cluster's Prometheus scrapes is what the chart's own PodMonitors say, and not a copy of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

Json = dict[str, Any]
SCRAPE_SECONDS = 5
_META = "__meta_kubernetes_"
_FIELDS = {"sourceLabels": "source_labels", "targetLabel": "target_label"}


def configuration(
    monitors: Sequence[Mapping[str, Any]], *, pods_url: str, alertmanager: str, rules: Sequence[str]
) -> Json:
    """The file prometheus.yml. `pods_url` answers with all pods, as `targets` makes them."""
    jobs = [job for monitor in monitors for job in _jobs(monitor, pods_url)]
    return {
        "global": {"scrape_interval": f"{SCRAPE_SECONDS}s", "evaluation_interval": f"{SCRAPE_SECONDS}s"},
        "rule_files": list(rules),
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]},
        "scrape_configs": jobs,
    }


def targets(pods: Sequence[Mapping[str, Any]]) -> list[Json]:
    """Each port of each running pod with the labels of Prometheus' own discovery of pods.

    The names are those of kubernetes_sd_configs with the role pod; what no PodMonitor here asks for is left out.
    """
    return [
        {
            "targets": [f"{pod['status']['podIP']}:{port['containerPort']}"],
            "labels": {
                f"{_META}namespace": pod["metadata"]["namespace"],
                f"{_META}pod_name": pod["metadata"]["name"],
                f"{_META}pod_container_name": container["name"],
                f"{_META}pod_container_port_name": port.get("name", ""),
                **{f"{_META}pod_label_{_word(key)}": value for key, value in pod["metadata"].get("labels", {}).items()},
            },
        }
        for pod in pods
        if pod["status"].get("podIP") and pod["status"].get("phase") == "Running"
        for container in pod["spec"]["containers"]
        for port in container.get("ports", ())
    ]


def _jobs(monitor: Mapping[str, Any], pods_url: str) -> list[Json]:
    metadata, spec = monitor["metadata"], monitor["spec"]
    chosen = spec.get("namespaceSelector", {})
    namespaces = [] if chosen.get("any") else chosen.get("matchNames", [metadata["namespace"]])
    keep = {f"pod_label_{_word(key)}": value for key, value in spec["selector"]["matchLabels"].items()}
    if namespaces:
        keep["namespace"] = "|".join(namespaces)
    labels = {"namespace": "namespace", "pod_name": "pod", "pod_container_name": "container"}
    if spec.get("jobLabel"):
        labels[f"pod_label_{_word(spec['jobLabel'])}"] = "job"
    return [
        {
            "job_name": f"podMonitor/{metadata['namespace']}/{metadata['name']}/{number}",
            "metrics_path": endpoint.get("path", "/metrics"),
            "honor_labels": endpoint.get("honorLabels", False),
            "http_sd_configs": [{"url": pods_url, "refresh_interval": f"{SCRAPE_SECONDS}s"}],
            "relabel_configs": [
                *(
                    {"action": "keep", "source_labels": [_META + source], "regex": value}
                    for source, value in (keep | {"pod_container_port_name": endpoint["port"]}).items()
                ),
                *({"source_labels": [_META + source], "target_label": label} for source, label in labels.items()),
                *(
                    {_FIELDS.get(key, key): value for key, value in each.items()}
                    for each in endpoint.get("relabelings", ())
                ),
            ],
        }
        for number, endpoint in enumerate(spec["podMetricsEndpoints"])
    ]


def _word(key: str) -> str:
    """A label's key as Prometheus writes it."""
    return re.sub(r"[^a-zA-Z0-9_]", "_", key)
