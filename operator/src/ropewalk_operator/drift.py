"""Does a live object still hold what was asked for? Pure comparison on the fields that the operator owns.

Fields that others own, and defaults that the API server filled in, are no drift.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

# Server-side apply replaces these as a whole, so that anything more in them is somebody's change.
ATOMIC = frozenset(
    {"args", "drop", "egress", "ingress", "matchLabels", "nodeSelector", "podSelector", "policyTypes", "selector"}
)
# The operator owns these lists as a whole: one entry more is somebody's change.
WHOLE = frozenset(
    {
        *("containers", "env", "envFrom", "imagePullSecrets", "initContainers", "metrics", "ports", "tolerations"),
        *("topologySpreadConstraints", "volumeMounts", "volumes"),
    }
)
# Of a pod's spec and of its container the operator owns whatever the API server does not add by itself.
POD_DEFAULTS = frozenset({"dnsPolicy", "restartPolicy", "schedulerName", "serviceAccount"})
CONTAINER_DEFAULTS = frozenset({"terminationMessagePath"})
QUANTITIES = frozenset({"requests", "limits"})
QUANTITY = frozenset({"averageValue", "divisor", "sizeLimit"})

_QUANTITY = re.compile(r"^([+-]?[0-9.]+)([eE][+-]?[0-9]+|[KMGTPE]i|[numkMGTPE])?$")
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_FACTORS = {
    **{suffix: Decimal(10) ** exponent for suffix, exponent in _DECIMAL.items()},
    **{suffix: Decimal(2) ** exponent for suffix, exponent in _BINARY.items()},
}


def contains(live: Any, desired: Any) -> bool:
    """True when every field of `desired` has the same value in `live`."""
    if isinstance(desired, Mapping):
        return (
            isinstance(live, Mapping)
            and not additions(live, desired)
            and all(_field_holds(live, key, value) for key, value in desired.items())
        )
    if isinstance(desired, Sequence) and not isinstance(desired, str):
        # Lists of objects are maps by a key in the API server: order and additions of others do not matter.
        if not isinstance(live, Sequence) or isinstance(live, str):
            return False
        if all(isinstance(item, Mapping) for item in desired):
            return all(any(contains(candidate, item) for candidate in live) for item in desired)
        return list(live) == list(desired)
    return bool(live == desired)


def additions(live: Mapping[str, Any], desired: Mapping[str, Any]) -> set[str]:
    """What somebody has added to a pod's spec or to a container; of other objects, additions are nobody's business."""
    if "containers" in desired:
        return set(live) - set(desired) - POD_DEFAULTS
    if "image" in desired:
        return set(live) - set(desired) - CONTAINER_DEFAULTS
    return set()


def replacement(live: Any, desired: Mapping[str, Any]) -> dict[str, Any]:
    """A merge patch that takes away what was added: server-side apply leaves alone what others own."""
    patch: dict[str, Any] = {}
    if isinstance(live, Mapping):
        patch |= dict.fromkeys(additions(live, desired))
    for key, value in desired.items():
        seen = live.get(key) if isinstance(live, Mapping) else None
        patch[key] = replacement(seen, value) if isinstance(value, Mapping) else value
    return patch


def _field_holds(live: Mapping[str, Any], key: str, value: Any) -> bool:
    if key not in live:
        # The API server leaves empty values out; false and 0 are values.
        return value is None or value in ("", [], {})
    if key in ATOMIC:
        return bool(live[key] == value)
    if key in QUANTITIES and isinstance(value, Mapping):
        seen = live[key]
        return isinstance(seen, Mapping) and {k: quantity(v) for k, v in seen.items()} == {
            k: quantity(v) for k, v in value.items()
        }
    if key in QUANTITY:
        return quantity(live[key]) == quantity(value)
    if (
        key in WHOLE
        and isinstance(value, Sequence)
        and isinstance(live[key], Sequence)
        and len(live[key]) != len(value)
    ):
        return False
    return contains(live[key], value)


def quantity(value: object) -> Decimal | str:
    """A Kubernetes quantity as a number, so that `1000m` equals `1`; the text itself where it is none."""
    match = _QUANTITY.match(str(value))
    if match is None:
        return str(value)
    number, suffix = match.group(1), match.group(2) or ""
    return Decimal(number + suffix) if suffix not in _FACTORS else Decimal(number) * _FACTORS[suffix]
