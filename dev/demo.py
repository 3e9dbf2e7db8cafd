"""The demo: install the chart, apply the examples, ask each agent one question, and say where to look next.

It asks through the API server, so that it needs neither a port-forward nor a way into the cluster's network.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster import images
from cluster import layout as where
from cluster.console import Failure, fail, say, step
from cluster.layout import Layout

_SYSTEM, _DEMO = "ropewalk-system", "ropewalk-demo"
_EXAMPLES = ("demo-model", "calculator", "cluster-helper")
_QUESTIONS = {"calculator": "What is 21.5 plus 20.5?", "cluster-helper": "Which pods run in the namespace kube-system?"}
_LAST_LINES = 20
_NAMESPACE = f"""apiVersion: v1
kind: Namespace
metadata: {{name: {_DEMO}, labels: {{pod-security.kubernetes.io/enforce: restricted}}}}
"""


@dataclass(frozen=True)
class Target:
    """The cluster that the demo runs in, and the programs that talk to it."""

    kubectl: tuple[str, ...]
    helm: tuple[str, ...]
    hint: str

    @classmethod
    def choose(cls, context: str) -> Target:
        """The local cluster, or a context of the user's own kubeconfig with the user's own kubectl and helm."""
        if not context:
            here = Layout.default()
            flag = f"--kubeconfig={here.kubeconfig}"
            hint = f"export KUBECONFIG={here.kubeconfig} PATH={here.bin}:$PATH"
            return cls((str(here.bin / "kubectl"), flag), (str(here.bin / "helm"), flag), hint)
        missing = [program for program in ("kubectl", "helm") if not shutil.which(program)]
        if missing:
            raise Failure(f"CONTEXT={context} is used with your own {' and '.join(missing)}, which is not installed.")
        hint = f"kubectl config use-context {context}"
        return cls(("kubectl", f"--context={context}"), ("helm", f"--kube-context={context}"), hint)

    def ask(self, agent: str, question: str) -> dict[str, Any]:
        """POST /query to an agent's Service through the API server."""
        path = f"/api/v1/namespaces/{_DEMO}/services/{agent}-agent:http/proxy/query"
        answer = _run(*self.kubectl, "create", "--raw", path, "-f", "-", text=json.dumps({"query": question}))
        return dict(json.loads(answer))


def main() -> int:
    """Run the demo; 0 when both agents have answered."""
    parser = argparse.ArgumentParser(prog="demo", description=__doc__)
    parser.add_argument("--context", default="", help="a context of your kubeconfig instead of the local cluster")
    parser.add_argument("--registry", default=where.IMAGE_PREFIX, help="where the nodes pull the images from")
    arguments = parser.parse_args()
    try:
        show(Target.choose(arguments.context), arguments.registry)
    except Failure as failure:
        return fail(failure)
    return 0


def show(target: Target, registry: str) -> None:
    """Everything after the cluster and the images."""
    with (
        step("Installing the chart", expected="15 seconds"),
        _explained(target, "describe", "pods", "-n", _SYSTEM, "--show-events"),
    ):
        _run(*target.helm, "upgrade", "--install", "ropewalk", str(where.REPOSITORY / "charts" / "ropewalk"),
             "--namespace", _SYSTEM, "--create-namespace", "--wait", "--timeout=3m",
             f"--set=image.registry={registry}", f"--set=image.tag={images.tag()}")  # fmt: skip
    with step("Applying the examples; waiting until they are Ready", expected="15 seconds"):
        _run(*target.kubectl, "apply", "-f", "-", text=_NAMESPACE)
        for file in [
            file for name in _EXAMPLES for file in sorted((where.REPOSITORY / "examples" / name).glob("*.yaml"))
        ]:
            _run(*target.kubectl, "apply", "-n", _DEMO, "-f", "-", text=_with_own_images(file, registry))
        agents = [f"agent/{name}" for name in _QUESTIONS]
        with _explained(target, "get", "ropewalk", "-n", _DEMO, "-o", "wide"):
            _run(*target.kubectl, "wait", "-n", _DEMO, "--for=condition=Ready", "--timeout=180s", *agents)
    for agent, question in _QUESTIONS.items():
        answer = target.ask(agent, question)
        say(f"\n{agent}: {question}")
        say(textwrap.indent(answer["response"], "    "))
        say(f"    (tools used: {', '.join(answer['tools_used']) or 'none'})")
    say("\n" + _run(*target.kubectl, "get", "ropewalk", "-n", _DEMO))
    say(_where_to_look(target))


def _with_own_images(file: Path, registry: str) -> str:
    """The example with this checkout's very images, so that a changed one is rolled out like any other change."""
    released = rf"image: {where.IMAGE_PREFIX}/([a-z-]+):{images.VERSION}\b"
    return re.sub(released, rf"image: {registry}/\1:{images.tag()}", file.read_text())


@contextmanager
def _explained(target: Target, *question: str) -> Iterator[None]:
    """When waiting fails, show the end of what kubectl answers to `question`."""
    try:
        yield
    except Failure as failure:
        seen = _run(*target.kubectl, *question).splitlines()[-_LAST_LINES:]
        raise Failure("\n".join([str(failure), *seen])) from failure


def _where_to_look(target: Target) -> str:
    return f"""The answers came from a demo model, which is no language model: it picks tools by matching words.
Look around:
    {target.hint}
    kubectl get ropewalk -n {_DEMO} -o wide
    kubectl describe agent calculator -n {_DEMO}
    kubectl port-forward -n {_DEMO} service/calculator-agent 8080 &
    curl -s localhost:8080/query -H 'Content-Type: application/json' -d '{{"query": "What is 6 times 7?"}}'
    curl -s localhost:8080/tools          # what it can use        (/ready: and whether it can)
    curl -s localhost:8080/metrics        # what Prometheus sees
Change examples/calculator/agent.yaml and apply it: the pods roll without a failed request."""


def _run(*command: str, text: str | None = None) -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, env=os.environ)
    if done.returncode:
        raise Failure(f"{' '.join(Path(word).name for word in command[:6])} … failed:\n{done.stderr.strip()}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
