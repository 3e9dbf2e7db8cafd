"""What only the store in Redis has to show: leases, fencing, and a server that dies, hangs or changes its password."""

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from agent_redis import RedisServer, serving_redis
from agent_stores import HISTORY, Kind, another_process_holds_session_s, redis_kind, said, turn
from ropewalk_agent.errors import AgentError
from ropewalk_agent.sessions import SessionKey
from ropewalk_agent.sessions.redis import LEASE_SECONDS, RedisSessions
from waiting import eventually

KEY = SessionKey("", "s")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with serving_redis(tmp_path) as server:
        yield server


@pytest.fixture
def kind(server: RedisServer) -> Kind:
    return redis_kind(server)


def client_of(server: RedisServer) -> Any:
    return redis.Redis(port=server.port, decode_responses=True)


def lock_key(server: RedisServer) -> str:
    with client_of(server) as client:
        [key] = client.keys("*:lock:*")
    return str(key)


async def test_a_save_after_the_lock_was_lost_is_refused_and_changes_nothing(kind: Kind, server: RedisServer) -> None:
    one, other = kind.open(), kind.open()
    await turn(one, KEY)
    async with one.lock(KEY, wait=False):
        with client_of(server) as client:
            client.delete(lock_key(server))  # as if the lease had run out
        async with other.lock(KEY, wait=False):
            with pytest.raises(AgentError) as fenced:
                await one.save(KEY, (said("user", "late"),))
            assert fenced.value.code == "session_busy"
            await other.save(KEY, (*HISTORY, said("user", "newer")))
        with pytest.raises(AgentError, match="took the session over"):
            await one.save(KEY, (said("user", "late"),))
    assert await one.load(KEY) == (*HISTORY, said("user", "newer"))
    await one.close()
    await other.close()


async def test_who_lost_a_lock_does_not_free_that_of_the_next(kind: Kind, server: RedisServer) -> None:
    one, other = kind.open(), kind.open()
    async with other.lock(SessionKey("", "else"), wait=False):
        async with one.lock(KEY, wait=False):
            with client_of(server) as client:
                client.delete(*client.keys("*:lock:*s*"))
            next_holder = other.lock(KEY, wait=False)
            await next_holder.__aenter__()
        with pytest.raises(AgentError):
            async with one.lock(KEY, wait=False):
                pass
        await next_holder.__aexit__(None, None, None)
    await one.close()
    await other.close()


async def test_a_lease_is_renewed_as_long_as_its_turn_takes(kind: Kind, server: RedisServer) -> None:
    store: RedisSessions = kind.open(lease_seconds=0.6)
    with client_of(server) as client:
        async with store.lock(KEY, wait=False):
            key = lock_key(server)
            for _ in range(3):
                await eventually(lambda: client.pttl(key) < 450)
                await eventually(lambda: client.pttl(key) > 450)
            await store.save(KEY, HISTORY)
        assert client.exists(key) == 0
    await store.close()


async def test_the_session_of_a_replica_that_was_killed_is_free_when_its_lease_is_over(
    kind: Kind, server: RedisServer
) -> None:
    store: RedisSessions = kind.open()
    agent = store._prefix.removeprefix("ropewalk:{").removesuffix("}")
    options = "agent=sys.argv[2], ttl_seconds=10, max_sessions=20, lease_seconds=0.5"
    expression = f"RedisSessions(Path(sys.argv[1]), {options})"
    with another_process_holds_session_s(expression, str(server.url_file), agent), pytest.raises(AgentError):
        async with store.lock(KEY, wait=False):
            pass
    async with asyncio.timeout(10):
        await turn(store, KEY)
    assert await store.load(KEY) == HISTORY
    await store.close()


async def test_a_killed_replica_holds_a_session_for_fifteen_seconds_at_most(kind: Kind, server: RedisServer) -> None:
    store: RedisSessions = kind.open()
    async with store.lock(KEY, wait=False):
        with client_of(server) as client:
            assert 0 < client.pttl(lock_key(server)) <= LEASE_SECONDS * 1000 == 15_000
    await store.close()


async def test_redis_itself_forgets_sessions_and_indexes(kind: Kind, server: RedisServer) -> None:
    store: RedisSessions = kind.open()
    await turn(store, SessionKey("anna", "s"))
    with client_of(server) as client:
        keys = client.keys("*")
        assert len(keys) == 3
        assert [key for key in keys if not 0 < client.pttl(key) <= 10_000] == []
    await store.close()


async def test_two_agents_on_one_server_do_not_see_each_other(server: RedisServer) -> None:
    one, other = redis_kind(server).open(), redis_kind(server).open()
    await turn(one, KEY)
    assert await other.load(KEY) == ()
    assert await other.list("") == ()
    await other.clean_up()
    assert (len(one), len(other)) == (1, 0)
    async with one.lock(KEY, wait=False), other.lock(KEY, wait=False):
        pass
    await one.close()
    await other.close()


async def test_a_server_that_is_gone_is_told_and_found_again(kind: Kind, server: RedisServer) -> None:
    store: RedisSessions = kind.open()
    await turn(store, KEY)
    server.stop()
    with pytest.raises(AgentError, match="session store cannot be used") as gone:
        await store.load(KEY)
    assert gone.value.code == "not_ready"
    assert "connecting to" in str(await store.problem())
    with pytest.raises(AgentError):
        await turn(store, KEY)
    server.start()
    assert await store.problem() is None
    await turn(store, KEY)
    assert await store.load(KEY) == HISTORY
    await store.close()


async def test_a_server_that_hangs_is_given_up_in_time_and_found_again(kind: Kind, server: RedisServer) -> None:
    store: RedisSessions = kind.open(call_seconds=0.3)
    await turn(store, KEY)
    server.hang()
    async with asyncio.timeout(10):
        with pytest.raises(AgentError, match=r"has not answered for 0\.3 s") as hung:
            await turn(store, KEY)
        assert "not answered" in str(await store.problem())
    assert hung.value.code == "not_ready"
    server.go_on()
    assert await store.problem() is None
    async with asyncio.timeout(LEASE_SECONDS / 2):  # the lock that it was asked for while it hung is let go
        await turn(store, KEY, said("user", "new"))
    assert await store.load(KEY) == (said("user", "new"),)
    await store.close()


async def test_a_new_password_is_read_from_the_mounted_file(kind: Kind, server: RedisServer) -> None:
    server.stop()
    server.start("--requirepass", "first-secret")
    server.tell_password("first-secret")
    store: RedisSessions = kind.open()
    await turn(store, KEY)
    server.stop()
    server.start("--requirepass", "second-secret")
    reason = str(await store.problem())
    assert "invalid username-password" in reason
    assert "secret" not in reason
    server.tell_password("second-secret")
    assert await store.problem() is None
    await asyncio.gather(*(turn(store, SessionKey("", str(n))) for n in range(5)))
    await store.close()


async def test_a_user_with_the_rights_that_the_reference_names_is_enough(kind: Kind, server: RedisServer) -> None:
    page = (Path(__file__).parents[3] / "docs" / "reference" / "sessions.md").read_text()
    [rights] = re.findall(r"`ACL SETUSER agent on >PASSWORD (.*)`", page)
    with client_of(server) as client:
        client.execute_command("ACL", "SETUSER", "agent", "on", ">word", *rights.split())
    server.url_file.write_text(f"redis://agent:word@127.0.0.1:{server.port}/0")
    store: RedisSessions = kind.open()
    await turn(store, KEY)
    await turn(store, KEY)
    assert await store.load(KEY) == HISTORY
    assert [info.key for info in await store.list("")] == [KEY]
    assert await store.describe(KEY) is not None
    assert await store.problem() is None
    await store.clean_up()
    assert await store.delete(KEY)
    await store.close()


@pytest.mark.parametrize(
    "content", ["", "http://u:top-secret@redis", "redis://:top-secret@h:x", "redis://:top-secret/@h"]
)
async def test_a_url_that_is_none_is_a_problem_that_does_not_tell_the_password(
    kind: Kind, server: RedisServer, content: str
) -> None:
    server.url_file.write_text(content)
    problem = str(await kind.open().problem())
    assert "session store cannot be used" in problem
    assert "URL" in problem
    assert "top-secret" not in problem


async def test_a_url_file_that_is_not_there_is_a_problem_until_it_is(kind: Kind, server: RedisServer) -> None:
    server.url_file.unlink()
    store: RedisSessions = kind.open()
    assert "No such file" in str(await store.problem())
    server.tell_password("")
    assert await store.problem() is None
    await store.close()


async def test_a_turn_that_is_cancelled_while_it_lets_go_leaves_no_lease(kind: Kind, server: RedisServer) -> None:
    store: RedisSessions = kind.open()
    holding = store.lock(KEY, wait=False)
    await holding.__aenter__()
    server.hang()
    leaving = asyncio.ensure_future(holding.__aexit__(None, None, None))
    await asyncio.sleep(0)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    server.go_on()
    with client_of(server) as client:
        assert store._releasing
        await eventually(lambda: not store._releasing)
        assert client.keys("*:lock:*") == []
    await store.close()


async def test_a_save_without_an_answer_says_that_it_may_have_been_kept(kind: Kind, server: RedisServer) -> None:
    store: RedisSessions = kind.open(call_seconds=0.3)
    async with store.lock(KEY, wait=False):
        server.hang()
        with pytest.raises(AgentError, match="may have been kept all the same") as lost:
            await store.save(KEY, HISTORY)
        assert lost.value.code == "not_ready"
        server.go_on()
    assert await store.load(KEY) == HISTORY, "Redis got the command and was only slow to answer"
    await store.close()
