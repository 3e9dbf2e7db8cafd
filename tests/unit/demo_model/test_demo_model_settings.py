"""The demo model's settings and its manifest."""

import re
from pathlib import Path

import pytest
import yaml

import demo_model
from demo_model.settings import Settings, from_environment
from stand_in_process import InvalidSettings

ROOT = Path(__file__).parents[3]


def test_settings_are_read_from_the_environment() -> None:
    assert from_environment({}) == Settings(delay_seconds=0, chunk_seconds=0)
    environment = {"ROPEWALK_DEMO_DELAY_MILLISECONDS": "250", "ROPEWALK_DEMO_CHUNK_MILLISECONDS": "10"}
    assert from_environment(environment) == Settings(delay_seconds=0.25, chunk_seconds=0.01)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ROPEWALK_DEMO_DELAY_MILLISECONDS", "-1"),
        ("ROPEWALK_DEMO_CHUNK_MILLISECONDS", "1e9"),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_allowed(name: str, value: str) -> None:
    with pytest.raises(InvalidSettings, match=f"{name} is '{value}'; use a whole number from 0 to"):
        from_environment({name: value})


def test_every_setting_is_documented() -> None:
    source = (ROOT / "dev" / "stand_ins" / "demo_model" / "settings.py").read_text()
    assert demo_model.__doc__ is not None
    names = set(re.findall(r"ROPEWALK_\w+", source))
    assert names
    for name in names:
        assert name in demo_model.__doc__


def test_the_manifest_is_for_any_namespace_and_passes_restricted_pod_security() -> None:
    documents = list(yaml.safe_load_all((ROOT / "examples" / "demo-model" / "demo-model.yaml").read_text()))
    deployment, service = documents
    assert [document["metadata"].get("namespace") for document in documents] == [None, None]
    assert (service["metadata"]["name"], service["spec"]["ports"][0]["port"]) == ("demo-model", 8080)
    pod = deployment["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    [container] = pod["containers"]
    assert container["image"] == "ropewalk.dev/demo-model:0.1.0"
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["readinessProbe"]["periodSeconds"] == 1
    assert set(container["resources"]) == {"requests", "limits"}
