"""What every session store does, shown on all of them; and the window that never parts a tool call from its result."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from agent_redis import RedisServer
from agent_stores import HISTORY, Kind, file_kind, memory_kind, redis_kind, said, turn
from ropewalk_agent.errors import AgentError
from ropewalk_agent.sessions import Message, SessionKey, SessionStore, is_consistent, windowed

KEY = SessionKey("", "s")


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(params=["memory", "file", "redis"])
def kind(request: pytest.FixtureRequest, tmp_path: Path) -> Kind:
    match request.param:
        case "memory":
            return memory_kind()
        case "file":
            return file_kind(tmp_path)
        case _:
            return redis_kind(request.getfixturevalue("redis_server"))


@pytest.fixture
async def store(kind: Kind) -> AsyncIterator[SessionStore]:
    store: SessionStore = kind.open()
    yield store
    await store.close()


async def kept_of(store: SessionStore, names: str) -> str:
    return "".join([name for name in names if await store.load(SessionKey("", name))])


def asked(*ids: str) -> Message:
    return {"role": "assistant", "content": [{"toolUse": {"toolUseId": i, "name": "t", "input": {}}} for i in ids]}


def answered(*ids: str) -> Message:
    return {"role": "user", "content": [{"toolResult": {"toolUseId": i, "content": []}} for i in ids]}


async def test_a_saved_history_is_loaded_again(store: SessionStore) -> None:
    assert await store.load(KEY) == ()
    await turn(store, KEY)
    assert await store.load(KEY) == HISTORY


async def test_a_history_takes_the_place_of_the_one_before(store: SessionStore) -> None:
    await turn(store, KEY)
    await turn(store, KEY, *HISTORY, said("user", "more"))
    assert await store.load(KEY) == (*HISTORY, said("user", "more"))
    assert len(store) == 1


async def test_images_text_of_all_kinds_and_nested_arguments_come_back_as_they_were(store: SessionStore) -> None:
    image = {"image": {"format": "png", "source": {"bytes": bytes(range(256))}}}
    again = {"image": {"format": "png", "source": {"bytes": b""}}}
    odd = {"": None, "$bytes": "aGk=", "list": [1, 2.5, True, {"deep": "\x00\n\ud800"}]}
    history = (
        {"role": "user", "content": [{"text": "\u2028 Grüße 🐎"}, image]},
        {"role": "assistant", "content": [{"toolUse": {"toolUseId": "1", "name": "t", "input": odd}}]},
        {"role": "user", "content": [{"toolResult": {"toolUseId": "1", "content": [image, {"json": odd}, again]}}]},
    )
    await turn(store, KEY, *history)
    assert await store.load(KEY) == history


@pytest.mark.parametrize("name", ["../../etc/passwd", "a/b", ".", "a b", "ü", "x" * 256, "*", 'a":"b', "{x}", "%00"])
async def test_any_name_will_do(store: SessionStore, name: str) -> None:
    here, there = SessionKey(name, "s"), SessionKey("u", name)
    await turn(store, here, said("user", "here"))
    await turn(store, there, said("user", "there"))
    assert await store.load(here) == (said("user", "here"),)
    assert [info.key for info in await store.list(name)] == [here]
    assert [info.key for info in await store.list("u")] == [there]


async def test_the_same_session_id_of_another_user_is_another_session(store: SessionStore) -> None:
    await turn(store, SessionKey("anna", "s"))
    for other in (SessionKey("bert", "s"), KEY):
        assert await store.load(other) == ()
        assert await store.describe(other) is None
        assert await store.list(other.user_id) == ()
        assert not await store.delete(other)
    assert await store.load(SessionKey("anna", "s")) == HISTORY


async def test_users_and_sessions_whose_names_run_together_are_kept_apart(store: SessionStore) -> None:
    await turn(store, SessionKey("ab", "c"))
    assert await store.load(SessionKey("a", "bc")) == ()


async def test_a_session_is_forgotten_when_its_time_to_live_is_over(store: SessionStore, kind: Kind) -> None:
    await turn(store, KEY)
    kind.pass_time(8)
    assert await store.load(KEY) == HISTORY
    kind.pass_time(3)
    assert await store.load(KEY) == ()
    assert await store.describe(KEY) is None
    assert await store.list("") == ()
    assert not await store.delete(KEY)


async def test_a_turn_begins_the_time_to_live_anew(store: SessionStore, kind: Kind) -> None:
    await turn(store, KEY)
    kind.pass_time(8)
    await turn(store, KEY)
    kind.pass_time(8)
    assert await store.load(KEY) == HISTORY


async def test_a_session_that_has_expired_begins_anew(store: SessionStore, kind: Kind) -> None:
    await turn(store, KEY)
    before = await store.describe(KEY)
    kind.pass_time(11)
    await turn(store, KEY)
    after = await store.describe(KEY)
    assert before is not None
    assert after is not None
    assert after.created_at > before.created_at


async def test_a_clean_up_forgets_what_has_expired_and_counts_the_rest(store: SessionStore, kind: Kind) -> None:
    for name in "ab":
        await turn(store, SessionKey("", name))
    kind.pass_time(6)
    await turn(store, SessionKey("", "c"))
    assert len(store) == 3
    kind.pass_time(6)
    await store.clean_up()
    assert len(store) == 1
    assert await kept_of(store, "abc") == "c"


async def test_the_least_recently_used_tenth_goes_when_the_store_is_full(store: SessionStore, kind: Kind) -> None:
    for number in range(20):
        await turn(store, SessionKey("", str(number)))
        kind.pass_time(0.01)
    await turn(store, SessionKey("", "0"))
    kind.pass_time(0.01)
    assert len(store) == 20
    await turn(store, SessionKey("", "new"))
    names = [str(number) for number in range(20)] + ["new"]
    assert [name for name in names if await store.load(SessionKey("", name)) == ()] == ["1", "2"]
    assert len(store) == 19
    assert {info.key.session_id for info in await store.list("")} == set(names) - {"1", "2"}


async def test_an_expired_session_goes_before_one_that_is_not(kind: Kind) -> None:
    store: SessionStore = kind.open(max_sessions=2)
    await turn(store, SessionKey("", "a"))
    kind.pass_time(9)
    await turn(store, SessionKey("", "b"))
    kind.pass_time(2)
    await turn(store, SessionKey("", "c"))
    assert await kept_of(store, "abc") == "bc"
    await store.close()


async def test_a_deleted_session_is_gone(store: SessionStore) -> None:
    await turn(store, KEY)
    await turn(store, SessionKey("", "other"))
    assert await store.delete(KEY)
    assert await store.load(KEY) == ()
    assert not await store.delete(KEY)
    assert [info.key.session_id for info in await store.list("")] == ["other"]
    assert len(store) == 1


async def test_a_list_has_the_most_recently_used_first_and_tells_of_each(store: SessionStore, kind: Kind) -> None:
    for name in "aba":
        await turn(store, SessionKey("u", name), *HISTORY, *(HISTORY if name == "b" else ()))
        kind.pass_time(1)
    infos = await store.list("u")
    assert [(info.key, info.messages) for info in infos] == [(SessionKey("u", "a"), 2), (SessionKey("u", "b"), 4)]
    assert infos[0].updated_at > infos[1].updated_at
    assert infos[0].created_at < infos[0].updated_at
    assert infos == tuple([await store.describe(info.key) for info in infos])


async def test_sessions_outlive_the_store_object_where_they_are_kept_outside_of_it(kind: Kind) -> None:
    first, second = kind.open(), kind.open()
    await turn(first, KEY)
    await first.close()
    await second.clean_up()
    assert (await second.load(KEY) == HISTORY, len(second)) == ((False, 0) if kind.name == "memory" else (True, 1))
    await second.close()


async def test_a_store_that_works_has_no_problem(store: SessionStore) -> None:
    assert await store.problem() is None


async def test_a_lock_is_free_again_however_its_block_ends(store: SessionStore) -> None:
    async def fail() -> None:
        async with store.lock(KEY, wait=False):
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        await fail()
    holding = asyncio.Event()

    async def hold() -> None:
        async with store.lock(KEY, wait=False):
            holding.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(hold())
    await holding.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    async with store.lock(KEY, wait=False):
        await store.save(KEY, HISTORY)
    assert await store.load(KEY) == HISTORY


@pytest.fixture(params=["file", "redis"])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Kind:
    """The stores that several processes may share."""
    return file_kind(tmp_path) if request.param == "file" else redis_kind(request.getfixturevalue("redis_server"))


@pytest.fixture
async def two(shared: Kind) -> AsyncIterator[tuple[SessionStore, SessionStore]]:
    stores: tuple[SessionStore, SessionStore] = (shared.open(), shared.open())
    yield stores
    for store in stores:
        await store.close()


async def test_who_will_not_wait_for_a_locked_session_is_told_so(two: tuple[SessionStore, SessionStore]) -> None:
    one, other = two
    async with one.lock(KEY, wait=False):
        with pytest.raises(AgentError) as busy:
            async with other.lock(KEY, wait=False):
                pass
        assert busy.value.code == "session_busy"
        for free in (SessionKey("", "other"), SessionKey("u", "s")):
            async with other.lock(free, wait=False):
                await other.save(free, HISTORY)
    async with other.lock(KEY, wait=False):
        await other.save(KEY, HISTORY)


async def test_who_waits_gets_the_lock_and_what_was_saved_under_it(two: tuple[SessionStore, SessionStore]) -> None:
    one, other = two
    order: list[str] = []

    async def second() -> None:
        async with other.lock(KEY, wait=True):
            order.append("second")
            assert await other.load(KEY) == HISTORY

    async with one.lock(KEY, wait=False):
        task = asyncio.create_task(second())
        await asyncio.wait([task], timeout=0.05)
        await one.save(KEY, HISTORY)
        order.append("first")
    async with asyncio.timeout(5):
        await task
    assert order == ["first", "second"]


async def test_who_gives_up_waiting_leaves_no_lock_behind(two: tuple[SessionStore, SessionStore]) -> None:
    one, other = two

    async def wait() -> None:
        async with other.lock(KEY, wait=True):
            pass

    for attempt in range(20):  # cancelled at many moments of an attempt
        async with one.lock(KEY, wait=True):
            task = asyncio.create_task(wait())
            for _ in range(attempt):
                await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    async with one.lock(KEY, wait=False):
        await one.save(KEY, HISTORY)


async def test_many_who_want_one_session_get_it_one_at_a_time(two: tuple[SessionStore, SessionStore]) -> None:
    async def add(number: int) -> None:
        store = two[number % 2]
        async with store.lock(KEY, wait=True):
            before = await store.load(KEY)
            await store.save(KEY, (*before, said("user", str(number))))

    async with asyncio.timeout(20):
        await asyncio.gather(*(add(number) for number in range(20)))
    texts = [message["content"][0]["text"] for message in await two[0].load(KEY)]
    assert sorted(texts, key=int) == [str(number) for number in range(20)]


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
