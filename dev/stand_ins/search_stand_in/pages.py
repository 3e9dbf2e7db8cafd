"""The few pages that the stand-in knows, and the search among them. Pure."""

import re
from dataclasses import dataclass

_WORD = re.compile(r"[a-z0-9]+")


@dataclass(frozen=True)
class Page:
    """A page of the web: its address, its title, and what it is about."""

    url: str
    title: str
    words: str


PAGES = (
    Page(
        "https://kubernetes.io/docs/tasks/debug/debug-application/debug-pods/",
        "Debug Pods | Kubernetes",
        "What to look at when a Pod stays pending, waits, crashes in a loop (CrashLoopBackOff) or is not healthy.",
    ),
    Page(
        "https://kubernetes.io/docs/concepts/containers/images/#imagepullbackoff",
        "Images: ImagePullBackOff | Kubernetes",
        "ImagePullBackOff means that a container could not start because its image could not be pulled: a wrong name, "
        "a missing tag or a registry that wants credentials.",
    ),
    Page(
        "https://kubernetes.io/docs/concepts/architecture/",
        "Cluster Architecture | Kubernetes",
        "The parts of a cluster: API server, etcd, scheduler and controller manager, kubelet and kube-proxy.",
    ),
    Page(
        "https://kubernetes.io/docs/reference/command-line-tools-reference/kube-apiserver/",
        "kube-apiserver | Kubernetes",
        "The options of the Kubernetes API server, which checks and stores the objects of the cluster.",
    ),
    Page(
        "https://kubernetes.io/docs/tasks/configure-pod-container/assign-memory-resource/",
        "Assign Memory Resources to Containers and Pods | Kubernetes",
        "Requests and limits of memory, and what happens to a container that needs more: OOMKilled.",
    ),
    Page(
        "https://prometheus.io/docs/prometheus/latest/querying/basics/",
        "Querying basics | Prometheus",
        "PromQL, the query language of Prometheus: selectors, ranges, offsets, and what slows a query down.",
    ),
    Page(
        "https://prometheus.io/docs/practices/alerting/",
        "Alerting | Prometheus",
        "What is worth an alert: symptoms rather than causes, few alerts, and a page to look at for each.",
    ),
    Page(
        "https://coredns.io/plugins/errors/",
        "errors | CoreDNS",
        "The plugin of CoreDNS that logs errors of queries, and can gather those that repeat into one line.",
    ),
    Page(
        "https://modelcontextprotocol.io/docs/getting-started/intro",
        "What is the Model Context Protocol (MCP)?",
        "MCP connects AI applications to the tools, data and workflows of other systems through servers.",
    ),
    Page(
        "https://open-meteo.com/en/docs",
        "Weather Forecast API | Open-Meteo",
        "Hourly and daily weather for any place: temperature, rain, wind, soil and more, in one request.",
    ),
)


def found(query: str) -> list[Page]:
    """Return the pages that have words of the query, those with the most of them first."""
    asked = set(_WORD.findall(query.lower()))
    scores = {page: len(asked & set(_WORD.findall(f"{page.title} {page.words}".lower()))) for page in PAGES}
    return sorted((page for page in PAGES if scores[page]), key=lambda page: -scores[page])
