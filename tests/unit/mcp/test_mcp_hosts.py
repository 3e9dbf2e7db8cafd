"""By which names a server may be called."""

import httpx
import pytest
from prometheus_client import CollectorRegistry

from mcp_wire import served
from ropewalk_mcp_math.server import math_server
from ropewalk_mcp_process.hosts import own_names

NAMES = "math-mcp,math-mcp.shop,math-mcp.shop.svc,math-mcp.shop.svc.cluster.local"
POD = {"ROPEWALK_MCP_ALLOWED_HOSTS": NAMES, "ROPEWALK_POD_IP": "10.1.2.3"}


@pytest.mark.parametrize(
    "host",
    [
        "math-mcp",
        "math-mcp:8000",
        "Math-MCP.shop:80",
        "math-mcp.shop.svc.cluster.local:31000",
        "10.1.2.3:8000",
        "localhost:8000",
        "127.0.0.1",
        "[::1]:8000",
    ],
)
def test_a_server_answers_to_its_own_names_with_any_port(host: str) -> None:
    assert own_names(POD).refusal(host, "") is None
    assert own_names(POD).refusal(host, f"https://{host}") is None


@pytest.mark.parametrize(
    "host", ["evil.test", "math-mcp.evil.test", "evil.test:8000", "10.1.2.4", "", "[::1", "a@evil.test", "x/math-mcp"]
)
def test_another_name_is_refused_with_those_that_are_right(host: str) -> None:
    refused = own_names(POD).refusal(host, "")
    assert refused is not None
    assert refused[0] == 421
    assert repr(host) in refused[1]
    assert NAMES in refused[1]


@pytest.mark.parametrize("origin", ["https://evil.test", "null", "http://math-mcp.evil.test:8000", "math-mcp"])
def test_a_page_of_somebody_else_is_refused(origin: str) -> None:
    refused = own_names(POD).refusal("math-mcp", origin)
    assert refused is not None
    assert refused[0] == 403
    assert repr(origin) in refused[1]


def test_an_address_of_the_sixth_version_is_a_name_of_its_pod() -> None:
    assert own_names(POD | {"ROPEWALK_POD_IP": "fd00::7"}).refusal("[fd00::7]:8000", "") is None


def test_without_the_pods_address_an_empty_host_is_no_name() -> None:
    names = own_names({"ROPEWALK_MCP_ALLOWED_HOSTS": "math-mcp,", "ROPEWALK_POD_IP": ""})
    assert names.refusal("", "") is not None


def test_hosts_are_not_checked_where_a_server_is_run_by_hand() -> None:
    assert own_names({}).refusal("anything.test", "https://page.test") is None


@pytest.mark.parametrize("version", ["2025-11-25", "2026-07-28"])
async def test_only_the_mcp_path_is_closed_to_other_names(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    for name, value in POD.items():
        monkeypatch.setenv(name, value)
    ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    asks = {"accept": "application/json, text/event-stream", "mcp-protocol-version": version}
    async with served(math_server(CollectorRegistry()).app()) as url, httpx.AsyncClient(base_url=url) as http:
        for path in ("/health", "/metrics"):
            assert (await http.get(path, headers={"host": "evil.test"})).status_code == 200
        for more, status in (
            ({"host": "evil.test"}, 421),
            ({"origin": "https://evil.test"}, 403),
            ({"host": "math-mcp.shop"}, None),
        ):
            answer = await http.post("/mcp", json=ping, headers=asks | more)
            assert (answer.status_code == status) if status else (answer.status_code not in (421, 403))
