"""The checks behind each condition, in order of priority: the first that finds something gives the reason and the
message.

Each check is named by what is wrong and says what to do about it. Pure: facts in, verdict out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ropewalk_operator import names
from ropewalk_operator.facts import Facts
from ropewalk_operator.pods import Trouble


@dataclass(frozen=True)
class Verdict:
    """Why a condition is not True."""

    reason: str
    message: str
    status: str = "False"


NEEDS_AN_AGENT = "NeedsAnAgent"
DISCOVERY_FAILED = "DiscoveryFailed"
DELETION_BLOCKED = "DeletionBlocked"
CLASHES_NAMED = 10
AGENTS_NAMED = 3
FINALIZERS_NAMED = 5
COLLECTORS = frozenset({"foregroundDeletion", "orphan"})
"""Finalizers of Kubernetes' garbage collector, which takes them away itself."""

REFUSALS = (
    (
        "exceeded quota",
        "QuotaExceeded",
        "raise the ResourceQuota, free some of it, or lower spec.pod.resources; Kubernetes tries again by itself",
    ),
    (
        "violates PodSecurity",
        "PodSecurityRefused",
        "remove from spec.pod what is refused, or let the namespace's pod-security.kubernetes.io/enforce allow it",
    ),
)
"""Words of the API server, and what they mean: reason and advice."""
ANY_REFUSAL = ["PodsRefused", "change what is refused in the spec, or the policy that refuses it"]

Check = Callable[[Facts], Verdict | None]


def first(checks: Sequence[Check], facts: Facts) -> Verdict | None:
    """The verdict of the first check that finds something."""
    return next((verdict for check in checks if (verdict := check(facts)) is not None), None)


def spec_is_invalid(facts: Facts) -> Verdict | None:
    """The schema let something through that cannot be used."""
    return Verdict("InvalidSpec", facts.invalid) if facts.invalid else None


def model_does_not_exist(facts: Facts) -> Verdict | None:
    """The Agent names a Model that is not there."""
    if facts.missing_model is None:
        return None
    message = (
        f'spec.modelRef names the Model "{facts.missing_model}", not found in this namespace; '
        "create it, or name another one"
    )
    return Verdict("ModelNotFound", message)


def mcp_server_does_not_exist(facts: Facts) -> Verdict | None:
    """The Agent names an MCPServer that is not there."""
    if not facts.missing_servers:
        return None
    quoted = ", ".join(f'"{name}"' for name in facts.missing_servers)
    what = "the MCPServer" if len(facts.missing_servers) == 1 else "the MCPServers"
    them = "it" if len(facts.missing_servers) == 1 else "them"
    message = f"spec.mcpServers names {what} {quoted}, not found in this namespace; create {them}, or end naming {them}"
    return Verdict("McpServerNotFound", message)


def system_prompt_is_missing(facts: Facts) -> Verdict | None:
    """The ConfigMap, or its key, is not there."""
    return Verdict("SystemPromptNotFound", facts.prompt_problem) if facts.prompt_problem else None


def child_name_is_taken(facts: Facts) -> Verdict | None:
    """Somebody else's object has the name of a child."""
    if not facts.taken:
        return None
    taken = ", ".join(facts.taken)
    advice = f"delete it, or give this {facts.kind} another name"
    return Verdict("ChildNameTaken", f"{taken} exists and belongs to something else; {advice}")


def spec_is_not_accepted(facts: Facts) -> Verdict | None:
    """Nothing of the current spec has been applied."""
    if first(ACCEPTED, facts) is None:
        return None
    answering = sum(pod.ready for pod in facts.pods if not pod.deleting)
    return Verdict("NotAccepted", "the spec is not accepted, so nothing of it runs" + _go_on(answering, "pod"))


def a_former_owner_holds_children(facts: Facts) -> Verdict | None:
    """Children of a deleted resource of the same name are not gone yet."""
    if not facts.waiting:
        return None
    waiting = ", ".join(facts.waiting)
    message = (
        f"{waiting} of a former owner of this name is still being deleted; if that does not end, whatever set its "
        "metadata.finalizers has to take them away"
    )
    return Verdict("WaitingForDeletion", message)


def the_api_server_refused_a_child(facts: Facts) -> Verdict | None:
    """A quota, an admission webhook or validation said no."""
    if not facts.refused:
        return None
    message = f"the API server refused {'; '.join(facts.refused)}; change that in the spec, or what refuses it"
    return Verdict("ChildRefused", message + _old(facts))


def agent_is_suspended(facts: Facts) -> Verdict | None:
    """The user wants no pods. That is no failure, and nothing answers all the same."""
    return (
        Verdict("Suspended", "spec.suspend is true, so no pods run; set it to false to start them")
        if facts.suspended
        else None
    )


def replicas_are_zero(facts: Facts) -> Verdict | None:
    """The user scaled to nothing."""
    if facts.replicas or facts.remote:
        return None
    if facts.autoscaled:
        deployment = names.child_of(facts.kind, facts.name)
        return Verdict(
            "ScaledToZero",
            f"the Deployment {deployment} was scaled to 0, so no pods run, and its autoscaler leaves it alone; "
            f"scale it to 1 or more to start them: kubectl scale deployment {deployment} --replicas=1",
        )
    return Verdict("ScaledToZero", "spec.replicas is 0, so no pods run; set it to 1 or more to start them")


def deployment_is_missing(facts: Facts) -> Verdict | None:
    """It was applied, and was deleted since."""
    return (
        Verdict("Progressing", "the Deployment is being created")
        if facts.deployment is None and not facts.remote
        else None
    )


def pods_cannot_be_created(facts: Facts) -> Verdict | None:
    """The Deployment's own controller was refused: a quota, or pod security."""
    if facts.deployment is None or facts.deployment.failure is None or _enough(facts):
        return None
    failure = facts.deployment.failure
    reason, advice = next((found for words, *found in REFUSALS if words in failure), ANY_REFUSAL)
    return Verdict(reason, f"pods cannot be created: {failure}; {advice}" + _old(facts))


def pods_are_in_trouble(facts: Facts) -> Verdict | None:
    """A pod of the current spec says what is wrong with it."""
    if _enough(facts):
        return None
    for pod in facts.fresh_pods:
        # What a running pod answers now says more than how its last container ended.
        trouble: Trouble | None = None if pod.ready else facts.extra_trouble.get(pod.uid) or pod.trouble
        if trouble is not None:
            return Verdict(trouble.reason, f"pod {pod.name}: {trouble.message}{_old(facts)}")
    return None


def rollout_takes_too_long(facts: Facts) -> Verdict | None:
    """The Deployment gave up waiting and no pod says why."""
    if facts.deployment is None or not facts.deployment.deadline_exceeded or _enough(facts):
        return None
    message = f"{facts.fresh_ready} of {facts.replicas} pods of this spec are ready, and no progress is made; "
    if mute := next((pod.name for pod in facts.fresh_pods if pod.running and not pod.ready), None):
        message += (
            f"pod {mute} runs, and does not answer as the readiness probe wants: see kubectl logs {mute}, and check "
            "its image"
        )
    else:
        message += f"see kubectl describe deployment {names.child_of(facts.kind, facts.name)}"
    return Verdict("RolloutFailed", message + _old(facts))


def pods_are_not_ready(facts: Facts) -> Verdict | None:
    """Nothing is known to be wrong: it takes its time."""
    if facts.remote or _enough(facts):
        return None
    return Verdict("Progressing", f"{facts.fresh_ready} of {facts.replicas} pods of this spec are ready{_old(facts)}")


def a_required_server_is_not_reached(facts: Facts) -> Verdict | None:
    """Of a server that only agents can ask, this Agent's own pods tell whether they reach it."""
    asked = [server.name for server in facts.servers if server.required and server.needs_agent]
    if not asked or not facts.replicas or facts.fresh_ready:
        # Without pods there is nobody to ask; a ready pod has reached every required server.
        return None
    for pod in facts.fresh_pods:
        trouble = facts.extra_trouble.get(pod.uid)
        if trouble is not None and any(f"mcp server {name}:" in trouble.message for name in asked):
            return Verdict("McpServerNotReady", f"pod {pod.name}: {trouble.message}")
    quoted = ", ".join(f'"{name}"' for name in asked)
    return Verdict("Pending", f"no pod of this spec has told yet that it reaches {quoted}", "Unknown")


def deletion_is_blocked(finalizers: Sequence[str], kind: str, name: str) -> Verdict:
    """It was deleted, and somebody's finalizers keep it. Nothing of its spec is applied any more.

    Where its children are deleted first, nothing keeps those; a Model has none.
    """
    others, own = [each for each in finalizers if each not in COLLECTORS], [e for e in finalizers if e in COLLECTORS]
    if not others:
        message = (
            f"it was deleted, and waits for Kubernetes' garbage collector (metadata.finalizers {_quoted(own)}); see "
            "whether kube-controller-manager runs, and what else names it in metadata.ownerReferences"
        )
        return Verdict(DELETION_BLOCKED, message)
    has_pods = kind in names.OWNER_LABELS and "foregroundDeletion" not in own
    pods = ", and its pods go on until then" if has_pods else ""
    patch = json.dumps({"metadata": {"finalizers": own or None}}, separators=(",", ":"))
    message = (
        f"it was deleted, and waits for whoever set metadata.finalizers {_quoted(others)} to take them away{pods}; "
        f"where nobody will: kubectl patch {kind.lower()} {name} --type=merge -p '{patch}'"
    )
    return Verdict(DELETION_BLOCKED, message)


def _quoted(finalizers: Sequence[str]) -> str:
    quoted = ", ".join(f'"{each}"' for each in finalizers[:FINALIZERS_NAMED])
    more = len(finalizers) - FINALIZERS_NAMED
    return f"{quoted} and {more} more" if more > 0 else quoted


def tool_names_clash(facts: Facts) -> Verdict | None:
    """Two servers offer a tool of the same name: the model sees the first one's only."""
    if not facts.clashes:
        return None
    said = ", ".join(
        f'"{clash.tool}" ({" and ".join(place or "local tools" for place in clash.places)})'
        for clash in facts.clashes[:CLASHES_NAMED]
    )
    if more := len(facts.clashes) - CLASHES_NAMED:
        said += f" and {more} more" if more > 0 else ""
    advice = "set spec.mcpServers[].prefix of all but one, or keep one out by spec.mcpServers[].tools"
    return Verdict("ToolNamesClash", f"tools of the same name: {said}; the first one's is used; {advice}")


def required_server_is_not_ready(facts: Facts) -> Verdict | None:
    """Names each required server that is not Ready, with its own message."""
    down = [server for server in facts.servers if server.required and not server.ready]
    if not down:
        return None
    said = "; ".join(f'mcp server "{server.name}": {server.message}' for server in down)
    return Verdict("McpServerNotReady", said)


def tools_are_unknown(facts: Facts) -> Verdict | None:
    """With a spec that is not accepted, nothing is known of its tools."""
    if first(ACCEPTED, facts) is None:
        return None
    return Verdict("NotAccepted", "the spec is not accepted, so its tools are not known", "Unknown")


def nobody_can_list_the_tools_yet(facts: Facts) -> Verdict | None:
    """The server wants credentials, which the operator does not have, and no agent has told of it yet."""
    if not facts.discovery_pending or not facts.needs_agent:
        return None
    said = "it wants credentials, which only agents have: its tools are known once an Agent that names it "
    if not facts.asked_agents:
        return Verdict(NEEDS_AN_AGENT, f"{said}runs", "Unknown")
    asked = ", ".join(f'"{name}"' for name in facts.asked_agents[:AGENTS_NAMED])
    if (more := len(facts.asked_agents) - AGENTS_NAMED) > 0:
        asked += f" and {more} more"
    return Verdict(NEEDS_AN_AGENT, f"{said}reports them at /tools; nothing was heard yet of {asked}", "Unknown")


def discovery_failed(facts: Facts) -> Verdict | None:
    """The server answered tools/list with an error, or did not answer."""
    return Verdict(DISCOVERY_FAILED, facts.discovery_error) if facts.discovery_error else None


def discovery_is_pending(facts: Facts) -> Verdict | None:
    """Nobody has been asked yet."""
    if not facts.discovery_pending:
        return None
    return Verdict("Pending", "the tools are listed as soon as the server answers", "Unknown")


ACCEPTED: tuple[Check, ...] = (
    spec_is_invalid,
    model_does_not_exist,
    mcp_server_does_not_exist,
    system_prompt_is_missing,
    child_name_is_taken,
)
TOOLS_READY: tuple[Check, ...] = (
    mcp_server_does_not_exist,
    tools_are_unknown,
    required_server_is_not_ready,
    a_required_server_is_not_reached,
    tool_names_clash,
)
AVAILABLE: tuple[Check, ...] = (
    spec_is_not_accepted,
    a_former_owner_holds_children,
    the_api_server_refused_a_child,
    agent_is_suspended,
    replicas_are_zero,
    deployment_is_missing,
    pods_are_in_trouble,
    pods_cannot_be_created,
    rollout_takes_too_long,
    pods_are_not_ready,
)
TOOLS_DISCOVERED: tuple[Check, ...] = (
    tools_are_unknown,
    discovery_failed,
    nobody_can_list_the_tools_yet,
    discovery_is_pending,
)


def _enough(facts: Facts) -> bool:
    deployment = facts.deployment
    return (
        deployment is not None
        and deployment.observed_generation >= deployment.generation
        and deployment.updated >= facts.replicas
        and deployment.available >= facts.replicas
        and facts.fresh_ready >= facts.replicas
    )


def _old(facts: Facts) -> str:
    return _go_on(facts.old_ready, "old pod")


def _go_on(count: int, what: str) -> str:
    if not count:
        return ""
    return f"; {count} {what} goes on answering" if count == 1 else f"; {count} {what}s go on answering"
