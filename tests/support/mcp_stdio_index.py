"""A package index on this machine, for uv and for npm, with a Python and a Node package that are made here."""

import base64
import hashlib
import io
import json
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

SERVER = (Path(__file__).parent / "mcp_stdio_server.py").read_text()
WHEEL = "tiny_mcp-1.0-py3-none-any.whl"
# Answers initialize, tools/list and an echo: what shows that a Node program runs.
NODE_SERVER = """#!/usr/bin/env node
require("readline").createInterface({ input: process.stdin }).on("line", (line) => {
  const { id, method, params } = JSON.parse(line);
  if (id === undefined) return;
  const answers = {
    "initialize": { protocolVersion: "2025-06-18", capabilities: { tools: {} }, serverInfo: { name: "n" } },
    "tools/list": { tools: [{ name: "arguments", inputSchema: { type: "object" } }] },
    "tools/call": { content: [{ type: "text", text: JSON.stringify(process.argv.slice(2)) }] },
  };
  const result = answers[method];
  const answer = result ? { result } : { error: { code: -32601, message: "no" } };
  process.stdout.write(JSON.stringify({ jsonrpc: "2.0", id, ...answer }) + "\\n");
});
"""


def wheel() -> bytes:
    """A wheel with one module and two programs."""
    files = {
        "tiny_mcp.py": SERVER,
        "tiny_mcp-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: tiny-mcp\nVersion: 1.0\n",
        "tiny_mcp-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "tiny_mcp-1.0.dist-info/entry_points.txt": "[console_scripts]\ntiny-mcp = tiny_mcp:main\nx = tiny_mcp:x\n",
    }
    lines = []
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
            lines.append(f"{name},sha256={digest},{len(text.encode())}")
        archive.writestr("tiny_mcp-1.0.dist-info/RECORD", "\n".join([*lines, "tiny_mcp-1.0.dist-info/RECORD,,", ""]))
    return buffer.getvalue()


def node_package() -> bytes:
    """A package for npm with one program."""
    manifest = {"name": "@tiny/node-mcp", "version": "1.0.0", "bin": {"node-mcp": "server.js"}}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, text in (("package/package.json", json.dumps(manifest)), ("package/server.js", NODE_SERVER)):
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(text), 0o755
            archive.addfile(member, io.BytesIO(text.encode()))
    return buffer.getvalue()


@contextmanager
def package_index(address: str = "127.0.0.1") -> Iterator[str]:
    """Yield the base URL of an index that listens on the address: /simple for Python, /npm for Node."""
    python, node = wheel(), node_package()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            base = f"http://{self.headers['host']}"
            integrity = "sha512-" + base64.b64encode(hashlib.sha512(node).digest()).decode()
            version = {
                "name": "@tiny/node-mcp",
                "version": "1.0.0",
                "bin": {"node-mcp": "server.js"},
                "dist": {"tarball": f"{base}/npm/tiny.tgz", "integrity": integrity},
            }
            listing = {"name": "@tiny/node-mcp", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version}}
            found = {
                "/simple/tiny-mcp/": (f'<a href="/{WHEEL}">{WHEEL}</a>'.encode(), "text/html"),
                f"/{WHEEL}": (python, "application/octet-stream"),
                "/npm/@tiny%2fnode-mcp": (json.dumps(listing).encode(), "application/json"),
                "/npm/tiny.tgz": (node, "application/octet-stream"),
            }
            body, kind = found.get(self.path, (b"{}", ""))
            self.send_response(200 if kind else 404)
            self.send_header("content-type", kind or "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer((address, 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://{address}:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
