"""The JSON Schema of a tool, made sound once, so that its readers find the keywords as they should be. Pure.

What is no schema, such as `true`, or a keyword of a wrong type allows anything, as if it were not there.
"""

from typing import Any

Json = dict[str, Any]

# Of a schema that is nested deeper, or that refers to itself, no more is read.
_MOST_LEVELS = 16


def sound(schema: Any, level: int = 0) -> Json:
    """Return what the demo model reads of a schema: each keyword of its own type, or not at all."""
    if not isinstance(schema, dict) or level == _MOST_LEVELS:
        return {}
    kept: Json = {}
    for name, value in schema.items():
        match name, value:
            case "type" | "$ref" | "description", str():
                kept[name] = value
            case "type", list():
                # Of several types the first counts that is not null.
                kept["type"] = next((kind for kind in value if isinstance(kind, str) and kind != "null"), "string")
            case "enum", list():
                kept[name] = value
            case "required", list():
                kept[name] = [each for each in value if isinstance(each, str)]
            case "properties" | "$defs", dict():
                kept[name] = {each: sound(part, level + 1) for each, part in value.items()}
            case "anyOf" | "oneOf", list():
                kept[name] = [sound(part, level + 1) for part in value]
            case "items", _:
                kept[name] = sound(value, level + 1)
    return kept


def resolved(part: Json, root: Json) -> Json:
    """Return the schema that a sound one means: behind $ref, and of several the first that is not null."""
    for _ in range(_MOST_LEVELS):
        options = [option for option in part.get("anyOf", []) + part.get("oneOf", []) if option.get("type") != "null"]
        if ref := part.get("$ref"):
            part = root.get("$defs", {}).get(ref.rsplit("/", 1)[-1], {})
        elif options:
            part = options[0]
        else:
            return part
    return {}


def kind(part: Json, root: Json) -> str:
    """Return the type that a sound schema asks for; string where it names none."""
    return str(resolved(part, root).get("type", "string"))
