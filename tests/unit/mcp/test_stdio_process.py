"""The bridge as a process: its command line, its log, SIGTERM, and what becomes of the processes below it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from mcp_stdio import ACCEPT, BY_HAND, META, opened
from ropewalk_mcp_stdio.install import InstallError, install
from ropewalk_mcp_stdio.options import InstallOptions, ServeOptions, read
from waiting import until

pytestmark = pytest.mark.timeout(60)
ROOT = Path(__file__).parents[3]
COMMAND = [sys.executable, "-m", "ropewalk_mcp_stdio"]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT / "mcp_images"), "PYTHONUNBUFFERED": "1"}


def state(pid: int) -> str:
    """The state of a process as /proc has it: Z is a zombie; nothing where it has gone."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return ""


class Running:
    """A bridge as a process of its own, with one session."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, "serve", "--port=0", "--name=tested", *arguments, "--", *BY_HAND],
            env=ENVIRONMENT,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stderr is not None
        self.serving = json.loads(self.process.stderr.readline())
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.serving['port']}", headers=ACCEPT, timeout=30)
        until(lambda: self.http.get("/ready").status_code == 200)
        params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
        answer = self.http.post("/mcp", json={"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params})
        self.http.headers["mcp-session-id"] = answer.headers["mcp-session-id"]

    def call(self, tool: str, **arguments: Any) -> Any:
        request = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": arguments}}
        text = self.http.post("/mcp", json=request).json()["result"]["content"][0]["text"]
        return int(text) if text.isdigit() else text


@pytest.fixture
def running() -> Iterator[Running]:
    bridge = Running()
    yield bridge
    bridge.process.kill()
    bridge.process.communicate()
    bridge.http.close()


def test_sigterm_ends_bridge_and_child_with_code_0_and_json_lines_only(running: Running) -> None:
    child = running.call("pid")
    running.process.send_signal(signal.SIGTERM)
    _, log = running.process.communicate(timeout=15)
    assert running.process.returncode == 0
    assert state(child) == ""
    lines = [json.loads(line) for line in log.splitlines()]
    assert {line["server"] for line in lines if line["logger"].startswith("ropewalk")} == {"tested"}


def test_sigterm_refuses_no_call_but_closes_idle_connections_and_lets_calls_in_flight_end(
    running: Running, tmp_path: Path
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    request = {
        "jsonrpc": "2.0",
        "id": 5,
        "method": "tools/call",
        "params": {"name": "hold", "arguments": {"pipe": str(pipe)}},
    }
    with httpx.Client(headers=running.http.headers, timeout=30) as other:
        url = str(running.http.base_url)
        answers: list[httpx.Response] = []
        thread = threading.Thread(target=lambda: answers.append(other.post(f"{url}/mcp", json=request)))
        thread.start()
        writer = until(lambda: opened(pipe), "the child has taken the call", 15)
        running.process.send_signal(signal.SIGTERM)

        def is_closed() -> bool:
            try:
                assert running.call("pid")
            except httpx.TransportError:
                return True
            return False

        until(is_closed)
        os.write(writer, b"held")
        os.close(writer)
        thread.join()
        assert answers[0].json()["result"]["content"][0]["text"] == "held"
        assert running.process.wait(timeout=15) == 0


def test_an_open_subscription_is_no_call_that_sigterm_waits_for(running: Running) -> None:
    listen = {"jsonrpc": "2.0", "id": 1, "method": "subscriptions/listen"}
    own = {"mcp-protocol-version": "2026-07-28", "mcp-method": "subscriptions/listen"}
    with running.http.stream("POST", "/mcp", json=listen | {"params": {"_meta": META}}, headers=own) as stream:
        lines = stream.iter_lines()
        assert "acknowledged" in next(line for line in lines if line.startswith("data: "))
        running.process.send_signal(signal.SIGTERM)
        assert "shutting down" in next(line for line in lines if line.startswith("data: "))
    _, log = running.process.communicate(timeout=15)
    (ending,) = [line for line in map(json.loads, log.splitlines()) if line["message"] == "ending"]
    assert ending["calls"] == 0


def test_nothing_outlives_the_bridge_not_even_what_has_left_its_group(running: Running) -> None:
    grandchild = running.call("grandchild")
    assert state(grandchild) in {"R", "S"}
    running.process.send_signal(signal.SIGTERM)
    running.process.communicate(timeout=15)
    until(lambda: state(grandchild) == "")


def test_a_bridge_that_is_killed_takes_its_child_with_it(running: Running) -> None:
    child = running.call("pid")
    running.process.kill()
    until(lambda: state(child) in ("", "Z"))


def test_orphans_of_the_child_are_reaped(running: Running) -> None:
    orphan = running.call("orphan")
    until(lambda: state(orphan) == "")
    assert running.call("echo", text="on") == "on"


def test_a_crashed_child_leaves_no_zombie(running: Running) -> None:
    child = running.call("pid")
    os.kill(child, signal.SIGKILL)
    until(lambda: state(child) == "")

    def another_answers() -> bool:
        try:
            return bool(running.call("pid") != child)
        except KeyError:
            return False  # an error: the bridge is just learning of it

    until(another_answers)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["serve"], "there is nothing to run; name the server's command behind --"),
        (["serve", "python", "server.py"], "put -- before the server's command"),
        (["serve", "--port=99999", "--", "x"], "argument --port: it is '99999'; use a whole number from 0 to 65535"),
        (["serve", "--max-sessions=0", "--", "x"], "use a whole number from 1 to 1000"),
        (["serve", "--path=mcp", "--", "x"], "use a path such as /mcp"),
        (["serve", "--path=/ready", "--", "x"], "none of /health, /ready, /metrics"),
        (["serve", "--session-mode=own", "--", "x"], "(choose from"),
        (["serve", "--python-package=time"], "name a package and its version, as mcp-server-time==2026.1.1"),
        (["serve", "--node-package=@scope/name"], "name a package and its version, as @scope/name@1.2.3"),
        (["serve", "--python-package=a==1", "--node-package=b@1"], "not allowed with argument"),
        (["serve", "--", ""], "the command behind -- is empty"),
        (["install"], "the following arguments are required: folder"),
    ],
)
def test_wrong_arguments_are_named_with_what_is_allowed(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        read(arguments)
    assert ended.value.code == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_what_follows_the_dashes_is_the_servers_whatever_it_looks_like() -> None:
    options = read(["serve", "--port=1", "--", "/usr/bin/files", "--port=2", "--", "--help"])
    assert isinstance(options, ServeOptions)
    assert options.port == 1
    assert options.name == "files"
    assert options.command == ("/usr/bin/files", "--port=2", "--", "--help")


def test_the_command_of_the_operator_is_understood() -> None:
    arguments = "--name=files --port=8000 --path=/mcp --session-mode=perSession --max-sessions=100"
    options = read(
        [
            "serve",
            *arguments.split(),
            "--idle-timeout-seconds=300",
            "--node-package=@scope/name@1.2.3",
            "--",
            "--verbose",
        ]
    )
    assert options == ServeOptions(
        "files", 8000, "/mcp", "perSession", 100, 300, None, "@scope/name@1.2.3", ("--verbose",)
    )
    assert read(["install", "/bridge"]) == InstallOptions("/bridge")


def test_help_shows_how_to_run_it_by_hand() -> None:
    shown = subprocess.run([*COMMAND, "--help"], env=ENVIRONMENT, capture_output=True, text=True, check=True).stdout
    assert "ropewalk-mcp-stdio serve -- python my_server.py" in shown


def test_install_outside_of_its_image_says_where_it_works(tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "install", str(tmp_path)], env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "run `install` in the image ropewalk.dev/mcp-stdio" in done.stderr
    assert "Traceback" not in done.stderr


def test_install_copies_the_tree_again_over_what_a_first_try_has_left(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "bin").mkdir(parents=True)
    (tree / "bin" / "program").write_text("#!/x")
    (tree / "bin" / "program").chmod(0o555)
    to = tmp_path / "volume"
    (to / "bin").mkdir(parents=True)
    (to / "bin" / "program").write_text("half")
    for _ in range(2):
        assert install(tree, to) == 4
    assert (to / "bin" / "program").read_text() == "#!/x"
    assert (to / "bin" / "program").stat().st_mode & 0o777 == 0o555


def test_install_names_the_folder_that_cannot_be_written(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_text("x")
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(InstallError, match=r"taken.*may write to"):
        install(tree, tmp_path / "taken")
