"""One operator behind a proxy that spoils its calls, and a user who goes past it, in a namespace of their own."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from api_client import ApiClient
from apiserver import ApiServer
from faulty_proxy import Call, FaultyProxy, faulty_proxy
from operator_process import OperatorProcess
from operator_settled import doubled, wrong
from ropewalk_operator.kinds import WATCHED
from waiting import until

AGENTS = 20
WRITES_PER_AGENT = 6
"""Five children and a status."""
WATCHED_KINDS = len(WATCHED)
MODEL = {"provider": "openai-compatible", "id": "m", "baseURL": "http://demo-model:8080/v1"}
CONVERGED_SECONDS = 60.0

_numbers = itertools.count(1)


class FaultWorld:
    """What a fault is tried on."""

    def __init__(self, proxy: FaultyProxy, operator: OperatorProcess, api: ApiClient) -> None:
        self.proxy = proxy
        self.operator = operator
        self.api = api
        self.prompts: dict[str, str] = {}
        self.restarts = 0

    def apply(self, prompt: str, agents: int = AGENTS) -> None:
        """So many Agents with this prompt."""
        for number in range(agents):
            self.agent(f"agent-{number:02}", prompt)

    def agent(self, name: str, prompt: str, **spec: Any) -> None:
        """One Agent."""
        self.apply_resource("Agent", name, {"systemPrompt": prompt, "model": MODEL, **spec})
        self.prompts[name] = prompt

    def apply_resource(self, kind: str, name: str, spec: dict[str, Any]) -> None:
        """An Agent or MCPServer."""
        body = {"apiVersion": "ropewalk.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}
        self.api.apply(f"{kind.lower()}s", body)

    def revive(self) -> None:
        """Start the operator again if it has ended, as a kubelet does; `restarts` counts how often."""
        if self.operator.has_ended():
            self.operator.start(wait=False)
            self.restarts += 1

    def converges(self, within_seconds: float = CONVERGED_SECONDS) -> None:
        """Return when every Agent has what it shall have; nothing may be there twice. The operator is revived."""
        seen: list[list[str]] = [[]]

        def settled() -> bool:
            self.revive()
            seen[0] = wrong(self.api, self.prompts)
            return not seen[0]

        try:
            until(settled, "everything converges", within_seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}: {seen[0]}") from None
        assert not doubled(self.api)


@contextmanager
def fault_world(
    server: ApiServer, folder: Path, *, start: type[OperatorProcess] = OperatorProcess, **environment: str
) -> Iterator[FaultWorld]:
    """A namespace, a proxy, and an operator of the type `start` that is ready in it."""
    name = f"faults-{next(_numbers)}"
    server.kubectl("create", "namespace", name)
    api = ApiClient(server.kubeconfig, name)
    with faulty_proxy(server.kubeconfig, folder) as (proxy, kubeconfig):
        operator = start(
            kubeconfig,
            folder / "log",
            ROPEWALK_WATCH_NAMESPACES=name,
            ROPEWALK_LEASE_NAMESPACE=name,
            **environment,
        ).start()
        try:
            yield FaultWorld(proxy, operator, api)
        finally:
            operator.close()
            api.close()


def verbs(*chosen: str) -> Callable[[Call], bool]:
    """Whether a call has one of these verbs."""
    return lambda call: call.verb in chosen
