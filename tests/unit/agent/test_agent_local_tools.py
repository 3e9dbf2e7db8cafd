"""Local tools: those of the image, those that packages add, and that none of them can hurt the worker."""

import asyncio
import sys
import threading
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from agent_models import Call, ScriptedModel
from agent_server import running_agent
from ropewalk_agent.config import ConfigError
from ropewalk_agent.tools import Tool, ToolResult, local
from waiting import eventually

SHIPPED = ("current_time", "format_text", "fibonacci")


def shipped(name: str) -> Tool:
    return local.load((name,), 5)[0]


def text(result: ToolResult) -> str:
    return str(result.content[0]["text"])


async def call(name: str, **arguments: Any) -> ToolResult:
    return await shipped(name).call(arguments)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Install a package whose entry points are local tools."""

    def install(source: str, *entries: str) -> None:
        name = f"added_tools_{len(list(tmp_path.iterdir()))}_{tmp_path.name}".replace("-", "_")
        (tmp_path / f"{name}.py").write_text(source)
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        lines = [f"{entry} = {name}:{entry}" for entry in entries]
        (info / "entry_points.txt").write_text("\n".join(["[ropewalk.tools]", *lines, ""]))
        monkeypatch.syspath_prepend(str(tmp_path))

    return install


async def test_current_time_is_rfc_3339_in_the_zone_that_was_asked_for() -> None:
    for zone, offset in (("Asia/Kolkata", timedelta(hours=5, minutes=30)), ("UTC", timedelta())):
        told = datetime.fromisoformat(text(await call("current_time", zone=zone)))
        assert told.utcoffset() == offset
        assert abs(datetime.now(told.tzinfo) - told) < timedelta(minutes=5)
    assert text(await call("current_time")).endswith("+00:00")


@pytest.mark.parametrize("zone", ["Europe/Pari", "../../etc/passwd", "/etc/passwd", "Europe", "", "\0"])
async def test_a_zone_that_does_not_exist_is_an_error_with_names_that_do(zone: str) -> None:
    result = await call("current_time", zone=zone)
    assert result.outcome == "error"
    assert "use an IANA time zone, such as" in text(result)
    assert all(ZoneInfo(name) for name in text(result).partition("such as ")[2].split(", "))


@pytest.mark.parametrize(
    ("style", "said", "wanted"),
    [
        ("upper", "ab c", "AB C"),
        ("lower", "AB C", "ab c"),
        ("title", "the end", "The End"),
        ("sentence", "THE end", "The end"),
        ("trim", "  x ", "x"),
        ("squeeze", " a \n b ", "a b"),
        ("slug", "Hello, World_2!", "hello-world-2"),
    ],
)
async def test_format_text_changes_the_form(style: str, said: str, wanted: str) -> None:
    assert text(await call("format_text", text=said, style=style)) == wanted


async def test_an_unknown_style_is_an_error_that_lists_what_is_allowed() -> None:
    result = await call("format_text", text="x", style="shout")
    assert result.outcome == "error"
    assert "use one of upper, lower, title, sentence, trim, squeeze, slug" in text(result)


async def test_fibonacci_gives_all_digits_and_refuses_what_is_out_of_bounds() -> None:
    digits = [text(await call("fibonacci", n=n)) for n in (0, 1, 2, 10, 100)]
    assert digits == ["0", "1", "1", "55", "354224848179261915075"]
    assert len(text(await call("fibonacci", n=10_000))) == 2090
    for n in (-1, 10_001):
        assert text(await call("fibonacci", n=n)) == f"Error: n is {n}; use 0 to 10000"


async def test_arguments_that_do_not_fit_are_an_error_for_the_model() -> None:
    result = await call("fibonacci", n="many")
    assert result.outcome == "error"
    assert "valid integer" in text(result)
    assert (await call("fibonacci")).outcome == "error"


def test_the_model_is_told_each_argument_of_a_tool_from_its_hints_and_docstring() -> None:
    tool = shipped("format_text")
    assert tool.description.startswith("Change the form of a text")
    assert tool.input_schema["required"] == ["text", "style"]
    assert tool.input_schema["properties"]["text"] == {"type": "string", "description": "The text."}


def test_an_unknown_tool_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ConfigError) as refused:
        local.load(("fibonacci", "fibonaci", "nothing"), 5)
    assert refused.value.problems == [
        f"localTools names {name!r}; this image has current_time, fibonacci, format_text"
        for name in ("fibonaci", "nothing")
    ]


async def test_a_package_adds_tools_by_entry_points_plain_decorated_and_async(package: Any) -> None:
    package(
        '''
import strands

def plain(word: str) -> str:
    """Say it twice."""
    return word * 2

@strands.tool
def decorated(word: str) -> dict:
    """Give an object."""
    return {"word": word}

async def waits(word: str) -> str:
    """Say it later."""
    return word
''',
        "plain",
        "decorated",
        "waits",
    )
    plain, decorated, waits = local.load(("plain", "decorated", "waits"), 5)
    assert plain.description == "Say it twice."
    assert text(await plain.call({"word": "ab"})) == "abab"
    assert text(await decorated.call({"word": "ab"})) == '{"word": "ab"}'
    assert text(await waits.call({"word": "ab"})) == "ab"


def test_a_package_cannot_take_the_name_of_a_tool_of_the_image(package: Any) -> None:
    package("def fibonacci() -> str:\n    'Impostor.'\n    return ''\n", "fibonacci")
    assert shipped("fibonacci").description.startswith("Give the n-th")


def test_a_tool_that_cannot_be_imported_is_named_with_the_reason(package: Any) -> None:
    package("import not_there\n", "broken")
    with pytest.raises(ConfigError, match=r"local tool broken cannot be used: ModuleNotFoundError: .*not_there"):
        local.load(("broken",), 5)


def test_only_the_tools_that_an_agent_names_are_imported(package: Any) -> None:
    package("raise RuntimeError('imported')\n", "unwanted")
    assert [tool.name for tool in local.load(SHIPPED, 5)] == list(SHIPPED)


@pytest.mark.parametrize("failure", ["ZeroDivisionError('no')", "SystemExit(3)"])
async def test_an_exception_is_an_error_result(package: Any, failure: str) -> None:
    package(f"def fails() -> str:\n    'Fail.'\n    raise {failure}\n", "fails")
    result = await local.load(("fails",), 5)[0].call({})
    assert result.outcome == "error"
    assert failure.partition("(")[0] in text(result)


async def test_a_result_is_bounded(package: Any) -> None:
    package("def long() -> str:\n    'Say much.'\n    return 'x' * 200_000\n", "long")
    result = await local.load(("long",), 5)[0].call({})
    assert result.outcome == "ok"
    assert "[cut here: the result has more than 100000 characters]" in text(result)


async def test_a_tool_runs_in_a_thread_and_is_given_up_when_its_time_is_over(package: Any, tmp_path: Path) -> None:
    package(
        "import threading\n"
        "release = threading.Event()\n"
        "def sleeps() -> str:\n    'Sleep.'\n    release.wait(20)\n    return threading.current_thread().name\n",
        "sleeps",
    )
    result = await local.load(("sleeps",), 0.05)[0].call({})
    assert (result.outcome, text(result)) == ("timeout", "local tool sleeps did not answer within 0.05 s")
    (module,) = (module for name, module in sys.modules.items() if tmp_path.name.replace("-", "_") in name)
    module.release.set()
    assert text(await local.load(("sleeps",), 5)[0].call({})) != threading.current_thread().name


async def test_an_agent_runs_its_local_tools_and_shows_them() -> None:
    model = ScriptedModel([Call("fibonacci", {"n": 20}), Call("format_text", {"text": "x", "style": "?"})], ["done"])
    async with running_agent(model, localTools=["fibonacci", "format_text"]) as agent:
        answer = (await agent.query("twenty?")).json()
        assert (await agent.client.get("/tools")).json()["local_tools"] == ["fibonacci", "format_text"]
        metrics = (await agent.client.get("/metrics")).text
    assert answer["tools_used"] == ["fibonacci", "format_text"]
    results = [block["toolResult"] for block in model.asked[1][-1]["content"]]
    assert {result["content"][0]["text"][:4] for result in results} == {"6765", "Erro"}
    assert 'tool_calls_total{outcome="ok",server="",tool="fibonacci"} 1.0' in metrics
    assert 'tool_calls_total{outcome="error",server="",tool="format_text"} 1.0' in metrics


async def test_a_request_can_leave_out_local_tools_by_their_server_or_their_name() -> None:
    model = ScriptedModel(["done"])
    async with running_agent(model, localTools=["fibonacci", "format_text"]) as agent:
        await agent.query("a", tools=["fibonacci"])
        await agent.query("b", tool_servers=[])
        await agent.query("c", tool_servers=[""])
        refused = await agent.query("d", tools=["nothing"])
    assert model.tools_shown == [["fibonacci"], [], ["fibonacci", "format_text"]]
    assert refused.json()["error"]["message"] == ("tools names 'nothing'; this agent has 'fibonacci', 'format_text'")


async def test_a_tool_that_the_request_left_out_is_not_run_although_the_model_names_it() -> None:
    model = ScriptedModel([Call("fibonacci", {"n": 5})], ["done"])
    async with running_agent(model, localTools=["fibonacci", "format_text"]) as agent:
        answer = (await agent.query("a", tools=["format_text"])).json()
    assert answer["tools_used"] == []
    assert model.asked[1][-1]["content"][0]["toolResult"]["status"] == "error"


async def test_an_agent_that_names_an_unknown_tool_does_not_start_and_says_why() -> None:
    async with running_agent(ScriptedModel(), wait=False, localTools=["fibonaci"]) as agent:
        await eventually(lambda: any("fibonaci" in reason for reason in agent.runtime.reasons_not_ready()))
        reasons = (await agent.until("/ready", 503)).json()["reasons"]
    assert reasons == [
        "the agent cannot start: localTools names 'fibonaci'; this image has current_time, fibonacci, format_text"
    ]


async def test_tools_that_wait_run_side_by_side(package: Any) -> None:
    package(
        "import threading\n"
        "together = threading.Barrier(5)\n"
        "def meets() -> str:\n    'Wait for the others.'\n    together.wait(20)\n    return 'met'\n",
        "meets",
    )
    tool = local.load(("meets",), 20)[0]
    results = await asyncio.gather(*(tool.call({}) for _ in range(5)))
    assert [text(result) for result in results] == ["met"] * 5


async def test_tools_that_hang_leave_the_threads_that_all_else_needs(package: Any, tmp_path: Path) -> None:
    package(
        "import threading\n"
        "release = threading.Event()\n"
        "def hangs() -> str:\n    'Hang.'\n    release.wait(20)\n    return threading.current_thread().name\n",
        "hangs",
    )
    tool = local.load(("hangs",), 20, side_by_side=2)[0]
    calls = [asyncio.ensure_future(tool.call({})) for _ in range(40)]
    (module,) = (module for name, module in sys.modules.items() if tmp_path.name.replace("-", "_") in name)
    async with asyncio.timeout(5):
        beside = await asyncio.to_thread(lambda: "free")
    module.release.set()
    threads = {text(result) for result in await asyncio.gather(*calls)}
    assert beside == "free"
    assert threads == {"ropewalk-tool_0", "ropewalk-tool_1"}
