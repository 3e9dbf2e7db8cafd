"""The API server itself refuses a wrong MCPServer, says how to mend it, and fills in the rest."""

from __future__ import annotations

import json
from typing import Any

import pytest

from apiserver import ApiServer
from crd_bodies import KEY, MCPSERVER, REMOVED, Object, assert_taken, changed, create, mcpserver, refusal, remote

HEADER = {"name": "X-API-Key", "valueFrom": {"secretKeyRef": KEY}}
CREDENTIALS = {
    "tokenURL": "https://login.example.com/token", "clientIDSecretRef": KEY, "clientSecretSecretRef": KEY,
}  # fmt: skip
PEM = "-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n"


def stdio(**fields: Any) -> Object:
    return mcpserver(image=REMOVED, stdio=fields)


def package(**fields: Any) -> Object:
    return stdio(package=fields)


def elsewhere(url: str = "https://tools.example.com/mcp", **fields: Any) -> Object:
    return mcpserver(image=REMOVED, remote={"url": url, **fields})


def header(name: str) -> Object:
    return elsewhere(headers=[{**HEADER, "name": name}])


def credentials(**fields: Any) -> Object:
    return mcpserver(auth={"clientCredentials": {**CREDENTIALS, **fields}})


ONE_OF_THREE = "set exactly one of spec.image (a server that speaks HTTP), spec.stdio (one that speaks over its"
WRONG: dict[str, tuple[Object, str]] = {
    "nothing to run": (mcpserver(image=REMOVED), ONE_OF_THREE),
    "both to run and remote": (mcpserver(remote={"url": "http://host/mcp"}), ONE_OF_THREE),
    "both over HTTP and over stdio": (mcpserver(stdio={"image": "i", "command": ["c"]}), ONE_OF_THREE),
    "image that is an address": (
        mcpserver(image="http://host/image"),
        "spec.image must be the reference of a container",
    ),
    "image with a space": (mcpserver(image="an image"), "spec.image must be the reference of a container image"),
    "port that is none": (mcpserver(port=65536), "should be less than or equal to 65535"),
    "path without a slash": (mcpserver(path="mcp"), "spec.path must begin with /"),
    "a command of nothing": (mcpserver(command=[]), "should have at least 1 items"),
    "unknown field": (mcpserver(comand=["x"]), 'unknown field "spec.comand"'),
    "name too long": (changed(MCPSERVER, metadata__name="a" * 51), "metadata.name names the Service too"),
    "a variable of Ropewalk's": (
        mcpserver(pod__env=[{"name": "ROPEWALK_MCP_ALLOWED_HOSTS", "value": "evil.example.com"}]),
        "spec.pod.env holds a variable that Ropewalk sets itself: remove ROPEWALK_MCP_ALLOWED_HOSTS and",
    ),
    "an image for agents": (mcpserver(pod__image="i"), 'unknown field "spec.pod.image"'),
    # Over standard input and output.
    "stdio of nothing": (stdio(), "set exactly one of spec.stdio.image (an image that holds the program) and"),
    "stdio of two things": (
        stdio(image="i", command=["c"], package={"python": "a==1"}),
        "set exactly one of spec.stdio.image (an image that holds the program) and spec.stdio.package",
    ),
    "stdio of an image without a program": (
        stdio(image="i", args=["--stdio"]),
        "spec.stdio.command is required with spec.stdio.image: set it to the program that speaks MCP",
    ),
    "stdio of an image that is an address": (stdio(image="oci://i", command=["c"]), "spec.stdio.image must be the"),
    "stdio with a command at the wrong place": (
        changed(stdio(image="i", command=["c"]), spec__args=["--stdio"]),
        "spec.command and spec.args go with spec.image: remove them, or for a stdio server move them to",
    ),
    **{
        f"stdio at the path {path}": (
            changed(stdio(image="i", command=["c"]), spec__path=path),
            "spec.path of a stdio server must be a path such as /mcp",
        )
        for path in ("/", "/mcp/", "/health", "/ready", "/metrics", "/a%20b")
    },
    "a package of two registries": (
        package(python="a==1", node="a@1"),
        "set exactly one of spec.stdio.package.python and spec.stdio.package.node",
    ),
    "a package of no registry": (package(), "set exactly one of spec.stdio.package.python and"),
    **{
        f"the Python package {name}": (
            package(python=name),
            "spec.stdio.package.python must name a package and an exact version, such as mcp-server-time==2026.1.1",
        )
        for name in ("mcp-server-time", "a>=1", "--index-url==1", "a==1 --pre", "git+https://host/a==1", "a[b,c]==")
    },
    **{
        f"the Node package {name}": (
            package(node=name),
            "spec.stdio.package.node must name a package and an exact version, such as @scope/name@1.2.3",
        )
        for name in ("@scope/name", "name@latest", "-y@1", "name@1 --force", "https://host/a@1", "../a@1")
    },
    "a session mode that is none": (stdio(image="i", command=["c"], sessionMode="one"), 'Unsupported value: "one"'),
    "no sessions": (stdio(image="i", command=["c"], maxSessions=0), "should be greater than or equal to 1"),
    "too many sessions": (stdio(image="i", command=["c"], maxSessions=1001), "should be less than or equal to 1000"),
    "sessions that end at once": (stdio(image="i", command=["c"], idleTimeoutSeconds=0), "greater than or equal to 1"),
    # Elsewhere.
    "remote without an address": (mcpserver(image=REMOVED, remote={}), "spec.remote.url: Required value"),
    "remote address without http": (elsewhere("tools.example.com"), "spec.remote.url must be http:// or https://"),
    "remote address with a password": (
        elsewhere("https://me:secret@tools.example.com/mcp"),
        "without user name or fragment",
    ),
    **{
        f"remote address with {name}": (
            elsewhere(f"https://tools.example.com/mcp?team=a&{name}=1"),
            "spec.remote.url holds a parameter that looks like a secret",
        )
        for name in ("api_key", "access_token", "tavilyApiKey", "X-Signature", "PASSWORD")
    },
    **{
        f"remote with {name}": (
            remote(**{field: value}),
            f"spec.{name} has no effect on a remote server: remove it, or replace spec.remote by spec.image or",
        )
        for name, field, value in (
            ("replicas", "replicas", 2), ("autoscaling", "autoscaling", {}), ("networkPolicy", "networkPolicy", {}),
            ("pod", "pod", {}),
        )
    },
    "remote with a command": (remote(command=["a"]), "spec.command and spec.args go with spec.image: remove them"),
    "remote with arguments": (remote(args=["a"]), "spec.command and spec.args go with spec.image: remove them"),
    "remote with a port": (remote(port=9000), "put the port and the path into spec.remote.url"),
    "remote with a path": (remote(path="/x"), "put the port and the path into spec.remote.url"),
    "a header that is none": (header("X API"), "the name of a header holds only letters, digits and"),
    **{
        f"the header {name}": (header(name), "spec.remote.headers holds a header that HTTP or MCP sets itself")
        for name in ("Host", "content-length", "Transfer-Encoding", "Mcp-Session-Id", "ACCEPT")
    },
    "a header twice": (
        elsewhere(headers=[HEADER, {**HEADER, "name": "x-api-key"}]),
        "spec.remote.headers names a header twice: upper and lower case are the same",
    ),
    "a header with its value in the open": (
        elsewhere(headers=[{"name": "X-API-Key", "value": "k"}]),
        'unknown field "spec.remote.headers[0].value"',
    ),
    "two kinds of authorization": (
        changed(header("authorization"), spec__auth={"bearerTokenSecretRef": KEY}),
        "spec.remote.headers holds Authorization beside spec.auth, which sets it: keep one of them",
    ),
    "certificates that are none": (elsewhere(caBundle="MA=="), "spec.remote.caBundle must hold certificates in PEM"),
    "certificates with their key": (
        elsewhere(caBundle=f"{PEM}-----BEGIN PRIVATE KEY-----"),
        "spec.remote.caBundle holds a private key, which everyone who may read the MCPServer can see",
    ),
    "certificates without TLS": (
        elsewhere("http://host/mcp", caBundle=PEM),
        "spec.remote.caBundle has no effect on http://: remove it",
    ),
    "certificates without end": (elsewhere(caBundle=PEM + "A" * 65536), "spec.remote.caBundle: Too long"),
    # How agents come in, what they see, how long they wait.
    "no way in": (mcpserver(auth={}), "set exactly one of spec.auth.bearerTokenSecretRef and"),
    "two ways in": (
        mcpserver(auth={"bearerTokenSecretRef": KEY, "clientCredentials": CREDENTIALS}),
        "set exactly one of spec.auth.bearerTokenSecretRef and spec.auth.clientCredentials",
    ),
    "credentials of no client": (
        mcpserver(auth={"clientCredentials": {"tokenURL": "https://login.example.com"}}),
        "spec.auth.clientCredentials.clientIDSecretRef: Required value",
    ),
    "tokens from nowhere": (credentials(tokenURL="login"), "spec.auth.clientCredentials.tokenURL must be http:// or"),
    "tokens for a secret in the open": (
        credentials(tokenURL="https://login.example.com/token?client_secret=a"),
        "spec.auth.clientCredentials.tokenURL holds a parameter that looks like a secret",
    ),
    "two scopes in one": (credentials(scopes=["a b"]), "spec.auth.clientCredentials.scopes[0] in body should match"),
    "no tool allowed": (mcpserver(tools={"allow": []}), "should have at least 1 items"),
    "a tool denied twice": (mcpserver(tools={"deny": ["a", "a"]}), "spec.tools.deny[1]: Duplicate value"),
    "calls that take no time": (mcpserver(toolTimeoutSeconds=0), "should be greater than or equal to 1"),
    "calls that take too long": (mcpserver(toolTimeoutSeconds=901), "should be less than or equal to 900"),
    "no attempt": (mcpserver(retry={"maxAttempts": 0}), "should be greater than or equal to 1"),
    "too many attempts": (mcpserver(retry={"maxAttempts": 11}), "should be less than or equal to 10"),
    "pauses without end": (mcpserver(retry={"maxDelaySeconds": 301}), "should be less than or equal to 300"),
}  # fmt: skip


@pytest.mark.parametrize(("body", "message"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_refused_with_the_fix(server: ApiServer, body: Object, message: str) -> None:
    assert message in refusal(server, body)


@pytest.mark.parametrize(
    "body",
    [
        mcpserver(pod__env=[{"name": "ROPEWALK_PORT", "value": "9000"}], port=9000),
        mcpserver(args=["--verbose"], port=9000, path="/", replicas=3, pod={"labels": {"team": "a"}}),
        mcpserver(image="localhost:5000/a/b@sha256:" + "0" * 64),
        remote(),
        mcpserver(command=["/server", "--http"], args=["--verbose"]),
        elsewhere("https://tools.example.com/mcp?team=a"),
        elsewhere(headers=[HEADER, {**HEADER, "name": "Authorization"}], caBundle=PEM),
        changed(elsewhere(headers=[HEADER]), spec__auth={"clientCredentials": {**CREDENTIALS, "scopes": ["a:b", "c"]}}),
        mcpserver(auth={"bearerTokenSecretRef": KEY}, tools={"allow": ["add"], "deny": ["power"]}),
        mcpserver(toolTimeoutSeconds=900, retry={"maxAttempts": 1}),
        stdio(image="i", command=["/server"], args=["--stdio"], sessionMode="perSession", maxSessions=1),
        package(python="mcp-server-time==2026.1.1"),
        package(python="mcp_server[extra,more]==1.0.0rc1"),
        package(node="@scope/name@1.2.3-beta.1"),
        package(node="name@1.2.3"),
        changed(package(node="name@1.2.3"), spec__stdio__command=["other-name"], spec__port=9000, spec__path="/a/b"),
    ],
    ids=lambda body: json.dumps(body["spec"], separators=(",", ":"))[:60],
)  # fmt: skip
def test_what_is_right_is_taken_as_it_is(server: ApiServer, body: Object) -> None:
    assert_taken(server, body)


def test_the_smallest_mcp_server_gets_all_defaults(server: ApiServer) -> None:
    assert create(server, MCPSERVER)["spec"] == {
        **MCPSERVER["spec"],
        "port": 8000,
        "path": "/mcp",
        "replicas": 1,
        "toolTimeoutSeconds": 30,
        "retry": {"maxAttempts": 3, "initialDelayMilliseconds": 200, "maxDelaySeconds": 5},
    }


def test_a_stdio_server_gets_its_defaults(server: ApiServer) -> None:
    body = stdio(image="i", command=["/server"])
    assert create(server, body)["spec"]["stdio"] == {
        **body["spec"]["stdio"], "sessionMode": "shared", "maxSessions": 100, "idleTimeoutSeconds": 300,
    }  # fmt: skip
