"""What only the store in files has to show: torn files, a full disk, processes that die, what is left behind."""

import asyncio
import errno
import fcntl
import logging
import os
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent_stores import HISTORY, Kind, another_process_holds_session_s, file_kind, said, turn
from ropewalk_agent.errors import AgentError
from ropewalk_agent.sessions import SessionKey
from ropewalk_agent.sessions import file as module
from ropewalk_agent.sessions.file import FileSessions, _remove_unused
from waiting import eventually

KEY, OTHER = SessionKey("", "s"), SessionKey("", "other")


@pytest.fixture
def kind(tmp_path: Path) -> Kind:
    return file_kind(tmp_path)


@pytest.fixture
def store(kind: Kind) -> FileSessions:
    opened: FileSessions = kind.open()
    return opened


def names_in(folder: Path) -> list[str]:
    return sorted(path.suffix for path in folder.glob("*/*"))


def everything_in(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in folder.glob("**/*")]


def session_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*.json"))


def cut_in_half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def change_a_letter(content: bytes) -> bytes:
    return content.replace(b"hello", b"hellp")


def empty(_: bytes) -> bytes:
    return b""


def another_first_line(content: bytes) -> bytes:
    return b"[1, 2]\n" + content.partition(b"\n")[2]


def no_text(content: bytes) -> bytes:
    return b"\xff\xfe" * len(content)


@pytest.mark.parametrize("damage", [cut_in_half, change_a_letter, empty, another_first_line, no_text])
async def test_a_torn_file_is_set_aside_and_told_and_the_others_are_unharmed(
    store: FileSessions, tmp_path: Path, damage: Callable[[bytes], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    await turn(store, KEY)
    [path] = session_files(tmp_path)
    await turn(store, OTHER)
    path.write_bytes(damage(path.read_bytes()))
    os.utime(path, (store._clock(), store._clock()))
    with caplog.at_level(logging.ERROR):
        assert await store.load(KEY) == ()
    assert [record.getMessage() for record in caplog.records if "torn" in record.getMessage()]
    assert path.with_suffix(".torn").exists()
    assert not path.exists()
    assert await store.load(OTHER) == HISTORY
    assert [info.key for info in await store.list("")] == [OTHER]
    await turn(store, KEY)
    assert await store.load(KEY) == HISTORY


def _fails(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


async def test_a_full_disk_is_told_and_the_session_stays_as_it_was(
    store: FileSessions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await turn(store, KEY)
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", _fails)
        for key in (KEY, OTHER):
            with pytest.raises(AgentError, match="No space left on device") as full:
                await turn(store, key, said("user", "new"))
            assert full.value.code == "not_ready"
    assert await store.load(KEY) == HISTORY
    assert await store.load(OTHER) == ()
    assert len(store) == 1
    assert names_in(tmp_path) == [".json"]
    await turn(store, OTHER)


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "none", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("only root can make a disk")
    yield folder
    subprocess.run(["umount", folder], check=True)


async def test_a_disk_that_is_really_full_makes_a_problem_that_goes_away_with_its_cause(tiny_disk: Path) -> None:
    store: FileSessions = file_kind(tiny_disk).open()
    await turn(store, KEY)
    with pytest.raises(AgentError, match="No space left on device"):
        await turn(store, KEY, said("user", "x" * 100_000))
    assert await store.load(KEY) == HISTORY
    ballast = tiny_disk / "ballast"
    with pytest.raises(OSError, match="No space left"):
        ballast.write_bytes(b"x" * 100_000)
    assert "No space left on device" in str(await store.problem())
    ballast.unlink()
    assert await store.problem() is None
    await turn(store, OTHER)


async def test_a_problem_names_what_the_system_says(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no directory")
    store: FileSessions = file_kind(tmp_path / "file").open()
    assert "exists" in str(await store.problem())
    with pytest.raises(AgentError) as unusable:
        await turn(store, KEY)
    assert unusable.value.code == "not_ready"


async def test_a_lock_dies_with_the_process_that_held_it(store: FileSessions, tmp_path: Path) -> None:
    expression = "FileSessions(Path(sys.argv[1]), ttl_seconds=10, max_sessions=20)"
    with another_process_holds_session_s(expression, str(tmp_path)):
        store._path(KEY).with_suffix(".json.part").write_text("half a sess")
        with pytest.raises(AgentError) as busy:
            async with store.lock(KEY, wait=False):
                pass
        assert busy.value.code == "session_busy"
        await store.clean_up()
        assert names_in(tmp_path) == [".lock", ".part"], "what a living process holds is left alone"
    await store.clean_up()
    assert names_in(tmp_path) == []
    await turn(store, KEY)
    assert names_in(tmp_path) == [".json"]


async def test_a_lock_on_a_file_that_its_last_holder_removed_meanwhile_is_none(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock, store, other = fcntl.flock, kind.open(), kind.open()

    def too_late(descriptor: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", flock)
        [path] = tmp_path.glob("*/*.lock")
        path.unlink()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", too_late)
    async with store.lock(KEY, wait=False):
        with pytest.raises(AgentError):
            async with other.lock(KEY, wait=False):
                pass


async def test_a_session_that_is_in_use_is_neither_evicted_nor_swept(kind: Kind, tmp_path: Path) -> None:
    store: FileSessions = kind.open(max_sessions=1)
    await turn(store, KEY)
    async with store.lock(KEY, wait=False):
        kind.pass_time(11)
        await store.clean_up()
        assert len(session_files(tmp_path)) == 1
        await turn(store, OTHER)
        await store.save(KEY, HISTORY)
    assert await store.load(KEY) == HISTORY


async def test_a_session_that_was_saved_since_it_was_found_old_is_not_removed(
    store: FileSessions, tmp_path: Path
) -> None:
    await turn(store, KEY)
    [path] = session_files(tmp_path)
    assert not _remove_unused(path, store._clock() - 11)
    assert await store.load(KEY) == HISTORY
    assert _remove_unused(path, store._clock())
    assert everything_in(path.parent) == []


async def test_names_on_the_disk_tell_nothing_of_users_and_sessions(store: FileSessions, tmp_path: Path) -> None:
    await turn(store, SessionKey("anna", "diary"))
    assert not [path for path in everything_in(tmp_path) if "anna" in path or "diary" in path]


async def test_folders_of_users_without_sessions_are_removed(store: FileSessions, tmp_path: Path) -> None:
    await turn(store, KEY)
    await store.delete(KEY)
    await store.clean_up()
    assert everything_in(tmp_path) == []


async def test_a_torn_file_is_removed_when_nobody_has_come_for_it_in_a_week(
    store: FileSessions, tmp_path: Path
) -> None:
    await turn(store, KEY)
    [path] = session_files(tmp_path)
    path.write_bytes(b"")
    await store.load(KEY)
    torn = path.with_suffix(".torn")
    await store.clean_up()
    assert torn.exists()
    os.utime(torn, (0, 0))
    await store.clean_up()
    assert not torn.exists()


async def test_a_turn_that_is_cancelled_while_it_lets_go_leaves_no_lock(store: FileSessions, tmp_path: Path) -> None:
    release = threading.Event()
    holding = store.lock(KEY, wait=False)
    await holding.__aenter__()
    blocked = [store._threads.submit(release.wait, 10) for _ in range(module._THREADS)]
    leaving = asyncio.ensure_future(holding.__aexit__(None, None, None))
    await asyncio.sleep(0)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    release.set()
    await asyncio.gather(*(asyncio.wrap_future(one) for one in blocked))
    await eventually(lambda: names_in(tmp_path) == [])
    async with store.lock(KEY, wait=False):
        pass


async def test_a_turn_that_is_cancelled_while_it_gets_the_lock_leaves_none(
    store: FileSessions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release, reached, flock = threading.Event(), threading.Event(), fcntl.flock

    def slow(descriptor: int, operation: int) -> None:
        reached.set()
        release.wait(10)
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", slow)
    taking = asyncio.ensure_future(store.lock(KEY, wait=False).__aenter__())
    await eventually(reached.is_set)
    taking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await taking
    release.set()
    await eventually(lambda: names_in(tmp_path) == [])


async def test_a_disk_that_hangs_is_given_up_in_time_and_its_late_save_undoes_nothing(
    store: FileSessions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release, fsync = threading.Event(), os.fsync

    def hangs(descriptor: int) -> None:
        release.wait(10)
        fsync(descriptor)

    await turn(store, KEY)
    monkeypatch.setattr(module, "_DISK_SECONDS", 0.2)
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", hangs)
        with pytest.raises(AgentError, match=r"not answered.*may have been kept") as hung:
            await turn(store, KEY, said("user", "late"))
    assert hung.value.code == "not_ready"
    with pytest.raises(AgentError) as busy:
        async with store.lock(KEY, wait=False):
            pass
    assert busy.value.code == "session_busy", "the late save is still under way"
    release.set()
    monkeypatch.setattr(module, "_DISK_SECONDS", 5.0)
    await turn(store, KEY, said("user", "next"))
    assert await store.load(KEY) == (said("user", "next"),)
    assert names_in(tmp_path) == [".json"]


async def test_a_history_that_is_there_is_kept_although_its_folder_cannot_be_forced_to_the_disk(
    store: FileSessions, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fsync = os.fsync

    def files_only(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            _fails()
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", files_only)
    await turn(store, KEY)
    assert (await store.load(KEY), len(store)) == (HISTORY, 1)
    assert "folder could not be forced to the disk" in caplog.text


async def test_threads_that_others_block_do_not_keep_a_session_from_being_saved(store: FileSessions) -> None:
    release, loop = threading.Event(), asyncio.get_running_loop()
    blocked = [loop.run_in_executor(None, release.wait, 10) for _ in range(40)]
    try:
        async with asyncio.timeout(5):
            await turn(store, KEY)
        assert await store.load(KEY) == HISTORY
    finally:
        release.set()
        await asyncio.gather(*blocked)
