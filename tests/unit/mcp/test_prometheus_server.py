"""The Prometheus server over the wire, against answers of the documented form and against what may come instead.

tests/integration/test_mcp_prometheus.py asks a real Prometheus.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import mcp
import pytest
from mcp_types import CallToolResult
from prometheus_client import CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from mcp_raw import answering, plain
from mcp_wire import served
from ropewalk_mcp_prometheus.api import LIMITS, PrometheusApi
from ropewalk_mcp_prometheus.server import PrometheusTools, prometheus_server
from ropewalk_mcp_upstream.client import Limits, Upstream

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
Json = dict[str, Any]


def success(data: object, **more: object) -> Json:
    return {"status": "success", "data": data, **more}


def vector(*samples: tuple[Json, str]) -> Json:
    return success({"resultType": "vector", "result": [{"metric": m, "value": [1769860800, v]} for m, v in samples]})


class Fake:
    """Answers by path; what it does not know it refuses as Prometheus does. Queries are kept as they came."""

    def __init__(self) -> None:
        self.answers: dict[str, Json | Response] = {"query": vector(({"__name__": "up", "job": "api"}, "1"))}
        self.by_query: dict[str, Json] = {}
        self.asked: list[tuple[str, Json]] = []
        self.headers: list[str | None] = []

    def app(self) -> Starlette:
        return Starlette(routes=[Route("/api/v1/{path:path}", self._answer)])

    async def _answer(self, request: Request) -> Response:
        path, query = request.path_params["path"], dict(request.query_params)
        self.asked.append((path, query))
        self.headers.append(request.headers.get("authorization"))
        answer = self.by_query.get(query.get("query", "")) or self.answers.get(path)
        if answer is None:
            return PlainTextResponse("404 page not found\n", 404)
        return answer if isinstance(answer, Response) else JSONResponse(answer)


@asynccontextmanager
async def asking(
    url: str, token_file: Path | None = None, limits: Limits = LIMITS, registry: CollectorRegistry | None = None
) -> AsyncIterator[str]:
    registry = registry or CollectorRegistry()
    upstream = Upstream("Prometheus", registry, trust_environment=False, limits=limits)
    tools = PrometheusTools(PrometheusApi(upstream, url, token_file), lambda: NOW)
    async with served(prometheus_server(tools, upstream, registry).app()) as address:
        yield f"{address}/mcp"


@pytest.fixture
def fake() -> Fake:
    return Fake()


@pytest.fixture
async def url(fake: Fake) -> AsyncIterator[str]:
    async with served(fake.app()) as prometheus, asking(prometheus) as address:
        yield address


async def called(url: str, tool: str, **arguments: object) -> CallToolResult:
    async with mcp.Client(url) as client:
        return await client.call_tool(tool, arguments)


async def told(url: str, tool: str, **arguments: object) -> tuple[str, Json]:
    answer = await called(url, tool, **arguments)
    assert answer.content[0].type == "text"
    assert not answer.is_error, answer.content[0].text
    assert answer.structured_content is not None
    return answer.content[0].text, answer.structured_content


async def refused(url: str, tool: str, **arguments: object) -> str:
    answer = await called(url, tool, **arguments)
    assert answer.content[0].type == "text"
    assert answer.is_error, answer.content[0].text
    return answer.content[0].text


async def test_the_tools_only_read_and_say_what_they_take(url: str) -> None:
    async with mcp.Client(url) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert list(tools) == ["query", "range_query", "list_metrics", "server_info"]
    for tool in tools.values():
        assert tool.annotations is not None
        assert (tool.annotations.read_only_hint, tool.annotations.idempotent_hint) == (True, True)
        assert tool.output_schema is not None
        assert "\n  " not in (tool.description or "")
    assert "PromQL" in tools["query"].input_schema["properties"]["query"]["description"]


async def test_a_query_is_asked_at_its_moment_and_told_with_labels(fake: Fake, url: str) -> None:
    text, data = await told(url, "query", query="up", time="now-1h")
    assert fake.asked == [("query", {"query": "up", "time": "1769857200.000", "limit": "10000"})]
    assert text == '1 series at 2026-01-31T11:00:00Z:\nup{job="api"} 1'
    assert data["samples"] == [{"labels": {"__name__": "up", "job": "api"}, "value": 1.0}]


async def test_a_range_is_asked_with_a_step_that_suits_it(fake: Fake, url: str) -> None:
    values = [[1769853600 + 60 * i, str(i)] for i in range(5)]
    fake.answers["query_range"] = success({"resultType": "matrix", "result": [{"metric": {}, "values": values}]})
    text, data = await told(url, "range_query", query="up", start="now-6h")
    [(path, asked)] = fake.asked
    assert path == "query_range"
    assert (asked["start"], asked["end"], asked["step"]) == ("1769839200.000", "1769860800.000", "600")
    assert data["step_seconds"] == 600
    assert data["series"][0]["latest"] == {"time": "2026-01-31T10:04:00Z", "value": 4.0}
    assert (
        "{} latest 4, first 0, min 0 at 2026-01-31T10:00:00Z, max 4 at 2026-01-31T10:04:00Z, avg 2 (5 points)" in text
    )


async def test_series_beyond_the_bound_are_counted(fake: Fake, url: str) -> None:
    fake.answers["query"] = vector(*(({"n": str(i)}, "1") for i in range(60)))
    text, data = await told(url, "query", query="up", max_series=2)
    assert (data["total"], data["left_out"], len(data["samples"])) == (60, 58, 2)
    assert "and 58 more series, not shown" in text


async def test_warnings_are_passed_on(fake: Fake, url: str) -> None:
    fake.answers["query"] = vector(({}, "1")) | {"warnings": ["results truncated due to limit"]}
    text, data = await told(url, "query", query="up")
    assert data["warnings"] == ["results truncated due to limit"]
    assert text.endswith("Prometheus remarks: results truncated due to limit")


@pytest.mark.parametrize(("status", "kind"), [(400, "bad_data"), (422, "execution")])
async def test_what_is_wrong_with_a_query_is_said_in_prometheus_own_words(
    fake: Fake, url: str, status: int, kind: str
) -> None:
    said = 'invalid parameter "query": 1:4: parse error: unclosed left parenthesis'
    fake.answers["query"] = JSONResponse({"status": "error", "errorType": kind, "error": said}, status)
    assert await refused(url, "query", query="sum(") == f"INVALID_INPUT: Prometheus says: {said}"


@pytest.mark.parametrize(
    ("tool", "arguments", "words"),
    [
        ("query", {}, "query is missing"),
        ("query", {"query": " "}, "query is empty"),
        ("query", {"query": "x" * 4_001}, "at most 4000 characters"),
        ("query", {"query": "up", "time": "yesterday"}, "time is 'yesterday'; use now, now-1h"),
        ("query", {"query": "up", "max_series": 0}, "greater than or equal to 1"),
        ("range_query", {"query": "up", "start": "now", "end": "now-1h"}, "is not before end"),
        ("range_query", {"query": "up", "end": "later"}, "end is 'later'"),
        ("range_query", {"query": "up", "step": "1s"}, "use 4s (at most 1000 points) or more"),
        ("range_query", {"query": "up", "step": "a while"}, "step is 'a while'; use a duration such as 30s"),
        ("list_metrics", {"limit": 501}, "less than or equal to 500"),
    ],
)
async def test_wrong_arguments_are_refused_before_prometheus_is_asked(
    fake: Fake, url: str, tool: str, arguments: Json, words: str
) -> None:
    said = await refused(url, tool, **arguments)
    assert said.startswith("INVALID_INPUT: ")
    assert words in said
    assert fake.asked == []


async def test_metrics_are_listed_with_what_they_mean(fake: Fake, url: str) -> None:
    fake.answers["label/__name__/values"] = success(["b_seconds_bucket", "b_seconds_sum", "a_memory_bytes", "odd"])
    fake.answers["metadata"] = success(
        {
            "a_memory_bytes": [{"type": "gauge", "help": "Memory.", "unit": ""}],
            "b_seconds": [{"type": "histogram", "help": "Time of a call.", "unit": ""}],
        }
    )
    text, data = await told(url, "list_metrics", limit=3)
    assert text.splitlines() == [
        "4 metrics:",
        "a_memory_bytes (gauge): Memory.",
        "b_seconds_bucket (histogram): Time of a call.",
        "b_seconds_sum (histogram): Time of a call.",
        "… and 1 more, not shown; raise limit, or narrow contains or job",
    ]
    assert (data["total"], data["left_out"]) == (4, 1)
    text, data = await told(url, "list_metrics", contains="MEMORY")
    assert [metric["name"] for metric in data["metrics"]] == ["a_memory_bytes"]


async def test_names_and_meanings_are_asked_for_at_once() -> None:
    async with answering(None) as prometheus, asking(prometheus.url, limits=Limits(deadline_seconds=0.5)) as url:
        assert (await refused(url, "list_metrics")).startswith("UPSTREAM_TIMEOUT: ")
    asked = {line.split()[1].partition("?")[0] for line in prometheus.requests}
    assert asked == {"/api/v1/label/__name__/values", "/api/v1/metadata"}


async def test_a_step_is_asked_for_to_the_second(fake: Fake, url: str) -> None:
    fake.answers["query_range"] = success({"resultType": "matrix", "result": []})
    await told(url, "range_query", query="up", start="now-10y", step="1700001s")
    assert float(fake.asked[0][1]["step"]) == 1_700_001


async def test_metrics_of_a_job_are_asked_for_by_its_name(fake: Fake, url: str) -> None:
    fake.answers["label/__name__/values"] = success([])
    fake.answers["metadata"] = success({})
    text, _ = await told(url, "list_metrics", job='a"b')
    assert ("label/__name__/values", {"match[]": '{job="a\\"b"}'}) in fake.asked
    assert text.startswith("No metric matches")


async def test_metrics_are_listed_without_their_meaning_where_that_is_not_kept(fake: Fake, url: str) -> None:
    fake.answers["label/__name__/values"] = success(["up"])
    text, data = await told(url, "list_metrics")
    assert text.splitlines()[:2] == ["1 metric:", "up"]
    assert "types and meanings are missing" in data["notes"][0]


def whole(fake: Fake) -> None:
    fake.answers |= {
        "status/buildinfo": success({"version": "3.8.0", "revision": "1"}),
        "status/runtimeinfo": success(
            {"startTime": "2026-01-31T11:00:00Z", "storageRetention": "15d", "reloadConfigSuccess": False}
        ),
        "status/tsdb": success({"headStats": {"numSeries": 4711}}),
    }
    fake.by_query = {
        "count by (job) (up)": vector(({"job": "api"}, "3"), ({"job": "db"}, "1")),
        "sum by (job) (up)": vector(({"job": "api"}, "3"), ({"job": "db"}, "0")),
        "count by (job, instance) (up == 0)": vector(({"job": "db", "instance": "10.0.0.3:80"}, "1")),
        'count by (alertname) (ALERTS{alertstate="firing"})': vector(({"alertname": "TooSlow"}, "2")),
    }


async def test_the_server_tells_of_itself_its_targets_and_its_alerts(fake: Fake, url: str) -> None:
    whole(fake)
    text, data = await told(url, "server_info")
    assert text.splitlines() == [
        "Prometheus 3.8.0",
        "started: 2026-01-31T11:00:00Z; keeps samples: 15d; series in memory: 4711",
        "The last reload of its settings FAILED; it runs with the settings before",
        "Targets: 3 up, 1 down, in 2 jobs",
        "  db: 0 up, 1 down",
        "  api: 3 up, 0 down",
        "Down: db/10.0.0.3:80",
        "Alerts that fire: TooSlow",
    ]
    assert data["jobs"][0] == {"job": "db", "up": 0, "down": 1}
    assert "notes" not in data


async def test_targets_are_counted_in_all_jobs_also_in_those_that_are_not_shown(fake: Fake, url: str) -> None:
    whole(fake)
    jobs = vector(*(({"job": f"job-{number}"}, "2") for number in range(60)))
    fake.by_query |= {"count by (job) (up)": jobs, "sum by (job) (up)": jobs}
    text, data = await told(url, "server_info")
    assert "Targets: 120 up, 0 down, in 60 jobs, of which 50 are shown" in text
    assert (data["targets_up"], data["jobs_left_out"]) == (120, 10)


async def test_a_server_of_the_same_api_that_has_not_every_question_tells_the_rest(fake: Fake, url: str) -> None:
    whole(fake)
    del fake.answers["status/runtimeinfo"], fake.answers["status/tsdb"]
    text, data = await told(url, "server_info")
    assert data["version"] == "3.8.0"
    assert data["notes"] == ["runtimeinfo cannot be asked of this server", "tsdb cannot be asked of this server"]
    assert "Targets: 3 up" in text


async def test_a_base_url_that_leads_elsewhere_is_told_from_a_server_with_few_questions(fake: Fake, url: str) -> None:
    fake.answers = {}
    for tool, arguments in (("server_info", {}), ("query", {"query": "up"}), ("list_metrics", {})):
        assert (await refused(url, tool, **arguments)).startswith("NOT_FOUND: ")


async def test_the_token_is_read_from_its_file_for_each_request(fake: Fake, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first\n")
    async with served(fake.app()) as prometheus, asking(prometheus, file) as url:
        await told(url, "query", query="up")
        file.write_text("second")
        await told(url, "query", query="up")
    assert fake.headers == ["Bearer first", "Bearer second"]


@pytest.mark.parametrize("content", [None, "", "\n", "a\nb", "naïve"])
async def test_a_token_file_that_holds_none_is_named_and_nothing_is_asked(
    fake: Fake, tmp_path: Path, content: str | None
) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_text(content)
    async with served(fake.app()) as prometheus, asking(prometheus, file) as url:
        said = await refused(url, "query", query="up")
    assert said == f"FORBIDDEN: no bearer token can be read from {file}; mount a Secret there that holds one"
    assert fake.asked == []


@pytest.mark.parametrize("status", [401, 403])
async def test_credentials_that_are_missing_or_wrong_are_forbidden(fake: Fake, tmp_path: Path, status: int) -> None:
    fake.answers["query"] = PlainTextResponse("Unauthorized", status)
    file = tmp_path / "token"
    file.write_text("stale")
    async with served(fake.app()) as prometheus, asking(prometheus) as bare, asking(prometheus, file) as armed:
        said = await refused(bare, "query", query="up")
        assert said.startswith(
            f"FORBIDDEN: Prometheus does not answer without a bearer token (HTTP status {status}); set"
        )
        said = await refused(armed, "query", query="up")
    assert said.startswith("FORBIDDEN: Prometheus does not accept the bearer token")
    assert "stale" not in said


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (plain("down", "503 Service Unavailable"), "UPSTREAM_UNAVAILABLE: Prometheus answered with status 503"),
        (plain("", "429 Too Many Requests"), "RATE_LIMITED: Prometheus asks for fewer requests"),
        (plain("<html>Grafana</html>"), "UPSTREAM_INVALID: Prometheus answered with status 200 without"),
        (plain("[]"), "UPSTREAM_INVALID: "),
        (plain('{"status": "success"}'), "UPSTREAM_INVALID: "),
        (plain('{"status": "success", "data": null}'), "UPSTREAM_INVALID: "),
        (plain(json.dumps(success({"resultType": "vector", "result": 7}))), "UPSTREAM_INVALID: "),
        (plain(json.dumps(success({"resultType": "vector", "result": [{}]}))), "UPSTREAM_INVALID: "),
        (plain(json.dumps(success({"resultType": "table", "result": []}))), "UPSTREAM_INVALID: "),
        (plain(json.dumps(success({"resultType": "scalar", "result": [1, "x"]}))), "UPSTREAM_INVALID: "),
        (plain("x" * 9 * 2**20), "UPSTREAM_INVALID: Prometheus answered with more than 8388608 bytes"),
        (b"", "UPSTREAM_UNAVAILABLE: "),
    ],
)
@pytest.mark.parametrize("tool", ["query", "list_metrics", "server_info"])
async def test_whatever_comes_instead_of_an_answer_has_a_code(answer: bytes, code: str, tool: str) -> None:
    async with answering(answer) as prometheus, asking(prometheus.url) as url:
        said = await refused(url, tool, **({"query": "a_secret_name"} if tool == "query" else {}))
    assert said.startswith(code.partition(":")[0])
    assert tool != "query" or said.startswith(code)
    assert "secret" not in said


async def test_a_query_that_takes_too_long_is_given_up_with_what_makes_it_shorter() -> None:
    async with answering(None) as prometheus, asking(prometheus.url, limits=Limits(deadline_seconds=0.1)) as url:
        said = await refused(url, "query", query="up")
        assert said.startswith("UPSTREAM_TIMEOUT: Prometheus did not answer within 0.1 s")
        assert "ask for less: a shorter range" in said
        # Prometheus ends a query whose asker has gone.
        await prometheus.gone.wait()


async def test_metrics_have_no_word_of_a_query(fake: Fake) -> None:
    registry = CollectorRegistry()
    async with served(fake.app()) as prometheus, asking(prometheus, registry=registry) as url:
        await told(url, "query", query="secretword")
    exposed = generate_latest(registry).decode()
    assert 'ropewalk_mcp_upstream_requests_total{outcome="ok",upstream="Prometheus"} 1.0' in exposed
    assert 'ropewalk_mcp_tool_calls_total{outcome="ok",tool="query"} 1.0' in exposed
    assert "secretword" not in exposed
