"""Results as models get them: bounded in size, and failures that say why there is none. Knows no protocol."""

import json
from typing import Any

from ropewalk_agent.tools import ToolResult

_LONGEST_RESULT = 100_000
"""Characters of text and JSON that a tool may hand to the model at once."""
_LARGEST_IMAGES = 3_750_000
"""Bytes of images that it may: what Bedrock takes for one, less than the other providers do."""


def failure(outcome: str, text: str) -> ToolResult:
    """Return a result that tells the model why it gets none."""
    return ToolResult(outcome, [{"text": text}])


def bounded(blocks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Cut the text of a result where it is longer than a model should get at once, and say so.

    An image or a document is useless in part: one that is too large is left out, and a note stands in its place.
    """
    left, left_for_images = _LONGEST_RESULT, _LARGEST_IMAGES
    kept: list[dict[str, Any]] = []
    for block in blocks:
        if "image" in block:
            size = len(block["image"]["source"]["bytes"])
            if size <= left_for_images:
                kept.append(block)
                left_for_images -= size
            else:
                kept.append(_left_out(f"an image of {size} bytes", f"{_LARGEST_IMAGES} bytes of images"))
            continue
        text = block.get("text")
        size = len(json.dumps(block["json"]) if text is None else text)
        if size <= left:
            kept.append(block)
            left -= size
            continue
        if text is None:
            kept.append(_left_out(f"a document of {size} characters", f"{_LONGEST_RESULT} characters"))
            continue
        kept.append({"text": f"{text[:left]}\n[cut here: the result has more than {_LONGEST_RESULT} characters]"})
        break
    return kept


def _left_out(what: str, allowed: str) -> dict[str, Any]:
    return {"text": f"[left out: {what}; a result may hold {allowed}]"}
