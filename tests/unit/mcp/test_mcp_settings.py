"""The settings of the servers for Kubernetes, Prometheus and the web: what is wrong is named before it serves."""

import sys

import pytest

from ropewalk_mcp_kubernetes.__main__ import main as kubernetes
from ropewalk_mcp_kubernetes.__main__ import namespaces
from ropewalk_mcp_prometheus.__main__ import main as prometheus
from ropewalk_mcp_websearch.__main__ import main as websearch


@pytest.fixture(autouse=True)
def no_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["ropewalk-mcp"])


def test_a_prometheus_server_without_a_prometheus_says_what_to_set(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        prometheus()
    assert ended.value.code == 2
    assert "ROPEWALK_PROMETHEUS_URL is not set; set it, or --base-url, to where" in capsys.readouterr().err


def test_a_wrong_url_is_named_with_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for main, variable in ((prometheus, "ROPEWALK_PROMETHEUS_URL"), (websearch, "ROPEWALK_SEARCH_URL")):
        monkeypatch.setenv(variable, "prometheus:9090")
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 2
        assert "'prometheus:9090' is no base URL; use http:// or https://" in capsys.readouterr().err


@pytest.mark.parametrize(("text", "names"), [("", ()), ("shop", ("shop",)), (" shop, blog ,shop,", ("shop", "blog"))])
def test_namespaces_are_names_with_commas_between(text: str, names: tuple[str, ...]) -> None:
    assert namespaces(text) == names


@pytest.mark.parametrize("text", ["Shop", "shop blog", "shop,../x", ",".join(f"n{number}" for number in range(21))])
def test_wrong_namespaces_are_named_with_what_is_allowed(
    text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ROPEWALK_NAMESPACES", text)
    with pytest.raises(SystemExit) as ended:
        kubernetes()
    assert ended.value.code == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "ROPEWALK_NAMESPACES is" in said
    assert "use at most 20 names of namespaces, such as web,shop" in said


@pytest.mark.parametrize(
    ("main", "options"),
    [
        (kubernetes, ["--namespaces", "ROPEWALK_NAMESPACES", "--allow-delete", "--port", "--stdio"]),
        (
            prometheus,
            ["--base-url", "ROPEWALK_PROMETHEUS_URL", "--bearer-token-file", "ROPEWALK_PROMETHEUS_TOKEN_FILE"],
        ),
        (websearch, ["--base-url", "ROPEWALK_SEARCH_URL", "https://html.duckduckgo.com"]),
    ],
)
def test_help_names_the_options_and_their_variables(
    main: object, options: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["ropewalk-mcp", "--help"])
    monkeypatch.setenv("COLUMNS", "300")
    assert callable(main)
    with pytest.raises(SystemExit):
        main()
    said = capsys.readouterr().out
    assert all(option in said for option in options)
