"""What renderers make and apply.py writes: a Kubernetes object as plain data, and its fingerprint."""

from __future__ import annotations

import hashlib
import json
from typing import Any

Manifest = dict[str, Any]


def digest(value: object) -> str:
    """SHA-256 over canonical JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
