"""Prometheus, Alertmanager and what tells them of the pods: three processes beside the local cluster."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import httpx
import yaml

from cluster import layout as where
from cluster import tools
from cluster.console import Failure, say, step
from cluster.layout import Layout
from cluster.processes import Process, stop_all, wait_until
from observe import discovery
from observe.scrape import Json, configuration

PROMETHEUS, ALERTMANAGER = "127.0.0.1:19090", "127.0.0.1:19093"
_PODS_PORT = 19094
_CHART = where.REPOSITORY / "charts" / "ropewalk"
# The demo model costs nothing. With a price, the panels about cost have something to show.
_PRICES = {"ropewalk-demo": {"input": 0.25, "output": 1.25}}
# Nobody is told: whoever looks at the Alertmanager sees what it has.
_ALERTMANAGER = {
    "route": {"receiver": "nobody", "group_by": ["alertname", "namespace"]},
    "receivers": [{"name": "nobody"}],
}


def up(here: Layout) -> None:
    """Start what does not run, and give what runs the rules and the PodMonitors of the checkout. Raises Failure."""
    if not here.kubeconfig.exists():
        raise Failure("there is no local cluster to look at: `make demo` brings one up, with agents in it.")
    tools.unpack(here, *tools.DEBIAN)
    with step("Writing the configuration from the chart's PodMonitors and rules"):
        write(here.observe, _rendered(here))
    with step("Starting Prometheus and Alertmanager", expected="3 seconds"):
        _start(here)
        wait_until(lambda: _answers(f"http://{PROMETHEUS}/-/reload", "POST"), "Prometheus", seconds=30,
                   watched=_process(here, "prometheus"))  # fmt: skip
        wait_until(lambda: _answers(f"http://{ALERTMANAGER}/-/ready"), "Alertmanager", seconds=30,
                   watched=_process(here, "alertmanager"))  # fmt: skip
    say(_where_to_look())


def is_up(here: Layout) -> bool:
    """Whether its Prometheus runs."""
    return _process(here, "prometheus").pid is not None


def down(here: Layout) -> None:
    """End the processes; what they have stored goes with the cluster."""
    stop_all(here.observe)


def write(folder: Path, objects: list[Json]) -> None:
    """The configurations of both, made of the chart's objects."""
    rules = folder / "rules"
    rules.mkdir(parents=True, exist_ok=True)
    for old in rules.iterdir():
        old.unlink()
    for each in objects:
        if each["kind"] == "PrometheusRule":
            file = rules / f"{each['metadata']['namespace']}-{each['metadata']['name']}.yml"
            file.write_text(yaml.safe_dump(each["spec"], sort_keys=False))
    monitors = [each for each in objects if each["kind"] == "PodMonitor"]
    pods_url = f"http://127.0.0.1:{_PODS_PORT}{discovery.PATH}"
    config = configuration(monitors, pods_url=pods_url, alertmanager=ALERTMANAGER, rules=[f"{rules}/*.yml"])
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config, sort_keys=False))
    (folder / "alertmanager.yml").write_text(yaml.safe_dump(_ALERTMANAGER))


def tell_of_pods(here: Layout) -> None:
    """Serve the pods of the cluster to Prometheus, until the process ends."""

    def pods() -> list[Json]:
        command: list[str | Path] = [
            here.bin / "kubectl",
            f"--kubeconfig={here.kubeconfig}",
            "get",
            "pods",
            "-A",
            "-o",
            "json",
        ]
        return list(json.loads(_said(command))["items"])

    discovery.serve(_PODS_PORT, pods)


def _start(here: Layout) -> None:
    folder = here.observe
    _process(here, "pods").start(
        [sys.executable, "-m", "observe", "pods"], environment={"PYTHONPATH": str(where.REPOSITORY / "dev")}
    )
    # Debian's Alertmanager reads its templates from /usr/share and nowhere else. It is unpacked, not installed, so it
    # gets a /usr/share of its own with them in it; the mount ends with the process.
    with_templates = f'mount -t overlay overlay -o "lowerdir={here.cache}/share:/usr/share" /usr/share && exec "$@"'
    _process(here, "alertmanager").start(
        ["unshare", "--mount", "sh", "-c", with_templates, "sh",
         here.bin / "prometheus-alertmanager", f"--config.file={folder}/alertmanager.yml",
         f"--storage.path={folder}/alertmanager", f"--web.listen-address={ALERTMANAGER}", "--cluster.listen-address="]
    )  # fmt: skip
    _process(here, "prometheus").start(
        [here.bin / "prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
         "--storage.tsdb.retention.time=2d", f"--web.listen-address={PROMETHEUS}", "--web.enable-lifecycle",
         "--enable-feature=exemplar-storage", "--log.level=warn"]
    )  # fmt: skip


def seen(values: Json) -> Json:
    """Values of the chart for a release with these: what its scrapes and rules depend on, and both of them made.

    The release may be of another version: what only that one knows would be refused.
    """
    monitoring = values.get("monitoring") or {}
    made: Json = {
        "podMonitor": {"enabled": True},
        "alerts": {**(monitoring.get("alerts") or {}), "enabled": True},
        "prices": monitoring.get("prices") or _PRICES,
    }
    return {key: values[key] for key in ("fullnameOverride", "watchNamespaces") if values.get(key)} | {
        "monitoring": made
    }


def _rendered(here: Layout) -> list[Json]:
    """The chart's objects for each release that is installed, or for one as `make demo` would install it."""
    helm: list[str | Path] = [here.bin / "helm", f"--kubeconfig={here.kubeconfig}"]
    listed = json.loads(_said([*helm, "list", "--all-namespaces", "--output=json"]))
    releases: list[tuple[str, str, Json]] = [
        (
            each["name"],
            each["namespace"],
            json.loads(_said([*helm, "get", "values", each["name"], f"--namespace={each['namespace']}", "-o=json"])),
        )
        for each in listed
        if each["chart"].startswith("ropewalk-")
    ]
    return [
        body
        for name, namespace, values in releases or [("ropewalk", "ropewalk-system", {})]
        for body in _templates(here, name, namespace, seen(values or {}))
    ]


def _templates(here: Layout, name: str, namespace: str, values: Json) -> list[Json]:
    told = [f"--set-json={key}={json.dumps(value)}" for key, value in values.items()]
    command: list[str | Path] = [
        here.bin / "helm", "template", name, _CHART, "--namespace", namespace,
        "--kube-version", where.KUBERNETES_VERSION, *told,
    ]  # fmt: skip
    return [each for each in yaml.safe_load_all(_said(command)) if each]


def _said(command: list[str | Path]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failure(f"{' '.join(Path(word).name for word in command[:4])} … failed:\n{done.stderr.strip()}")
    return done.stdout


def _answers(url: str, method: str = "GET") -> bool:
    try:
        return httpx.request(method, url).is_success
    except httpx.TransportError:
        return False


def _process(here: Layout, name: str) -> Process:
    return Process(name, here.observe)


def _where_to_look() -> str:
    return f"""Prometheus scrapes the operator, all agents and MCP servers of the local cluster every few seconds:
    make observe-panels                          every panel of every dashboard in figures, and the alerts
    http://{PROMETHEUS}/api/v1/targets      what is scraped, and whether it answers
    http://{PROMETHEUS}/api/v1/query?query=up
    http://{ALERTMANAGER}/api/v2/alerts       what the Alertmanager would tell somebody
    docs/runbooks                                a page for each alert
Debian's Prometheus has its pages in files that only an installed package has; the addresses here answer with JSON.
Agents show in it once they were asked something: `make demo` asks two. `make observe-down` ends it, and so does
`make cluster-down`."""
