"""What a standby goes by when it takes over and one of its watches has hung."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from operator_fake_api import failing_api
from operator_process import OperatorProcess
from operator_world import agent
from waiting import until


def lease(holder: str, version: int) -> dict[str, Any]:
    metadata = {"name": "ropewalk-operator", "namespace": "default", "uid": "1", "resourceVersion": str(version)}
    return {"metadata": metadata, "spec": {"holderIdentity": holder, "leaseDurationSeconds": 600}}


def test_what_a_watch_has_not_brought_is_not_taken_back_by_a_takeover(tmp_path: Path) -> None:
    with failing_api(tmp_path) as (server, kubeconfig):
        server.lease, server.agents = lease("another", 1), [agent(systemPrompt="the old prompt")]
        process = OperatorProcess(kubeconfig, tmp_path / "log")
        try:
            process.start()
            edited = agent(systemPrompt="the new prompt")
            edited["metadata"] |= {"generation": 2, "resourceVersion": "5"}
            server.agents, server.lease = [edited], lease("", 2)
            prompts = until(lambda: [each for each in server.applied if "prompt" in each], "it leads, and applies")
            assert "the new prompt" in prompts[0]
        finally:
            process.kill()
