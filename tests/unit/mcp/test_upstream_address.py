"""Which texts are base URLs."""

import argparse

import pytest

from ropewalk_mcp_upstream.address import base_url


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://prometheus.monitoring.svc:9090", "http://prometheus.monitoring.svc:9090"),
        ("https://metrics.example.com/prometheus/", "https://metrics.example.com/prometheus"),
        ("http://[2001:db8::1]:9090", "http://[2001:db8::1]:9090"),
    ],
)
def test_a_base_url_has_a_host_and_maybe_a_port_and_a_path(text: str, url: str) -> None:
    assert base_url(text) == url


@pytest.mark.parametrize(
    "text",
    [
        "",
        "prometheus:9090",
        "ftp://files.example",
        "http://",
        "http://a:99999",
        "http://a:0",
        "http://[broken",
        "http://a/?query=x",
        "http://a/#part",
        "http://a b/",
    ],
)
def test_anything_else_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(
        argparse.ArgumentTypeError, match="use http:// or https://, a host, and a port and path"
    ) as raised:
        base_url(text)
    assert repr(text) in str(raised.value)


def test_a_password_is_refused_and_not_repeated() -> None:
    with pytest.raises(argparse.ArgumentTypeError) as raised:
        base_url("http://user:hunter2@prometheus:9090")
    assert "hunter2" not in str(raised.value)
