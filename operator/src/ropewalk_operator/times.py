"""Kubernetes' times, as text and as seconds since the epoch. Never asks what time it is."""

from __future__ import annotations

from datetime import UTC, datetime


def timestamp(seconds: float) -> str:
    """Seconds since the epoch as Kubernetes writes times, to the second."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def epoch(text: str | None) -> float:
    """Seconds since the epoch of an RFC 3339 time; 0 where there is none."""
    return datetime.fromisoformat(text).timestamp() if text else 0.0
