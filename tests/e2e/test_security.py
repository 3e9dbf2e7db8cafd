"""What Ropewalk's pods and its operator may do: the namespace of every e2e test enforces restricted pods."""

from __future__ import annotations

import pytest

from e2e_cluster import SYSTEM, Workspace, agent, kubectl, mcpserver


@pytest.fixture(scope="module", autouse=True)
def calculator(space: Workspace) -> None:
    space.apply(mcpserver(), agent("calculator", "math"))
    space.wait("agent/calculator")


def test_the_namespace_enforces_restricted_pods_and_takes_all_of_them(space: Workspace) -> None:
    labels = space.get("namespace", space.name)["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    assert len(space.pods("app.kubernetes.io/managed-by=ropewalk-operator")) == 2


@pytest.mark.parametrize("deployment", ["calculator-agent", "math-mcp"])
def test_no_pod_has_an_api_token_unasked(space: Workspace, deployment: str) -> None:
    # Where the image has no find, this fails.
    search = "command -v find > /dev/null && find / -name token -path '*serviceaccount*' 2>/dev/null | wc -l"
    found = space.kubectl("exec", f"deployment/{deployment}", "--", "sh", "-c", search)
    assert found.strip() == "0"


@pytest.mark.parametrize("deployment", ["calculator-agent", "math-mcp"])
def test_the_root_file_system_is_read_only(space: Workspace, deployment: str) -> None:
    said = space.kubectl("exec", f"deployment/{deployment}", "--", "sh", "-c", "touch /opt/x 2>&1 || id -u")
    assert "Read-only file system" in said
    assert "65532" in said


def test_the_operator_has_no_wildcard_and_no_right_to_secrets() -> None:
    account = kubectl(
        "get", "deployments", "-n", SYSTEM, "-o", "jsonpath={.items[0].spec.template.spec.serviceAccountName}"
    )
    listed = kubectl("auth", "can-i", "--list", "--as", f"system:serviceaccount:{SYSTEM}:{account}")
    resources = [line for line in listed.splitlines()[1:] if line and not line.startswith(" ")]
    assert any(line.startswith("deployments.apps") for line in resources)
    # Everybody may read the API's discovery paths, some of which end in /*; those are no resources.
    assert not [line for line in resources if "*" in line.replace("/*", "")]
    assert not [line for line in resources if line.startswith("secrets")]
