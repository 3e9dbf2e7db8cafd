"""A provider's library is loaded where it is configured, and those of the others are not."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from agent_model_desk import model_document
from cluster.layout import REPOSITORY

LIBRARIES = {
    "openai": {"openai"},
    "openai-compatible": {"openai"},
    "anthropic": {"anthropic"},
    "bedrock": {"boto3", "botocore"},
    "gemini": {"google.genai"},
    "mistral": {"mistralai.client"},
    "ollama": {"ollama"},
    "litellm": {"litellm", "openai"},
    "llamacpp": set(),
}
# What others are so free as to load where it is there; nothing of ours needs it.
FREE = {"litellm": {"aiohttp", "boto3", "botocore"}}
ALL = frozenset({"aiohttp"}.union(*LIBRARIES.values()))

# As the pod does it: lean first, then Strands and the model, on a loop. Stand-ins of lean are no libraries.
BUILD = """
import asyncio, json, sys
from ropewalk_agent import lean
from ropewalk_agent.config import ModelConfig
from ropewalk_agent.models import build, need_boto

async def main():
    configs = [ModelConfig.model_validate(document) for document in json.loads(sys.argv[1])]
    lean.install(with_boto=need_boto(configs))
    import strands
    strands.Agent
    built = [build(config, 5.0) for config in configs]
    print(json.dumps([name for name, module in sys.modules.items() if getattr(module, "__file__", None)]))
    for one in built:
        await one.close()

asyncio.run(main())
"""


def loaded(tmp_path: Path, *providers: str) -> frozenset[str]:
    """Which of the libraries a process has loaded that built the Models of these providers."""
    (tmp_path / "key").write_text("k")
    documents = [model_document(provider, "http://127.0.0.1:9", tmp_path / "key") for provider in providers]
    environment = {"PYTHONPATH": str(REPOSITORY / "agent_image" / "src"), "PATH": ""}
    command = [sys.executable, "-c", BUILD, json.dumps(documents)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
    return ALL & set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("provider", LIBRARIES)
def test_a_provider_loads_its_own_library_and_no_other(provider: str, tmp_path: Path) -> None:
    assert loaded(tmp_path, provider) - FREE.get(provider, set()) == LIBRARIES[provider]


def test_a_fallback_of_another_provider_brings_its_library(tmp_path: Path) -> None:
    assert loaded(tmp_path, "ollama", "bedrock") == {"ollama", "boto3", "botocore"}


def test_gemini_leaves_aiohttp_to_others(tmp_path: Path) -> None:
    assert "aiohttp" in loaded(tmp_path, "gemini", "litellm")
