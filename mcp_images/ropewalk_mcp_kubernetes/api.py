"""Requests to the API server, each within a time limit and a size limit. Knows nothing of pods.

Answers are read as plain JSON: the client's typed models cost memory and time and show nothing more.
"""

import asyncio
import json
import os
from dataclasses import dataclass
from typing import Any

import aiohttp
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config
from yaml import YAMLError

from ropewalk_mcp_common.errors import Code, CodedError

_MAX_ANSWER_BYTES = 16 * 2**20
_MAX_LOG_BYTES = 8 * 2**20
_MAX_MESSAGE = 500


@dataclass(frozen=True)
class Access:
    """What a request needs to be allowed: a verb on a resource, in a namespace or (empty) in the whole cluster."""

    verb: str
    resource: str
    namespace: str = ""
    name: str = ""

    def __str__(self) -> str:
        subject = f"{self.verb} {self.resource}" + (f" {self.name}" if self.name else "")
        return f"{subject} in namespace {self.namespace}" if self.namespace else f"{subject} in the cluster"


async def configuration() -> Configuration:
    """Return how to reach the API server: KUBECONFIG if it is set, else the pod's own ServiceAccount.

    Raises ConfigException, whose message says what is missing.
    """
    config = Configuration()
    if path := os.environ.get("KUBECONFIG"):
        try:
            await load_kube_config(config_file=path, client_configuration=config, persist_config=False)  # type: ignore[no-untyped-call]
        except (YAMLError, TypeError):
            raise ConfigException(f"KUBECONFIG is {path!r}, which is no kubeconfig") from None
    else:
        load_incluster_config(client_configuration=config)  # type: ignore[no-untyped-call]
    return config


class KubeApi:
    """The API server, asked for JSON. Each method raises CodedError and nothing else for what goes wrong there."""

    def __init__(self, client: ApiClient, timeout_seconds: float) -> None:
        self._client = client
        self._timeout_seconds = timeout_seconds

    async def get(self, path: str, access: Access, **query: str | int) -> dict[str, Any]:
        """Return the object at the path."""
        return _parsed(await self._request("GET", path, access, query, _MAX_ANSWER_BYTES), access)

    async def delete(self, path: str, access: Access) -> dict[str, Any]:
        """Delete the object at the path and return what the API server says of it."""
        return _parsed(await self._request("DELETE", path, access, {}, _MAX_ANSWER_BYTES), access)

    async def text(self, path: str, access: Access, **query: str | int) -> tuple[str, bool]:
        """Return the first 8 MiB of the text at the path, and whether that is all of it."""
        body = await self._request("GET", path, access, {**query, "limitBytes": _MAX_LOG_BYTES}, _MAX_LOG_BYTES + 1)
        return body.decode(errors="replace"), len(body) < _MAX_LOG_BYTES

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()  # type: ignore[no-untyped-call]

    async def _request(
        self, method: str, path: str, access: Access, query: dict[str, str | int], max_bytes: int
    ) -> bytes:
        try:
            # Around all of it: fetching a token can hang as well as the request.
            async with asyncio.timeout(self._timeout_seconds):
                request = await self._client.param_serialize(
                    method,
                    path,
                    query_params=list(query.items()),
                    header_params={"Accept": "application/json, */*"},
                    auth_settings=["BearerToken"],
                )
                timeout = aiohttp.ClientTimeout(total=self._timeout_seconds)
                answer = (await self._client.call_api(*request, _request_timeout=timeout)).response
                async with answer:
                    body = await _bounded(answer, access, max_bytes)
        except TimeoutError:
            raise CodedError(
                "UPSTREAM_TIMEOUT",
                f"the API server did not {access} within {self._timeout_seconds:g} s; try again later",
            ) from None
        except (aiohttp.ClientError, OSError, ConfigException) as error:
            raise CodedError(
                "UPSTREAM_UNAVAILABLE",
                f"the API server cannot be reached to {access} ({_short(error)}); try again later",
            ) from error
        if answer.status >= 400:
            raise _refusal(answer.status, body, access)
        return body


async def _bounded(answer: aiohttp.ClientResponse, access: Access, max_bytes: int) -> bytes:
    body = bytearray()
    async for chunk in answer.content.iter_any():
        body += chunk
        if len(body) > max_bytes:
            raise CodedError(
                "INVALID_INPUT",
                f"the answer to {access} is larger than {max_bytes} bytes; name a namespace or a label_selector",
            )
    return bytes(body)


def _parsed(body: bytes, access: Access) -> dict[str, Any]:
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        parsed = None
    if not isinstance(parsed, dict):
        raise CodedError("UPSTREAM_INVALID", f"the API server's answer to {access} is not a JSON object")
    return parsed


def _short(error: Exception) -> str:
    return (str(error) or type(error).__name__)[:_MAX_MESSAGE]


def _refusal(status: int, body: bytes, access: Access) -> CodedError:
    """Turn the API server's Status into a code and a next step."""
    try:
        said = str(json.loads(body).get("message", ""))
    except (ValueError, AttributeError):
        said = body.decode(errors="replace")
    code: Code
    said = said.strip()[:_MAX_MESSAGE] or "no reason given"
    match status:
        case 401:
            code, text = "FORBIDDEN", f"the API server does not accept this server's credentials to {access}: {said}"
        case 403:
            scope = f"a Role in namespace {access.namespace}" if access.namespace else "a ClusterRole"
            if access.resource == "pods" and not access.namespace:
                scope += ", or name a namespace that it may see"
            code, text = (
                "FORBIDDEN",
                f"this server may not {access}; grant its ServiceAccount the verb {access.verb!r} on "
                f"{access.resource!r} by {scope} ({said})",
            )
        case 404:
            code, text = "NOT_FOUND", f"cannot {access}: {said}; list the pods to see what there is"
        case 400 if "waiting to start" in said or "not found" in said:
            code, text = "NOT_FOUND", f"cannot {access}: {said}; describe the pod to see its containers"
        case 409:
            code, text = "CONFLICT", f"cannot {access}: {said}; look at it again, then decide"
        case 429:
            code, text = "RATE_LIMITED", f"the API server has too much to do to {access} ({said}); try again later"
        case _ if status >= 500:
            code, text = (
                "UPSTREAM_UNAVAILABLE",
                f"the API server failed to {access} ({status}: {said}); try again later",
            )
        case _:
            code, text = "INVALID_INPUT", f"the API server refuses to {access} ({status}): {said}"
    return CodedError(code, text)
