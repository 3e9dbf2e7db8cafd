"""Text that can be sent. JSON lets half a character (one surrogate of a pair) through, and models write them; UTF-8
does not.
"""

from typing import Any


def whole(value: Any) -> Any:
    """Return the value with every text in it, names included, made sendable.

    Halves that stand together become their character, any other half becomes a question mark.
    """
    match value:
        case str():
            try:
                value.encode()
            except UnicodeEncodeError:
                joined = value.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
                return joined.encode(errors="replace").decode()
            return value
        case dict():
            return {whole(key): whole(item) for key, item in value.items()}
        case list():
            return [whole(item) for item in value]
        case _:
            return value
