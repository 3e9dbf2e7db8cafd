"""Edits, drift and broken rollouts, seen by somebody who goes on asking."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

import e2e_queries
from e2e_cluster import Json, Workspace, agent, image, mcpserver
from waiting import until


@pytest.fixture(scope="module", autouse=True)
def calculator(space: Workspace) -> None:
    space.apply(mcpserver(), agent("calculator", "math"))
    space.wait("agent/calculator")


@contextmanager
def constant_queries(url: str) -> Iterator[list[int | str]]:
    """Ask every 100 ms, each time over a connection of its own; the list of status codes and errors."""
    seen: list[int | str] = []
    done = threading.Event()

    def ask() -> None:
        try:
            seen.append(httpx.post(f"{url}/query", json={"query": "What is 1 plus 1?"}, timeout=30).status_code)
        except httpx.HTTPError as error:
            seen.append(repr(error))

    def keep_asking() -> None:
        threads = []
        while not done.wait(0.1):
            threads.append(threading.Thread(target=ask))
            threads[-1].start()
        for thread in threads:
            thread.join()

    asker = threading.Thread(target=keep_asking)
    asker.start()
    try:
        yield seen
    finally:
        done.set()
        asker.join()


def pod_of(space: Workspace, name: str) -> str:
    pods = space.pods(f"ropewalk.dev/agent={name}")
    return str(pods[0]["metadata"]["name"]) if len(pods) == 1 else ""


def test_a_new_prompt_rolls_the_pods_without_a_failed_query_on_new_connections_or_kept_ones(space: Workspace) -> None:
    before = pod_of(space, "calculator")
    url = space.url("calculator-agent")
    with constant_queries(url) as seen, e2e_queries.constant_queries(url) as kept:
        kept.more(50)
        space.patch("agent/calculator", {"systemPrompt": "You are a very good calculator."})
        space.wait("agent/calculator")

        def old_pod_is_gone() -> bool:
            names = space.kubectl("get", "pods", "-l", "ropewalk.dev/agent=calculator", "-o", "name").split()
            return len(names) == 1 and names != [f"pod/{before}"]

        until(old_pod_is_gone, "the old pod is gone")
        kept.more(50)
    assert len(seen) > 20
    assert set(seen) == {200}
    assert set(kept.outcomes) == {e2e_queries.RIGHT}


def test_a_deleted_deployment_comes_back(space: Workspace) -> None:
    before = space.get("deployment/calculator-agent")["metadata"]["uid"]
    space.kubectl("delete", "deployment/calculator-agent", "--wait=false")

    def is_back() -> bool:
        return bool(space.get("deployment/calculator-agent")["metadata"]["uid"] != before)

    until(is_back, "the Deployment is back")
    space.wait("agent/calculator")


def test_an_image_changed_by_hand_is_put_back(space: Workspace) -> None:
    space.kubectl("set", "image", "deployment/calculator-agent", "agent=ropewalk.dev/other:1")

    def image_is_back() -> bool:
        pod = space.get("deployment/calculator-agent")["spec"]["template"]["spec"]
        return bool(pod["containers"][0]["image"] == image("agent"))

    until(image_is_back, "the image is put back")
    space.wait("agent/calculator")


def test_a_deleted_agent_leaves_nothing_behind(space: Workspace) -> None:
    space.apply(agent("short-lived"))
    space.wait("agent/short-lived")
    space.kubectl("delete", "agent/short-lived")

    def left() -> list[str]:
        kinds = "configmaps,serviceaccounts,deployments,replicasets,pods,services,networkpolicies"
        return space.kubectl("get", kinds, "-l", "ropewalk.dev/agent=short-lived", "-o", "name").split()

    until(lambda: not left(), "no child is left")


def test_an_agent_waits_for_the_server_it_names(space: Workspace) -> None:
    space.apply(agent("early", "late-math"))
    refused = space.wait("agent/early", "Accepted", "False")
    assert "late-math" in refused["message"]
    space.apply(mcpserver("late-math"))
    space.wait("agent/early")
    assert "42" in space.ask("early", "What is 40 plus 2?")["response"]


def test_an_image_that_cannot_be_pulled_is_named_while_the_old_pods_go_on(space: Workspace) -> None:
    space.apply(mcpserver("fragile"), agent("loyal", "fragile"))
    space.wait("agent/loyal")
    space.patch("mcpserver/fragile", {"image": "ropewalk.dev/no-such-image:1"})

    def says_why() -> Json | None:
        ready = space.condition("mcpserver/fragile", "Ready")
        return ready if ready["status"] == "False" and "no-such-image" in ready["message"] else None

    assert until(says_why, "Ready=False names the image")
    assert "42" in space.ask("loyal", "What is 40 plus 2?")["response"]
    space.patch("mcpserver/fragile", {"image": image("mcp-math")})
    space.wait("mcpserver/fragile")


def test_a_missing_key_secret_is_named(space: Workspace) -> None:
    model = {
        "provider": "openai-compatible",
        "id": "ropewalk-demo",
        "baseURL": "http://demo-model:8080/v1",
        "apiKeySecretRef": {"name": "no-such-secret", "key": "api-key"},
    }
    space.apply(agent("keyless", model=model))

    def says_why() -> bool:
        return "no-such-secret" in str(space.condition("agent/keyless", "Ready")["message"])

    until(says_why, "Ready names the Secret")
    space.kubectl("create", "secret", "generic", "no-such-secret", "--from-literal=api-key=k")
    space.wait("agent/keyless", seconds=110)


def test_a_missing_prompt_config_map_is_named_and_found_once_it_is_there(space: Workspace) -> None:
    prompt = {"systemPrompt": None, "systemPromptFrom": {"configMapKeyRef": {"name": "prompts", "key": "main"}}}
    space.apply(agent("prompted", **prompt))
    assert "prompts" in space.wait("agent/prompted", "Accepted", "False")["message"]
    space.kubectl("create", "configmap", "prompts", "--from-literal=main=You help.")
    space.wait("agent/prompted")


def test_a_crash_loop_is_reported_with_its_last_words(space: Workspace) -> None:
    space.apply(mcpserver("broken", image=image("mcp-math"), args=["--no-such-option"]))

    def says_why() -> bool:
        return "--no-such-option" in str(space.condition("mcpserver/broken", "Ready")["message"])

    until(says_why, "Ready carries the last words")


def test_a_suspended_agent_has_no_pods_and_everything_else(space: Workspace) -> None:
    space.apply(agent("sleeper"))
    space.wait("agent/sleeper")
    space.patch("agent/sleeper", {"suspend": True})
    until(lambda: not space.pods("ropewalk.dev/agent=sleeper"), "no pod is left")
    assert space.get("service/sleeper-agent")
    space.patch("agent/sleeper", {"suspend": False})
    space.wait("agent/sleeper")
