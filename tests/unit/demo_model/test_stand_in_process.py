"""The demo model and the stand-ins as processes."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

STAND_INS = Path(__file__).parents[3] / "dev" / "stand_ins"
SERVERS = {
    "demo_model": "not a language model",
    "open_meteo_stand_in": "the weather is made up",
    "search_stand_in": "not DuckDuckGo",
}


def started(server: str, port: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(STAND_INS), "ROPEWALK_PORT": port}
    return subprocess.Popen([sys.executable, "-m", server], env=environment, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("server", SERVERS)
def test_it_says_what_it_is_serves_and_ends_at_sigterm_with_exit_code_0(server: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = started(server, str(port))
    try:
        assert process.stdout is not None
        banner = json.loads(process.stdout.readline())
        assert SERVERS[server] in banner["message"]
        assert (banner["logger"], banner["port"]) == (f"ropewalk.{server}", port)
        with httpx.Client(transport=httpx.HTTPTransport(retries=10)) as http:
            assert http.get(f"http://127.0.0.1:{port}/health").status_code == 200
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=10) == 0
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("server", "port"), [(server, "http") for server in SERVERS] + [("demo_model", "65536"), ("demo_model", "9" * 5000)]
)
def test_a_wrong_port_is_named_with_what_is_allowed(server: str, port: str) -> None:
    with started(server, port) as process:
        said = json.loads(process.communicate(timeout=20)[0])
    assert said["message"] == f"ROPEWALK_PORT is {port!r}; use a whole number from 0 to 65535"
    assert (said["level"], process.returncode) == ("error", 2)
