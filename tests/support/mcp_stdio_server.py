"""A stdio MCP server by hand, of the older era, whose tools do what servers do, good and bad. Run it as a program.

Options in the environment: MCP_TEST_DISCOVER (answer | ignore | die) says what it does at server/discover;
MCP_TEST_NO_TOOLS lets it refuse tools/list; MCP_TEST_FILE names a file that it writes a line to for each method.
"""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from typing import Any

Message = dict[str, Any]

_out = threading.Lock()
_answers: dict[int, "queue.Queue[Message]"] = {}
_cancelled: list[Any] = []
_cancelling = threading.Condition()
_lingers, _lingered = threading.Event(), threading.Event()
_initialized: list[Message] = []
_numbers = iter(range(1000, 10**9))


def say(*messages: Message) -> None:
    with _out:
        sys.stdout.write("".join(json.dumps({"jsonrpc": "2.0", **message}) + "\n" for message in messages))
        sys.stdout.flush()


def ask(method: str, params: Message) -> Message:
    number = next(_numbers)
    _answers[number] = queue.Queue()
    say({"id": number, "method": method, "params": params})
    return _answers[number].get(timeout=30)


def text(value: object) -> Message:
    return {"content": [{"type": "text", "text": value if isinstance(value, str) else json.dumps(value)}]}


def call(request: Message) -> Message:
    name, arguments = request["params"]["name"], request["params"].get("arguments") or {}
    meta = request["params"].get("_meta") or {}
    match name:
        case "echo":
            return text(arguments["text"])
        case "hold":
            with open(arguments["pipe"]) as pipe:
                return text(pipe.read())
        case "wait":
            with _cancelling:
                _cancelling.wait_for(lambda: request["id"] in _cancelled)
            return text("too late")
        case "linger":
            # Takes no notice of being cancelled, and says something of its own to its client afterwards.
            _lingers.wait(30)
            say({"method": "notifications/message", "params": {"level": "error", "data": arguments["text"]}})
            say({"id": next(_numbers), "method": "elicitation/create", "params": {"message": arguments["text"]}})
            say({"id": request["id"], "result": text("too late")})
            _lingered.set()
        case "await_linger":
            _lingers.set()
            _lingered.wait(30)
            return text("done")
        case "log_after":
            log = {"method": "notifications/message", "params": {"level": "error", "data": arguments["text"]}}
            say({"id": request["id"], "result": text("answered")}, log)
        case "cancelled":
            return text(len(_cancelled))
        case "initialized":
            return text(_initialized)
        case "params":
            return text(request["params"])
        case "progress":
            for step in range(3):
                say(
                    {
                        "method": "notifications/progress",
                        "params": {"progressToken": meta["progressToken"], "progress": step},
                    }
                )
            return text("done")
        case "log":
            for level in ("debug", "error"):
                say({"method": "notifications/message", "params": {"level": level, "data": arguments["text"]}})
            return text("logged")
        case "changed":
            say({"method": "notifications/tools/list_changed"})
            return text("changed")
        case "update":
            say({"method": "notifications/resources/updated", "params": {"uri": arguments["uri"]}})
            return text("updated")
        case "ask":
            return text(ask(arguments["method"], arguments.get("params", {})))
        case "ask_twice":
            first = ask("elicitation/create", {"message": "first?", "requestedSchema": {"type": "object"}})
            second = ask("elicitation/create", {"message": "second?", "requestedSchema": {"type": "object"}})
            return text([first.get("result"), second.get("result")])
        case "crash":
            sys.stderr.write("secret-of-the-server\n")
            os._exit(3)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "garbage":
            with _out:
                sys.stdout.write("this is no JSON\n{}\n[1]\nNaN\n\n" + '{"jsonrpc": "2.0"}\n' + "x" * 100_000 + "\n")
                sys.stdout.flush()
            return text("clean")
        case "broken":
            with _out:
                sys.stdout.write(f'{{"jsonrpc": "2.0", "id": {request["id"]}, "result": "secret" 1e999}}\n')
                sys.stdout.flush()
            threading.Event().wait()
        case "big":
            return text("x" * arguments["bytes"])
        case "stderr":
            sys.stderr.write(arguments["line"] + "\n")
            return text("written")
        case "grandchild":
            # Outlives its parent, in a session of its own, so that no signal to a group reaches it.
            child = subprocess.Popen(["sleep", "300"], start_new_session=True, stdout=subprocess.DEVNULL)
            return text(child.pid)
        case "orphan":
            # A grandchild whose parent has gone, and which then ends: somebody has to reap it.
            reads, writes = os.pipe()
            command = ["sh", "-c", f"cat <&{reads} >/dev/null 2>&1 & echo $!"]
            done = subprocess.run(command, capture_output=True, check=True, pass_fds=[reads])
            os.close(reads)
            os.close(writes)
            return text(int(done.stdout))
        case "freeze":
            os.kill(os.getpid(), signal.SIGSTOP)
            # The signal is the process': this thread might get as far as an answer before it is stopped.
            threading.Event().wait()
        case "pid":
            return text(os.getpid())
    return {"content": [{"type": "text", "text": "no such tool"}], "isError": True}


def answer(request: Message) -> None:
    method, params = request["method"], request.get("params") or {}
    result: Message = {}
    if method == "initialize":
        _initialized.append(params)
        if "silent" in params["capabilities"].get("experimental", {}):
            return
        result = {
            "protocolVersion": "2025-06-18",
            "capabilities": {"tools": {"listChanged": True}, "logging": {}, "resources": {"subscribe": True}},
            "serverInfo": {"name": "by-hand", "version": "1"},
            "instructions": "Be gentle.",
            "extra": {"kept": True},
        }
    elif method == "tools/list":
        if os.environ.get("MCP_TEST_NO_TOOLS"):
            say({"id": request["id"], "error": {"code": -32603, "message": "the database is down"}})
            return
        schema = {"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": "Region"}}}
        names = ("echo", "wait", "ask", "params")
        result = {
            "tools": [
                {"name": name, "inputSchema": schema if name == "params" else {"type": "object"}} for name in names
            ]
        }
    elif method == "tools/call":
        result = call(request)
    elif method == "x/unknown":
        result = {"unknown": params, "float": 1.5, "big": 2**70}
    elif method == "x/error":
        say({"id": request["id"], "error": params["error"]})
        return
    elif method not in ("logging/setLevel", "resources/subscribe", "resources/unsubscribe", "ping"):
        say({"id": request["id"], "error": {"code": -32601, "message": f"no {method}", "data": {"why": "test"}}})
        return
    say({"id": request["id"], "result": result})


def main() -> None:
    seen = os.environ.get("MCP_TEST_FILE")
    for line in sys.stdin:
        message = json.loads(line)
        method = message.get("method")
        if seen and method:
            with open(seen, "a") as file:
                file.write(json.dumps([method, message.get("params")]) + "\n")
        if method == "server/discover" and os.environ.get("MCP_TEST_DISCOVER") == "ignore":
            continue
        if method == "server/discover" and os.environ.get("MCP_TEST_DISCOVER") == "die":
            sys.exit(1)
        if method == "notifications/cancelled":
            with _cancelling:
                _cancelled.append(message["params"]["requestId"])
                _cancelling.notify_all()
        elif method and "id" in message:
            threading.Thread(target=answer, args=(message,), daemon=True).start()
        elif not method and message["id"] in _answers:
            _answers[message["id"]].put(message)


if __name__ == "__main__":
    main()
