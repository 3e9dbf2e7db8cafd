"""The MCP server for Prometheus and a real Prometheus that watches itself: what is told is what Prometheus says."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import mcp
import pytest

from cluster.layout import REPOSITORY, Layout
from ports import free_port
from waiting import until

Json = dict[str, Any]
_CONFIG = {
    "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
    "rule_files": ["rules.yml"],
    "scrape_configs": [
        {"job_name": "itself", "static_configs": [{"targets": ["127.0.0.1:PORT"]}]},
        {"job_name": "nobody", "static_configs": [{"targets": ["127.0.0.1:1"]}]},
    ],
}
_RULES = {"groups": [{"name": "g", "rules": [{"alert": "SomethingIsDown", "expr": "up == 0"}]}]}


def _until(look: Callable[[], bool], what: str, process: subprocess.Popen[bytes]) -> None:
    def watched() -> bool:
        if process.poll() is not None:
            raise RuntimeError(f"ended with {process.returncode} before {what}")
        return look()

    until(watched, what)


@contextmanager
def _running(*command: str | Path, **more: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, env={**os.environ, **more})
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prometheus that has seen itself for some seconds, and an alert that fires."""
    folder, port = tmp_path_factory.mktemp("prometheus"), free_port()
    (folder / "prometheus.yml").write_text(json.dumps(_CONFIG).replace("PORT", str(port)))
    (folder / "rules.yml").write_text(json.dumps(_RULES))
    url = f"http://127.0.0.1:{port}"
    with _running(Layout.default().bin / "prometheus", f"--config.file={folder}/prometheus.yml",
                  f"--storage.tsdb.path={folder}/data", f"--web.listen-address=127.0.0.1:{port}",
                  "--log.level=warn") as process:  # fmt: skip
        wanted = 'count_over_time(process_resident_memory_bytes[1m]) >= 3 and on() ALERTS{alertstate="firing"}'
        _until(lambda: bool(_asked(url, "query", query=wanted)["result"]), "an alert fires", process)
        yield url


@pytest.fixture(scope="module")
def url(prometheus: str) -> Iterator[str]:
    with _server(ROPEWALK_PROMETHEUS_URL=prometheus) as address:
        yield address


@contextmanager
def _server(**settings: str) -> Iterator[str]:
    """The MCP server, in the environment that the MCP servers have."""
    port, python = free_port(), REPOSITORY / ".venv-mcp/bin/python"
    settings["PYTHONPATH"] = str(REPOSITORY / "mcp_images")
    with _running(python, "-m", "ropewalk_mcp_prometheus", f"--port={port}", **settings) as process:
        _until(lambda: httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200, "it serves", process)
        yield f"http://127.0.0.1:{port}/mcp"


def _asked(prometheus: str, path: str, **query: str) -> Json:
    """What Prometheus itself says."""
    answer = httpx.get(f"{prometheus}/api/v1/{path}", params=query, timeout=60)
    # Until it has read its own files it says 503, in plain text.
    return dict(answer.raise_for_status().json()["data"])


def _refused(prometheus: str, path: str, **query: str) -> str:
    return str(httpx.get(f"{prometheus}/api/v1/{path}", params=query, timeout=60).json()["error"])


async def _called(url: str, tool: str, **arguments: object) -> tuple[str, Json]:
    async with mcp.Client(url) as client:
        answer = await client.call_tool(tool, arguments)
    assert answer.content[0].type == "text"
    assert answer.is_error is not True, answer.content[0].text
    return answer.content[0].text, dict(answer.structured_content or {})


def _moment(prometheus: str) -> float:
    """When Prometheus has last looked at itself: what it has seen up to then, changes no more."""
    [latest] = _asked(prometheus, "query", query='timestamp(up{job="itself"})')["result"]
    return float(latest["value"][1])


async def test_a_value_is_the_one_that_prometheus_gives_for_that_moment(prometheus: str, url: str) -> None:
    query, moment = "process_resident_memory_bytes", f"{_moment(prometheus):.3f}"
    [expected] = _asked(prometheus, "query", query=query, time=moment)["result"]
    text, data = await _called(url, "query", query=query, time=moment)
    assert data["samples"] == [{"labels": expected["metric"], "value": float(expected["value"][1])}]
    assert f" {expected['value'][1]}" in text


async def test_the_figures_of_a_range_are_those_of_its_points(prometheus: str, url: str) -> None:
    query, end = "process_cpu_seconds_total", _moment(prometheus)
    asked = {"query": query, "start": f"{end - 30:.3f}", "end": f"{end:.3f}", "step": "1"}
    [expected] = _asked(prometheus, "query_range", **asked)["result"]
    values = [float(value) for _, value in expected["values"]]
    _, data = await _called(url, "range_query", **{**asked, "step": "1s"})
    [series] = data["series"]
    figures = [series["points"], series["first"]["value"], series["latest"]["value"], series["min"]["value"]]
    assert figures == [len(values), values[0], values[-1], min(values)]
    assert series["max"]["value"] == max(values)
    assert series["avg"] == pytest.approx(sum(values) / len(values))


@pytest.mark.parametrize(("tool", "path"), [("query", "query"), ("range_query", "query_range")])
@pytest.mark.parametrize("query", ["sum(up", "up{job=~'('}", "nosuch(up)", "rate(up)", "up * on(nosuch) up"])
async def test_a_wrong_query_is_refused_in_the_words_of_prometheus(
    prometheus: str, url: str, query: str, tool: str, path: str
) -> None:
    now = f"{time.time():.3f}"
    expected = _refused(prometheus, path, query=query, start=now, end=now, step="15")
    async with mcp.Client(url) as client:
        answer = await client.call_tool(tool, {"query": query})
    assert answer.is_error
    assert answer.content[0].type == "text"
    assert answer.content[0].text == f"INVALID_INPUT: Prometheus says: {' '.join(expected.split())}"


@pytest.mark.parametrize(
    ("query", "value"),
    [("vector(0) / 0", "NaN"), ("vector(1) / 0", "+Inf"), ("vector(-1) / 0", "-Inf"), ("2 ^ 3", 8.0)],
)
async def test_values_that_json_has_no_word_for_arrive(url: str, query: str, value: object) -> None:
    _, data = await _called(url, "query", query=query)
    assert data["samples"] == [{"labels": {}, "value": value}]


async def test_strings_and_ranges_of_an_instant_query_arrive(url: str) -> None:
    text, _ = await _called(url, "query", query='"hello"')
    assert text == "The string 'hello'"
    _, data = await _called(url, "query", query='up{job="itself"}[1m]')
    assert data["series"][0]["latest"]["value"] == 1.0


async def test_what_matches_too_much_is_bounded_and_counted(prometheus: str, url: str) -> None:
    moment = f"{_moment(prometheus):.3f}"
    everything = _asked(prometheus, "query", query='count({job="itself"})', time=moment)["result"][0]["value"][1]
    text, data = await _called(url, "query", query='{job="itself"}', time=moment, max_series=5)
    assert (data["total"], len(data["samples"]), data["left_out"]) == (int(everything), 5, int(everything) - 5)
    assert f"and {data['left_out']} more series, not shown" in text


async def test_metrics_are_listed_with_type_and_meaning(url: str) -> None:
    text, data = await _called(url, "list_metrics", contains="resident_memory", job="itself")
    assert text.splitlines() == ["1 metric:", "process_resident_memory_bytes (gauge): Resident memory size in bytes."]
    _, data = await _called(url, "list_metrics", contains="http_request_duration_seconds_bucket")
    assert data["metrics"][0]["type"] == "histogram"


async def test_the_server_tells_its_version_its_targets_and_its_alerts(prometheus: str, url: str) -> None:
    version = _asked(prometheus, "status/buildinfo")["version"]
    text, data = await _called(url, "server_info")
    assert data["version"] == version
    assert data["jobs"] == [{"job": "nobody", "up": 0, "down": 1}, {"job": "itself", "up": 1, "down": 0}]
    assert data["down"] == ["nobody/127.0.0.1:1"]
    assert data["alerts"] == ["SomethingIsDown"]
    assert data["series"] > 100
    assert text.startswith(f"Prometheus {version}\nstarted: ")


def _make_certificate(folder: Path) -> None:
    """Write cert.pem and key.pem of localhost, which vouches for itself."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem", "-out", "cert.pem",
         "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip


async def test_a_prometheus_with_a_certificate_of_its_own_authority_is_reached_by_ssl_cert_file(tmp_path: Path) -> None:
    _make_certificate(tmp_path)
    port, trust = free_port(), ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))
    url = f"https://localhost:{port}"
    (tmp_path / "prometheus.yml").write_text("{}")
    (tmp_path / "web.yml").write_text(
        json.dumps({"tls_server_config": {"cert_file": "cert.pem", "key_file": "key.pem"}})
    )
    with _running(Layout.default().bin / "prometheus", f"--config.file={tmp_path}/prometheus.yml",
                  f"--storage.tsdb.path={tmp_path}/data", f"--web.listen-address=127.0.0.1:{port}",
                  f"--web.config.file={tmp_path}/web.yml", "--log.level=warn") as process:  # fmt: skip
        _until(lambda: httpx.get(f"{url}/-/ready", verify=trust).status_code == 200, "it is ready", process)
        with _server(ROPEWALK_PROMETHEUS_URL=url, SSL_CERT_FILE=str(tmp_path / "cert.pem")) as server:
            assert (await _called(server, "query", query="2 ^ 3"))[1]["samples"][0]["value"] == 8.0
