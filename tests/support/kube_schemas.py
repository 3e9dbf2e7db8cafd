"""Kubernetes' own description of its API, and CRDs -> a JSON schema for each kind, that knows every field. Pure.

kubeconform would fetch such schemas from the internet; these are of the very version that the tests run with.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

LOCATION = "{{ .ResourceKind }}{{ .KindSuffix }}.json"
"""How kubeconform names the file of a kind."""

# What the description calls a text, and is a number just as often.
_LOOSE = {
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": ["string", "integer"],
    "io.k8s.apimachinery.pkg.api.resource.Quantity": ["string", "number"],
}
_DEFINITIONS = "#/definitions/"

Schema = dict[str, Any]


def of_kubernetes(openapi: Mapping[str, Any]) -> dict[str, Schema]:
    """From swagger.json of Kubernetes, by file name."""
    definitions = {name: _strict(copy.deepcopy(node)) for name, node in openapi["definitions"].items()}
    definitions |= {name: {"type": types} for name, types in _LOOSE.items()}
    return {
        _file(kind["kind"], kind["group"], kind["version"]): {
            "$ref": f"{_DEFINITIONS}{name}",
            "definitions": {each: definitions[each] for each in _reached(name, definitions)},
        }
        for name, node in openapi["definitions"].items()
        for kind in node.get("x-kubernetes-group-version-kind", ())
    }


def of_crd(crd: Mapping[str, Any]) -> dict[str, Schema]:
    """From a CustomResourceDefinition, by file name."""
    spec = crd["spec"]
    return {
        _file(spec["names"]["kind"], spec["group"], version["name"]): _strict(
            copy.deepcopy(version["schema"]["openAPIV3Schema"])
        )
        for version in spec["versions"]
    }


def _file(kind: str, group: str, version: str) -> str:
    return "-".join(part for part in (kind.lower(), group.split(".", maxsplit=1)[0], version) if part) + ".json"


def _strict(node: Any) -> Any:
    """The same schema, refusing fields that it does not name. Changes what it is given."""
    if isinstance(node, list):
        return [_strict(each) for each in node]
    if not isinstance(node, dict):
        return node
    for key, value in node.items():
        # Below stand fields by their names, and not parts of a schema.
        node[key] = {name: _strict(each) for name, each in value.items()} if key == "properties" else _strict(value)
    if node.pop("x-kubernetes-int-or-string", False):
        node["type"] = ["string", "integer"]
    is_open = node.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in node
    if isinstance(node.get("properties"), dict) and not is_open:
        node["additionalProperties"] = False
    return node


def _reached(name: str, definitions: Mapping[str, Schema]) -> set[str]:
    found: set[str] = set()
    ahead = [name]
    while ahead:
        if (each := ahead.pop()) not in found:
            found.add(each)
            ahead += [ref.removeprefix(_DEFINITIONS) for ref in _references(definitions[each])]
    return found


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(reference := node.get("$ref"), str):
            yield reference
        for each in node.values():
            yield from _references(each)
    elif isinstance(node, list):
        for each in node:
            yield from _references(each)
