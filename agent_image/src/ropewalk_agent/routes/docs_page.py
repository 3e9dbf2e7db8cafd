"""The OpenAPI document as one page of HTML: no script, nothing loaded from elsewhere. Pure."""

from collections.abc import Iterable
from html import escape
from typing import Any

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "h1,h2,h3{line-height:1.2}h2{margin-top:2.5rem}h3{margin:1.5rem 0 .3rem}p{margin:.3rem 0}"
    "code{font:13px ui-monospace,monospace}table{border-collapse:collapse;margin:.3rem 0}"
    "td{border-top:1px solid #ddd;padding:.1rem .8rem .1rem 0;vertical-align:top}"
    "@media(prefers-color-scheme:dark){body{color:#ddd;background:#1b1b1b}a{color:#8cf}td{border-color:#444}}"
)

_WITH_AN_ANSWER = ("101", "200", "204")


def page(document: dict[str, Any]) -> str:
    """Return the page of an OpenAPI document made by openapi.document."""
    info = document["info"]
    operations = [
        (method, path, operation) for path, item in document["paths"].items() for method, operation in item.items()
    ]
    groups = dict.fromkeys(operation["tags"][0] for _, _, operation in operations)
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(info['title'])}</title>",
        f"<meta name=viewport content='width=device-width'><style>{_STYLE}</style>",
        f"<h1>{escape(info['title'])}</h1><p>{escape(info['description'])}",
        "<p>An agent of Ropewalk. As OpenAPI: <a href=openapi.json>openapi.json</a>.",
    ]
    for group in groups:
        parts.append(f"<h2>{escape(group)}</h2>")
        parts += [_operation(*operation) for operation in operations if operation[2]["tags"][0] == group]
    parts.append("<h2>Shapes</h2>")
    parts += [_shape(name, schema) for name, schema in sorted(document["components"]["schemas"].items())]
    return "\n".join(parts)


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    lines = [
        f"<h3 id={operation['operationId']}><code>{method.upper()} {escape(path)}</code></h3>",
        f"<p>{escape(operation['summary'])}",
    ]
    lines += [
        f"<p>{parameter['in'].title()} <code>{escape(parameter['name'])}</code>: {escape(parameter['description'])}"
        for parameter in operation["parameters"]
        if "description" in parameter
    ]
    if "requestBody" in operation:
        lines.append(f"<p>Takes {_content(operation['requestBody']['content'])}")
    errors: list[str] = []
    for status, answer in operation["responses"].items():
        if status in _WITH_AN_ANSWER:
            lines.append(f"<p>Answers {status} {_content(answer['content'])}")
        else:
            errors.append(f"{status} {escape(answer['description'])}")
    if errors:
        lines.append(f"<p>Errors {'; '.join(errors)}")
    return "\n".join(lines)


def _content(content: dict[str, Any]) -> str:
    return "; ".join(f"{escape(media)}: {_kind(described['schema'])}" for media, described in content.items())


def _shape(name: str, schema: dict[str, Any]) -> str:
    required = schema.get("required", ())
    rows = [
        f"<tr><td><code>{escape(field)}</code>{'' if field in required else '?'}"
        f"<td>{_kind(kind)}<td>{escape(kind.get('description', ''))}"
        for field, kind in schema.get("properties", {}).items()
    ]
    text = escape(schema.get("description", ""))
    return f"<h3 id={escape(name)}>{escape(name)}</h3><p>{text}<table>{''.join(rows)}</table>"


def _kind(schema: dict[str, Any]) -> str:
    """Return a schema in a few words, with a link to each shape that it names."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f"<a href=#{name}>{name}</a>"
    for union in ("anyOf", "oneOf"):
        if union in schema:
            return _either(_kind(member) for member in schema[union])
    if "const" in schema:
        return f"<code>{escape(repr(schema['const']))}</code>"
    if "enum" in schema:
        return _either(f"<code>{escape(repr(value))}</code>" for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    return escape(schema.get("type", "anything"))


def _either(kinds: Iterable[str]) -> str:
    return " or ".join(dict.fromkeys(kinds))
