"""Sessions in memory, and the window that never parts a tool call from its result."""

from typing import Any

from ropewalk_agent.sessions import Message, SessionKey, is_consistent, windowed
from ropewalk_agent.sessions.memory import MemorySessions


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def said(role: str, text: str) -> Message:
    return {"role": role, "content": [{"text": text}]}


def asked(*ids: str) -> Message:
    return {"role": "assistant", "content": [{"toolUse": {"toolUseId": i, "name": "t", "input": {}}} for i in ids]}


def answered(*ids: str) -> Message:
    return {"role": "user", "content": [{"toolResult": {"toolUseId": i, "content": []}} for i in ids]}


def sessions(clock: Clock, **options: Any) -> MemorySessions:
    return MemorySessions(**{"ttl_seconds": 10, "max_sessions": 20, "clock": clock, **options})


HISTORY = (said("user", "hello"), said("assistant", "hi"))


async def test_a_saved_history_is_loaded_again() -> None:
    store, key = sessions(Clock()), SessionKey("", "s")
    assert await store.load(key) == ()
    await store.save(key, HISTORY)
    assert await store.load(key) == HISTORY


async def test_the_same_session_id_of_another_user_is_another_session() -> None:
    store = sessions(Clock())
    await store.save(SessionKey("anna", "s"), HISTORY)
    assert await store.load(SessionKey("bert", "s")) == ()
    assert await store.load(SessionKey("", "s")) == ()


async def test_a_session_is_forgotten_when_its_time_to_live_is_over() -> None:
    clock = Clock()
    store, key = sessions(clock), SessionKey("", "s")
    await store.save(key, HISTORY)
    clock.now = 10.0
    assert await store.load(key) == HISTORY
    clock.now = 10.1
    assert await store.load(key) == ()
    assert len(store) == 0


async def test_the_least_recently_used_tenth_goes_when_the_store_is_full() -> None:
    store = sessions(Clock())
    for number in range(20):
        await store.save(SessionKey("", str(number)), HISTORY)
    await store.save(SessionKey("", "0"), HISTORY)
    await store.save(SessionKey("", "new"), HISTORY)
    names = [str(number) for number in range(20)] + ["new"]
    assert [name for name in names if await store.load(SessionKey("", name)) == ()] == ["1", "2"]


async def kept_of(store: MemorySessions, names: str) -> str:
    return "".join([name for name in names if await store.load(SessionKey("", name))])


async def test_the_least_recently_used_go_when_the_histories_are_too_large_together() -> None:
    store = sessions(Clock(), max_bytes=3_500)
    large = (said("user", "x" * 1_000),)
    for name in "abcadc":
        await store.save(SessionKey("", name), large)
    assert await kept_of(store, "abcd") == "acd"
    for _ in range(10):
        await store.save(SessionKey("", "a"), large)
    assert await kept_of(store, "acd") == "acd", "a session that is saved again counts once"


async def test_images_count_and_a_session_too_large_by_itself_is_not_kept() -> None:
    store = sessions(Clock(), max_bytes=3_500)
    image = {"image": {"format": "png", "source": {"bytes": b"x" * 3_500}}}
    result = {"toolResult": {"toolUseId": "1", "content": [image]}}
    await store.save(SessionKey("", "a"), HISTORY)
    await store.save(SessionKey("", "b"), HISTORY)
    await store.save(SessionKey("", "b"), (*HISTORY, {"role": "user", "content": [result]}))
    assert await kept_of(store, "ab") == "a"


async def test_an_expired_session_leaves_its_room() -> None:
    clock = Clock()
    store = sessions(clock, max_bytes=2_500)
    large = (said("user", "x" * 1_000),)
    await store.save(SessionKey("", "a"), large)
    clock.now = 11
    for name in "bc":
        await store.save(SessionKey("", name), large)
    assert await kept_of(store, "bc") == "bc"


def test_a_window_begins_with_a_question_and_never_parts_a_call_from_its_result() -> None:
    messages = (
        said("user", "1"),
        asked("a"),
        answered("a"),
        said("assistant", "x"),
        said("user", "2"),
        said("assistant", "y"),
    )
    assert windowed(messages, 6) == messages
    for size in (5, 4, 3, 2):
        assert windowed(messages, size) == messages[4:]


def test_a_turn_longer_than_the_window_is_kept_whole() -> None:
    messages = (
        said("user", "1"),
        said("assistant", "x"),
        said("user", "2"),
        asked("a"),
        answered("a"),
        said("assistant", "y"),
    )
    assert windowed(messages, 2) == messages[2:]


def test_a_call_without_its_result_is_not_consistent() -> None:
    assert is_consistent((said("user", "1"), asked("a", "b"), answered("b", "a"), said("assistant", "x")))
    assert not is_consistent((said("user", "1"), asked("a")))
    assert not is_consistent((said("user", "1"), asked("a", "b"), answered("a"), said("assistant", "x")))
    assert not is_consistent((answered("a"), said("assistant", "x")))
