"""What several modules here share."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

import mcp_kube_api as kube
from mcp_kube_server import Server


@pytest.fixture
async def kubernetes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(kube.KubeApi().served())
        yield Server(api, stack, tmp_path, monkeypatch)
