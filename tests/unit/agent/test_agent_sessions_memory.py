"""What only the store in memory does: it bounds the bytes that all histories take together."""

from agent_stores import HISTORY, memory_kind, said
from ropewalk_agent.sessions import SessionKey
from ropewalk_agent.sessions.memory import MemorySessions


async def kept_of(store: MemorySessions, names: str) -> str:
    return "".join([name for name in names if await store.load(SessionKey("", name))])


async def test_the_least_recently_used_go_when_the_histories_are_too_large_together() -> None:
    store = memory_kind().open(max_bytes=3_500)
    large = (said("user", "x" * 1_000),)
    for name in "abcadc":
        await store.save(SessionKey("", name), large)
    assert await kept_of(store, "abcd") == "acd"
    for _ in range(10):
        await store.save(SessionKey("", "a"), large)
    assert await kept_of(store, "acd") == "acd", "a session that is saved again counts once"


async def test_images_count_and_a_session_too_large_by_itself_is_not_kept() -> None:
    store = memory_kind().open(max_bytes=3_500)
    image = {"image": {"format": "png", "source": {"bytes": b"x" * 3_500}}}
    result = {"toolResult": {"toolUseId": "1", "content": [image]}}
    await store.save(SessionKey("", "a"), HISTORY)
    await store.save(SessionKey("", "b"), HISTORY)
    await store.save(SessionKey("", "b"), (*HISTORY, {"role": "user", "content": [result]}))
    assert await kept_of(store, "ab") == "a"


async def test_an_expired_session_leaves_its_room() -> None:
    kind = memory_kind()
    store = kind.open(max_bytes=2_500)
    large = (said("user", "x" * 1_000),)
    await store.save(SessionKey("", "a"), large)
    kind.pass_time(11)
    for name in "bc":
        await store.save(SessionKey("", name), large)
    assert await kept_of(store, "bc") == "bc"
