"""What an upstream may do to a server, and what the server makes of it."""

import gzip
import logging

import pytest
from prometheus_client import CollectorRegistry

from clock import Clock
from mcp_raw import answering, plain
from ropewalk_mcp_common.errors import CodedError
from ropewalk_mcp_upstream.client import Limits, Upstream
from ropewalk_mcp_upstream.rate import TokenBucket, TooSoon

USUAL = Limits()
QUICK = Limits(deadline_seconds=0.2, max_answer_bytes=1000)


def upstream(limits: Limits = USUAL, clock: Clock | None = None, trust_environment: bool = False) -> Upstream:
    clock = clock or Clock()
    return Upstream(
        "Somebody",
        CollectorRegistry(),
        trust_environment=trust_environment,
        limits=limits,
        clock=clock,
        sleep=clock.sleep,
    )


async def get(api: Upstream, url: str, query: dict[str, str], cache_seconds: float = 0) -> int:
    async with api.asked(url, query, cache_seconds=cache_seconds) as answer:
        return answer.status


async def get_json(api: Upstream, url: str, query: dict[str, str], cache_seconds: float = 0) -> tuple[int, object]:
    async with api.asked(url, query, cache_seconds=cache_seconds) as answer:
        return answer.status, api.document(answer)


async def refused(url: str, limits: Limits = USUAL) -> CodedError:
    with pytest.raises(CodedError) as raised:
        await get_json(upstream(limits), url, {"q": "a secret question"})
    assert "secret" not in str(raised.value)
    assert "Somebody" in str(raised.value)
    return raised.value


async def test_an_answer_comes_with_its_status_and_document() -> None:
    async with answering(plain('{"a": 1}'), plain('{"reason": "no"}', "400 Bad Request")) as raw:
        api = upstream()
        assert await get_json(api, f"{raw.url}/v1?key=1", {"q": "a b&c"}) == (200, {"a": 1})
        assert await get_json(api, f"{raw.url}/v1", {}) == (400, {"reason": "no"})
    assert raw.requests[0].startswith("GET /v1?key=1&q=a+b%26c HTTP/1.1\r\n")


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (plain("down", "500 Internal Server Error"), "UPSTREAM_UNAVAILABLE"),
        (plain("down", "503 Service Unavailable"), "UPSTREAM_UNAVAILABLE"),
        (b"", "UPSTREAM_UNAVAILABLE"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "UPSTREAM_UNAVAILABLE"),
        (plain("x" * 9).replace(b"length: 9", b"length: 99"), "UPSTREAM_UNAVAILABLE"),
        (plain("<html>maintenance</html>"), "UPSTREAM_INVALID"),
        (plain(b"\xff\xfe"), "UPSTREAM_INVALID"),
        (plain("[" * 500), "UPSTREAM_INVALID"),
        (plain("x" * 1001), "UPSTREAM_INVALID"),
        (plain(gzip.compress(b"x" * 10_000_000, mtime=0), "200 OK", "content-encoding: gzip"), "UPSTREAM_INVALID"),
        (plain("no gzip", "200 OK", "content-encoding: gzip"), "UPSTREAM_INVALID"),
        (
            plain(gzip.compress(gzip.compress(b"{}", mtime=0), mtime=0), "200 OK", "content-encoding: gzip, gzip"),
            "UPSTREAM_INVALID",
        ),
        (plain(gzip.compress(b'"x"', mtime=0)[:-12], "200 OK", "content-encoding: gzip"), "UPSTREAM_INVALID"),
        (plain("", "304 Not Modified"), "UPSTREAM_INVALID"),
        (plain("", "302 Found", "location: http://169.254.169.254/latest"), "UPSTREAM_INVALID"),
        (plain("", "302 Found", "location: http://127.0.0.1:1/"), "UPSTREAM_INVALID"),
        (plain("", "302 Found", "location: http://[bad"), "UPSTREAM_INVALID"),
        (plain("", "302 Found", "location: /again"), "UPSTREAM_INVALID"),
        (None, "UPSTREAM_TIMEOUT"),
    ],
)
async def test_a_fault_has_a_code_of_its_own_and_never_hangs(answer: bytes | None, code: str) -> None:
    async with answering(answer) as raw:
        error = await refused(raw.url, QUICK)
    assert error.code == code


async def test_a_packed_answer_is_unpacked() -> None:
    async with answering(plain(gzip.compress(b'"here"'), "200 OK", "content-encoding: GZIP")) as raw:
        assert await get_json(upstream(), raw.url, {}) == (200, "here")
    assert "accept-encoding: gzip\r\n" in raw.requests[0].lower()


async def test_a_call_that_is_given_up_closes_its_connection() -> None:
    async with answering(None) as raw:
        await refused(raw.url, QUICK)
        await raw.gone.wait()


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "http://no-such-name.invalid/"])
async def test_a_server_that_is_not_there_is_unavailable(url: str) -> None:
    assert (await refused(url)).code == "UPSTREAM_UNAVAILABLE"


async def test_several_requests_share_a_deadline() -> None:
    async with answering(plain(), None) as raw:
        api = upstream()

        async def both() -> None:
            async with api.deadline(0.2):
                await get(api, raw.url, {})
                await get(api, raw.url, {})

        with pytest.raises(CodedError, match=r"UPSTREAM_TIMEOUT: Somebody did not answer within 0\.2 s"):
            await both()
    assert len(raw.requests) == 2


async def test_a_redirect_within_the_host_is_followed_without_a_cookie() -> None:
    moved = plain("", "301 Moved", "location: /new?x=1", "set-cookie: a=b")
    async with answering(moved, plain('"here"')) as raw:
        assert await get_json(upstream(), f"{raw.url}/old", {}) == (200, "here")
    assert raw.requests[1].startswith("GET /new?x=1 ")
    assert "cookie" not in raw.requests[1].lower()


async def test_an_answer_is_asked_for_once_while_it_is_fresh() -> None:
    clock = Clock()
    async with answering(plain("1"), plain("2"), plain("3")) as raw:
        api = upstream(clock=clock)
        for seconds, expected in ((0, 1), (599, 1), (2, 2)):
            clock.now += seconds
            assert (await get_json(api, raw.url, {"q": "x"}, cache_seconds=600))[1] == expected
        assert (await get_json(api, raw.url, {"q": "y"}, cache_seconds=600))[1] == 3
    assert len(raw.requests) == 3


async def test_a_refusal_is_not_kept() -> None:
    async with answering(plain("1", "404 Not Found"), plain("2")) as raw:
        api = upstream()
        assert await get_json(api, raw.url, {}, cache_seconds=600) == (404, 1)
        assert await get_json(api, raw.url, {}, cache_seconds=600) == (200, 2)


async def test_an_answer_that_is_not_what_it_should_be_is_not_kept() -> None:
    async with answering(plain("<html>maintenance</html>"), plain("2")) as raw:
        api = upstream()
        with pytest.raises(CodedError, match="UPSTREAM_INVALID"):
            await get_json(api, raw.url, {}, cache_seconds=600)
        assert await get_json(api, raw.url, {}, cache_seconds=600) == (200, 2)


async def test_a_request_that_is_given_up_is_no_fault_of_the_server() -> None:
    registry = CollectorRegistry()
    api = Upstream("Somebody", registry, trust_environment=False)
    async with answering(None) as raw:
        with pytest.raises(CodedError, match="UPSTREAM_TIMEOUT"):
            async with api.deadline(0.2):
                await get(api, raw.url, {})
    labels = {"upstream": "Somebody", "outcome": "cancelled"}
    assert registry.get_sample_value("ropewalk_mcp_upstream_requests_total", labels) == 1


async def test_what_is_kept_is_bounded_in_bytes() -> None:
    async with answering(plain(f'"{"x" * 3000}"')) as raw:
        api = upstream(Limits(cache_bytes=10_000, burst=100))
        for number in [*range(20), 19, 0]:
            await get(api, raw.url, {"n": str(number)}, cache_seconds=600)
    assert len(raw.requests) == 21


async def test_requests_are_spread_and_refused_where_they_would_wait_too_long() -> None:
    clock = Clock()
    async with answering(plain()) as raw:
        api = upstream(Limits(requests_per_second=2, burst=3, patience_seconds=1), clock)
        for _ in range(5):
            await get(api, raw.url, {})
        assert clock.slept == [0.5, 0.5]
    bucket = TokenBucket(2, 3, clock := Clock())
    assert [bucket.take(1) for _ in range(5)] == [0, 0, 0, 0.5, 1.0]
    with pytest.raises(TooSoon, match=r"wait 1\.5 s"):
        bucket.take(1)
    clock.now += 0.5
    assert bucket.take(1) == 1.0


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("retry-after: 30", 30),
        ("retry-after: 999999", 3600),
        ("retry-after: soon", 10),
        ("retry-after: Sat, 01 Jan 2000 00:00:00 +99999999999999999999", 10),
        ("x: y", 10),
        ("retry-after: Fri, 01 Jan 2100 00:00:00 GMT", 3600),
        ("retry-after: Sat, 01 Jan 2000 00:00:00 GMT", 1),
    ],
)
async def test_who_asks_for_fewer_requests_gets_none_until_then(header: str, seconds: int) -> None:
    clock = Clock()
    async with answering(plain("slow down", "429 Too Many Requests", header), plain()) as raw:
        api = upstream(clock=clock)
        with pytest.raises(
            CodedError, match=f"RATE_LIMITED: Somebody asks for fewer requests; try again in {seconds} s"
        ):
            await get(api, raw.url, {})
        if seconds > 1:
            with pytest.raises(CodedError, match="RATE_LIMITED: Somebody is not asked now"):
                await get(api, raw.url, {})
        assert len(raw.requests) == 1
        clock.now += seconds
        await get(api, raw.url, {})


async def test_who_waits_for_its_turn_is_not_sent_after_others_were_asked_for_fewer() -> None:
    clock = Clock()
    async with answering(plain("slow down", "429 Too Many Requests", "retry-after: 30"), plain()) as raw:

        async def another() -> None:
            with pytest.raises(CodedError, match="asks for fewer requests"):
                await get(api, raw.url, {})

        others = [another]

        async def sleep(seconds: float) -> None:
            if others:
                await others.pop()()
            await clock.sleep(seconds)

        limits = Limits(requests_per_second=1, burst=1)
        api = Upstream(
            "Somebody", CollectorRegistry(), trust_environment=False, limits=limits, clock=clock, sleep=sleep
        )
        with pytest.raises(CodedError, match="RATE_LIMITED: Somebody is not asked now"):
            await get(api, raw.url, {})
    assert len(raw.requests) == 1


async def test_a_proxy_of_the_environment_serves_the_internet_only(monkeypatch: pytest.MonkeyPatch) -> None:
    async with answering(plain('"by proxy"')) as raw:
        monkeypatch.setenv("HTTP_PROXY", raw.url)
        assert (await get_json(upstream(trust_environment=True), "http://api.invalid/v1", {}))[1] == "by proxy"
        assert raw.requests[0].startswith("GET http://api.invalid/v1")
        with pytest.raises(CodedError, match=r"UPSTREAM_UNAVAILABLE: Somebody at api\.invalid cannot be reached"):
            await get(upstream(), "http://api.invalid/v1", {})


async def test_requests_are_counted_by_outcome_and_never_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    registry = CollectorRegistry()
    api = Upstream("Somebody", registry, trust_environment=False)
    async with answering(plain(), plain(status="404 Not Found"), plain(status="500 Error")) as raw:
        await get(api, raw.url, {"q": "secret"}, cache_seconds=60)
        await get(api, raw.url, {"q": "secret"}, cache_seconds=60)
        await get(api, raw.url, {"q": "other"})
        with pytest.raises(CodedError):
            await get(api, raw.url, {"q": "other"})
    outcomes = {
        outcome: registry.get_sample_value(
            "ropewalk_mcp_upstream_requests_total", {"upstream": "Somebody", "outcome": outcome}
        )
        for outcome in ("ok", "cached", "refused", "upstream_unavailable")
    }
    assert set(outcomes.values()) == {1.0}
    assert not caplog.records
