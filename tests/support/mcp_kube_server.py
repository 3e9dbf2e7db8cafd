"""The MCP server for Kubernetes over the wire, in front of a strict API server on loopback."""

import json
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest
from kubernetes.aio.client import ApiClient
from prometheus_client import CollectorRegistry

import mcp_kube_api as kube
from mcp_caller import Caller, Json
from mcp_wire import served
from ropewalk_mcp_kubernetes.api import KubeApi, configuration
from ropewalk_mcp_kubernetes.server import KubernetesTools, kubernetes_server

NOW = datetime(2026, 1, 3, tzinfo=UTC)


class Server(Caller):
    """The MCP server and the API server behind it."""

    def __init__(self, api: kube.KubeApi, stack: AsyncExitStack, folder: Path, patch: pytest.MonkeyPatch) -> None:
        super().__init__("")
        self.api = api
        self._stack = stack
        self._folder = folder
        self._patch = patch

    async def start(
        self,
        *,
        token: str = kube.TOKEN,
        allow_delete: bool = False,
        timeout_seconds: float = 10,
        namespaces: tuple[str, ...] = (),
    ) -> None:
        """Serve with these settings; without it, the first call serves with the usual ones."""
        file = self._folder / "kubeconfig"
        file.write_text(json.dumps(self.api.kubeconfig(token)))
        self._patch.setenv("KUBECONFIG", str(file))
        api = KubeApi(ApiClient(await configuration()), timeout_seconds)
        app = kubernetes_server(KubernetesTools(api, allow_delete, lambda: NOW, namespaces), CollectorRegistry()).app()
        self._url = await self._stack.enter_async_context(served(app))

    async def _call(self, tool: str, arguments: Json) -> tuple[bool, str, Json | None]:
        if not self._url:
            await self.start()
        answer = await super()._call(tool, arguments)
        assert "hunter2" not in str(answer), "an environment variable was shown"
        return answer
