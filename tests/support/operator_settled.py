"""Says what is still wrong in a namespace in which the operator works: the same end state after every fault."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from api_client import ApiClient

MANAGED = "app.kubernetes.io/managed-by=ropewalk-operator"
ALWAYS = ("configmaps", "serviceaccounts", "services", "networkpolicies", "deployments")
SOMETIMES = ("poddisruptionbudgets", "horizontalpodautoscalers", "persistentvolumeclaims")


def wrong(api: ApiClient, prompts: Mapping[str, str]) -> list[str]:
    """What differs from an Agent for each name, with this prompt, exactly five children and a status about it."""
    agents = {body["metadata"]["name"]: body for body in api.items("agents")}
    problems = [f"no Agent {name}" for name in prompts if name not in agents]
    for plural in ALWAYS:
        children = {body["metadata"]["name"]: body for body in api.items(plural, MANAGED)}
        expected = {f"{name}-agent": name for name in prompts}
        problems += [f"left over: {plural} {name}" for name in children if name not in expected]
        problems += [f"missing: {plural} {name}" for name in expected if name not in children]
        problems += [
            f"not owned by its Agent: {plural} {name}"
            for name, child in children.items()
            if name in expected and _owner_uid(child) != agents[expected[name]]["metadata"]["uid"]
        ]
        if plural == "configmaps":
            problems += [
                f"old settings: {name}"
                for name, child in children.items()
                if name in expected
                and json.loads(child["data"]["agent.json"])["systemPrompt"] != prompts[expected[name]]
            ]
    problems += [f"left over: {plural}" for plural in SOMETIMES if api.items(plural, MANAGED)]
    problems += [problem for name in prompts if name in agents for problem in _status_problems(agents[name])]
    return problems


def doubled(api: ApiClient) -> list[str]:
    """Events that say the same of the same object."""
    said = Counter(
        (event["involvedObject"]["uid"], event["reason"], event["message"], event["involvedObject"]["resourceVersion"])
        for event in api.items("events")
    )
    return [f"{reason}: {message}" for (_, reason, message, _), times in said.items() if times > 1]


def _owner_uid(child: dict[str, Any]) -> str:
    (reference,) = child["metadata"]["ownerReferences"]
    return str(reference["uid"])


def _status_problems(agent: dict[str, Any]) -> list[str]:
    name, status = agent["metadata"]["name"], agent.get("status") or {}
    problems = []
    if status.get("observedGeneration") != agent["metadata"]["generation"]:
        problems.append(f"{name} is judged for generation {status.get('observedGeneration')}")
    conditions = {each["type"]: each for each in status.get("conditions") or ()}
    if (conditions.get("Accepted") or {}).get("status") != "True":
        problems.append(f"{name} is not accepted: {conditions.get('Accepted')}")
    if (conditions.get("Ready") or {}).get("reason") != "Progressing":
        problems.append(f"{name} has no pods, and Ready says {conditions.get('Ready')}")
    return problems
