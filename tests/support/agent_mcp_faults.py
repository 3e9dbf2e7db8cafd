"""What an MCP server may do wrong with a request, each as the behaviour of a `Rogue`."""

from agent_mcp import Asked


async def five_hundred(asked: Asked) -> None:
    await asked.answer(b"oops", status=500, content_type="text/plain")


async def unauthorized(asked: Asked) -> None:
    await asked.answer(b"", status=401)


async def garbage(asked: Asked) -> None:
    await asked.answer(b"\x00\xff<html>secret-looking text")


async def html(asked: Asked) -> None:
    await asked.answer(b"<html>", content_type="text/html")


async def not_json_rpc(asked: Asked) -> None:
    await asked.answer({"jsonrpc": "1.0", "id": asked.message["id"], "answer": 42})


async def not_a_result(asked: Asked) -> None:
    await asked.result({"resultType": "complete", "content": "not a list"})


async def fifty_megabytes(asked: Asked) -> None:
    await asked.send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]}
    )
    for _ in range(50):
        await asked.send({"type": "http.response.body", "body": b"x" * 1_000_000, "more_body": True})
    await asked.send({"type": "http.response.body", "body": b""})


async def events(asked: Asked, *parts: bytes) -> None:
    headers = [(b"content-type", b"text/event-stream")]
    await asked.send({"type": "http.response.start", "status": 200, "headers": headers})
    for part in parts:
        await asked.send({"type": "http.response.body", "body": part, "more_body": True})
    await asked.send({"type": "http.response.body", "body": b""})


async def two_megabytes_in_an_event(asked: Asked) -> None:
    await events(asked, b"data: ", *[b"x" * 100_000] * 20)


async def stream_without_an_answer(asked: Asked) -> None:
    await events(asked, b": nothing follows\n\n")


async def cut_off(asked: Asked) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", b"1000")]
    await asked.send({"type": "http.response.start", "status": 200, "headers": headers})
    await asked.send({"type": "http.response.body", "body": b'{"jsonrpc"', "more_body": True})
    raise ConnectionError


async def compressed(asked: Asked) -> None:
    await asked.answer(b"\x1f\x8b", content_encoding="gzip")


async def own_error(asked: Asked) -> None:
    error = {"code": -32602, "message": "a must be a number"}
    await asked.answer({"jsonrpc": "2.0", "id": asked.message["id"], "error": error}, status=400)


async def own_error_with_a_common_code(asked: Asked) -> None:
    error = {"code": -32000, "message": "the database is away"}
    await asked.answer({"jsonrpc": "2.0", "id": asked.message["id"], "error": error})


async def unknown_id(asked: Asked) -> None:
    await asked.answer({"jsonrpc": "2.0", "id": 4711, "result": {"resultType": "complete", "content": []}})


async def accepted(asked: Asked) -> None:
    await asked.answer(b"", status=202)


async def four_hundred(asked: Asked) -> None:
    await asked.answer(b"no", status=400, content_type="text/plain")


async def not_known(asked: Asked) -> None:
    await asked.answer(b"", status=404)
