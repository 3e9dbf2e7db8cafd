"""Asks an agent one question and fails unless the answer is right and a tool gave it. Needs nothing but Python."""

import json
import sys
import time
import urllib.error
import urllib.request
from typing import Any

QUESTION = "What is 21.5 plus 20.5?"


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def wait_until_ready(url: str, seconds: float) -> str | None:
    """Return None as soon as the agent says that it is ready, or what it said last when the time is over."""
    deadline = time.monotonic() + seconds
    said = ""
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{url}/ready", timeout=5):  # noqa: S310 - the chart gives the address
                return None
        except urllib.error.HTTPError as error:
            now = f"{error.code} {error.read().decode(errors='replace')}"
        except OSError as error:
            now = str(error)
        if now != said:
            _say(f"not ready yet: {now}")
            said = now
        time.sleep(1)
    return said


def ask(url: str) -> dict[str, Any]:
    """Return the agent's answer to the question."""
    body = json.dumps({"query": QUESTION}).encode()
    request = urllib.request.Request(f"{url}/query", body, {"Content-Type": "application/json"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=90) as answer:  # noqa: S310
        found: dict[str, Any] = json.load(answer)
        return found


def main(url: str, seconds: float) -> int:
    """Print the conversation; 0 when the agent is right, 1 with the reason when not."""
    said = wait_until_ready(url, seconds)
    if said is not None:
        _say(f"FAILED: {url} was not ready within {seconds:.0f} s; it said: {said}")
        return 1
    _say(f"question: {QUESTION}")
    try:
        answer = ask(url)
    except urllib.error.HTTPError as error:
        _say(f"FAILED: {url}/query answered {error.code} {error.read().decode(errors='replace')}")
        return 1
    except OSError as error:
        _say(f"FAILED: {url}/query: {error}")
        return 1
    _say(f"answer: {answer['response']}")
    _say(f"tools used: {', '.join(answer['tools_used'])}")
    if "42" not in answer["response"]:
        _say("FAILED: 42 is not in the answer")
        return 1
    if "add" not in answer["tools_used"]:
        _say("FAILED: the tool add was not used")
        return 1
    _say("PASSED")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], float(sys.argv[2])))
