"""TLS to an MCP server: whom the agent trusts, and what it says of a server that it does not trust."""

import asyncio
from pathlib import Path

import pytest

from agent_mcp import Rogue, connected_to
from mcp_wire import served
from private_ca import PrivateCa
from ropewalk_agent.tools import mcp
from waiting import eventually


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcp, "_FIRST_RETRY_SECONDS", 0.02)
    monkeypatch.setattr(mcp, "_LONGEST_RETRY_SECONDS", 0.05)


async def why_not(url: str, ca_bundle: str | None) -> str:
    """Return the error of a connection that must not come about."""
    async with connected_to(url, wait=False, caBundle=ca_bundle) as connection:
        await eventually(lambda: connection.status.last_error is not None)
        assert connection.status.state == "connecting"
        return str(connection.status.last_error)


async def test_a_server_of_a_private_authority_is_trusted_by_its_bundle(tmp_path: Path) -> None:
    authority = PrivateCa()
    async with (
        served(Rogue(), **authority.server(tmp_path)) as base,
        connected_to(f"{base}/mcp", caBundle=PrivateCa("another").pem + authority.pem) as connection,
    ):
        assert connection.status.tools == ("add", "read")


async def test_a_servers_own_certificate_is_trusted_where_the_bundle_holds_it(tmp_path: Path) -> None:
    options = PrivateCa().server(tmp_path)
    own = await asyncio.to_thread(Path(options["ssl_certfile"]).read_text)
    async with (
        served(Rogue(), **options) as base,
        connected_to(f"{base}/mcp", caBundle=own) as connection,
    ):
        assert connection.status.state == "connected"


async def test_without_a_bundle_a_private_authority_is_not_trusted_and_the_way_out_is_told(tmp_path: Path) -> None:
    rogue = Rogue()
    async with served(rogue, **PrivateCa().server(tmp_path)) as base:
        said = await why_not(f"{base}/mcp", None)
    assert said.startswith("its TLS certificate is not accepted: unable to get local issuer certificate")
    assert said.endswith("put that one's certificate into the MCPServer's caBundle")
    assert rogue.asked == []


async def test_a_bundle_of_another_authority_does_not_help(tmp_path: Path) -> None:
    async with served(Rogue(), **PrivateCa().server(tmp_path)) as base:
        said = await why_not(f"{base}/mcp", PrivateCa("another").pem)
    assert said.endswith("the MCPServer's caBundle has none that vouches for it")


async def test_a_certificate_for_another_host_is_not_accepted_although_its_authority_is(tmp_path: Path) -> None:
    authority = PrivateCa()
    async with served(Rogue(), **authority.server(tmp_path, address="192.0.2.1")) as base:
        said = await why_not(f"{base}/mcp", authority.pem)
    assert said.startswith("its TLS certificate is not accepted: IP address mismatch")
    assert "caBundle" not in said


async def test_a_certificate_that_has_ended_is_not_accepted(tmp_path: Path) -> None:
    authority = PrivateCa()
    async with served(Rogue(), **authority.server(tmp_path, days=-1)) as base:
        said = await why_not(f"{base}/mcp", authority.pem)
    assert said == "its TLS certificate is not accepted: certificate has expired"


async def test_https_to_a_port_without_tls_is_told_in_words() -> None:
    async with served(Rogue()) as base:
        said = await why_not(base.replace("http", "https") + "/mcp", None)
    assert said.startswith("there is no TLS at its address (")
    assert said.endswith("https may be wrong for this port")


@pytest.mark.parametrize(
    "bundle", ["", "no certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"]
)
async def test_a_bundle_without_a_certificate_is_named(bundle: str) -> None:
    said = await why_not("https://127.0.0.1:9/mcp", bundle)
    assert said == "caBundle holds no certificate that can be read; it must be PEM text"
