"""What the local cluster decides without touching the machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cluster import __main__ as cli
from cluster import images, machine, pki, tools
from cluster import layout as where
from cluster.console import Failure
from cluster.layout import Layout
from cluster.processes import Process, wait_until
from cluster.tools import TOOLS


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with the sources of two images."""
    for image in images.IMAGES:
        (tmp_path / image.context).mkdir(parents=True, exist_ok=True)
        (tmp_path / image.context / "Dockerfile").write_text("FROM scratch\n")
    monkeypatch.setattr(where, "REPOSITORY", tmp_path)
    return tmp_path


def test_a_changed_source_changes_the_tag(checkout: Path) -> None:
    before = images.tag()
    (checkout / "agent_image" / "new.py").write_text("x = 1\n")
    assert images.tag() != before


def test_what_python_compiles_on_the_way_leaves_the_tag_alone(checkout: Path) -> None:
    before = images.tag()
    (checkout / "agent_image" / "__pycache__").mkdir()
    (checkout / "agent_image" / "__pycache__" / "new.pyc").write_bytes(b"x")
    assert images.tag() == before


def test_images_of_one_folder_differ_by_their_arguments(checkout: Path) -> None:
    prints = [image.fingerprint() for image in images.IMAGES if image.context == "mcp_images"]
    assert len(set(prints)) == len(prints) > 1


def test_the_images_have_the_charts_version() -> None:
    chart = (where.REPOSITORY / "charts" / "ropewalk" / "Chart.yaml").read_text()
    assert f"appVersion: {images.VERSION}" in chart.replace('"', "")


@pytest.mark.parametrize(
    "package",
    ["operator/src/ropewalk_operator", "agent_image/src/ropewalk_agent", "mcp_images/ropewalk_mcp_process"],
)
def test_a_program_says_the_version_that_its_image_has(package: str) -> None:
    text = (where.REPOSITORY / package / "__init__.py").read_text()
    assert f'__version__ = "{images.VERSION}"' in text


def test_what_the_tests_need_holds_no_program_that_none_of_them_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(Layout, "default", lambda: Layout(tmp_path, tmp_path / "state"))
    monkeypatch.setattr(sys, "argv", ["cluster", "tools"])
    monkeypatch.setattr(machine, "install", lambda packages: None)
    monkeypatch.setattr(tools, "build", lambda layout: None)
    for name in tools.DEBIAN["prometheus"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    # What is missing would be fetched, for which there is no command here.
    assert cli.main() == 0


def test_a_tool_is_built_again_when_its_pins_change(tmp_path: Path) -> None:
    here = Layout(tmp_path, tmp_path / "state")
    here.bin.mkdir()
    tool = TOOLS[0]
    for name in tool.binaries:
        (here.bin / name).touch()
    assert not tools._fresh(here, tool)
    tools._stamp(here, tool).write_text(tool.fingerprint())
    assert tools._fresh(here, tool)
    tools._stamp(here, tool).write_text("of other pins")
    assert not tools._fresh(here, tool)


def test_missing_packages_are_named_with_the_command_that_installs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(Failure, match="On Debian, as root: apt-get install -y no-such-thing"):
        machine.install({"no-such-thing": "no-such-program"})


def test_whoever_is_not_root_is_told_of_the_other_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(Failure, match="make demo CONTEXT=name"):
        machine.require_root()


def test_a_process_is_started_once_and_ended_by_its_own_id(tmp_path: Path) -> None:
    process = Process("sleeper", tmp_path)
    process.start([sys.executable, "-c", "import signal; signal.pause()"])
    first = process.pid
    process.start([sys.executable, "-c", "import signal; signal.pause()"])
    assert first is not None
    assert process.pid == first
    process.stop()
    assert process.pid is None


def test_a_reused_process_id_is_not_mistaken_for_the_clusters(tmp_path: Path) -> None:
    (tmp_path / "etcd.pid").write_text(f"{os.getpid()} 1")
    assert Process("etcd", tmp_path).pid is None


@pytest.mark.parametrize("text", ["", "123 ", "123"])
def test_a_pid_file_that_was_not_written_to_its_end_names_no_process(tmp_path: Path, text: str) -> None:
    (tmp_path / "etcd.pid").write_text(text)
    assert Process("etcd", tmp_path).pid is None


def test_a_process_that_ends_while_it_is_waited_for_is_reported_with_its_log(tmp_path: Path) -> None:
    process = Process("broken", tmp_path)
    process.start([sys.executable, "-c", "raise SystemExit('no such luck')"])
    with pytest.raises(Failure, match="no such luck"):
        wait_until(lambda: False, "broken", seconds=30, watched=process)


def test_another_context_without_docker_is_refused_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda program: None)
    with pytest.raises(Failure, match="none answers"):
        images.push(where.IMAGE_PREFIX, "production")


def test_the_command_line_explains_itself() -> None:
    environment = os.environ | {"PYTHONPATH": str(where.REPOSITORY / "dev")}
    said = subprocess.run(
        [sys.executable, "-m", "cluster", "--help"], capture_output=True, text=True, check=True, env=environment
    )
    assert "bring the cluster up" in said.stdout


def test_the_dns_manifests_are_whole_and_at_the_address_that_pods_are_told() -> None:
    path = where.REPOSITORY / "dev" / "cluster" / "coredns.yaml"
    manifests = {each["kind"]: each for each in yaml.safe_load_all(path.read_text())}
    assert manifests["Service"]["spec"]["clusterIP"] == where.DNS_SERVICE_ADDRESS
    (container,) = manifests["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert container["image"] == images.COREDNS_IMAGE


def test_nobody_but_the_api_server_is_believed_when_it_names_others() -> None:
    assert [user.name for user in pki.USERS if user.authority == "front-proxy-ca"] == ["front-proxy"]


@pytest.mark.parametrize(
    "tool", [*TOOLS, *tools.CHART_TOOLS, *tools.SIMULATION, *tools.METRICS], ids=lambda it: it.folder
)
def test_the_go_that_is_installed_is_new_enough_for_every_tool(tool: tools.Tool) -> None:
    (line,) = (line for line in (tool.source / "go.mod").read_text().splitlines() if line.startswith("go "))
    assert tuple(int(number) for number in line.removeprefix("go ").split(".")) <= machine._GO_NEEDED
