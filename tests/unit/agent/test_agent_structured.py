"""Structured answers: a validated object or a clear error, and a history that knows nothing of how it was made."""

import json
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

import pytest

from agent_models import Call, Cut, ScriptedModel, Step, built
from agent_server import agent_config, running_agent
from ropewalk_agent import output_schema, structured
from ropewalk_agent.bridge import Turn
from ropewalk_agent.config import ConfigError
from ropewalk_agent.errors import AgentError
from ropewalk_agent.events import Answer, TextDelta, TurnRequest
from ropewalk_agent.metrics import Metrics
from ropewalk_agent.sessions import SessionKey
from ropewalk_agent.sessions.memory import MemorySessions
from ropewalk_agent.tools import Tool, ToolResult
from ropewalk_agent.turn import TurnRunner

CITY = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "degrees": {"type": "integer"}},
    "required": ["city", "degrees"],
    "additionalProperties": False,
}
DRAFT_7 = "http://json-schema.org/draft-07/schema#"
PARIS = {"city": "Paris", "degrees": 12}


def nested(depth: int) -> dict[str, Any]:
    return {"not": nested(depth - 1)} if depth else {}


def answered(value: Any) -> Call:
    return Call(structured.TOOL_NAME, value)


async def _add(_: dict[str, Any]) -> ToolResult:
    return ToolResult("ok", [{"text": "three"}])


ADD = Tool("add", "math", "adds", {"type": "object"}, _add)


class Desk:
    """A TurnRunner whose requests ask for `schema`."""

    def __init__(self, *answers: Sequence[Step], tools: tuple[Tool, ...] = (), **changes: Any) -> None:
        self.model = ScriptedModel(*answers)
        self.sessions = MemorySessions(ttl_seconds=60, max_sessions=10, clock=lambda: 0.0)
        self.runner = TurnRunner(agent_config(**changes), built(self.model), lambda: tools, self.sessions, Metrics())

    async def events(self, schema: Any = CITY) -> list[Any]:
        request = TurnRequest("weather?", "s", "", "r", streaming=True, output_schema=schema)
        async with aclosing(self.runner.run(request, Turn(0.0))) as events:
            return [event async for event in events]

    async def ask(self, schema: Any = CITY) -> Answer:
        answer: Answer = (await self.events(schema))[-1]
        return answer

    async def failure(self, schema: Any = CITY) -> AgentError:
        with pytest.raises(AgentError) as failed:
            await self.events(schema)
        return failed.value

    async def said(self) -> list[Any]:
        """The roles and blocks of the history."""
        history = await self.sessions.load(SessionKey("", "s"))
        return [(message["role"], [block.get("text", block) for block in message["content"]]) for message in history]


async def test_the_model_sees_the_schema_as_a_tool_and_its_call_is_the_answer() -> None:
    desk = Desk([answered(PARIS)])
    answer = await desk.ask()
    assert (answer.structured, answer.stop_reason, answer.tools_used) == (PARIS, "end_turn", ())
    assert desk.model.tools_shown == [[structured.TOOL_NAME]]
    assert len(desk.model.asked) == 1


async def test_the_history_keeps_the_question_and_the_answer_as_json_and_nothing_of_the_schema() -> None:
    desk = Desk(["It is mild."], [answered({"city": "Paris"})], [answered(PARIS)])
    answer = await desk.ask()
    assert answer.response == '{"city": "Paris", "degrees": 12}'
    assert await desk.said() == [("user", ["weather?"]), ("assistant", [answer.response])]


async def test_the_agents_own_schema_holds_where_the_request_brings_none_and_else_the_requests() -> None:
    desk = Desk([answered(PARIS)], [answered({"yes": True})], outputSchema=CITY)
    assert (await desk.ask(None)).structured == PARIS
    assert (await desk.ask({"type": "object", "required": ["yes"]})).structured == {"yes": True}


async def test_without_a_schema_nothing_is_structured_and_no_tool_is_shown() -> None:
    desk = Desk(['{"city": "Paris", "degrees": 12}'])
    assert (await desk.ask(None)).structured is None
    assert desk.model.tools_shown == [[]]


async def test_tools_run_first_and_the_answer_comes_last() -> None:
    desk = Desk([Call("add")], [answered(PARIS)], tools=(ADD,))
    answer = await desk.ask()
    assert (answer.structured, answer.tools_used) == (PARIS, ("add",))
    assert desk.model.tools_shown == [["add", structured.TOOL_NAME]] * 2
    assert [role for role, _ in await desk.said()] == ["user", "assistant", "user", "assistant"]


async def test_a_tool_of_the_same_name_gives_way_to_the_schema() -> None:
    rival = Tool(structured.TOOL_NAME, "math", "adds", {"type": "object"}, _add)
    desk = Desk([answered(PARIS)], tools=(rival,))
    assert (await desk.ask()).structured == PARIS
    assert desk.model.tools_shown == [[structured.TOOL_NAME]]


async def test_an_answer_given_beside_a_tool_call_waits_for_the_tools_result() -> None:
    guess = {"city": "Oslo", "degrees": 0}
    desk = Desk([Call("add"), answered(guess)], [answered(PARIS)], tools=(ADD,))
    assert (await desk.ask()).structured == PARIS
    calls = [block["toolUse"]["name"] for block in desk.model.asked[1][1]["content"] if "toolUse" in block]
    assert calls == ["add"]


async def test_a_model_that_answers_in_prose_is_made_to_call_the_tool() -> None:
    desk = Desk(["It is 12 degrees in Paris."], [answered(PARIS)], tools=(ADD,))
    *told, answer = await desk.events()
    assert answer.structured == PARIS
    assert told == [TextDelta("It is 12 degrees in Paris.")]
    assert desk.model.tools_shown[1] == [structured.TOOL_NAME]
    assert desk.model.tool_choices == [None, {"tool": {"name": structured.TOOL_NAME}}]
    assert desk.model.asked[1][1]["content"] == [{"text": "It is 12 degrees in Paris."}]


async def test_text_that_is_json_and_fits_is_the_answer_without_another_call() -> None:
    desk = Desk(['{"city": "Paris", "degrees": 12}'])
    assert (await desk.ask()).structured == PARIS
    assert len(desk.model.asked) == 1


async def test_an_answer_that_does_not_fit_is_tried_once_more_with_the_reason() -> None:
    desk = Desk([answered({"city": "Paris", "degrees": "mild"})], [answered(PARIS)])
    assert (await desk.ask()).structured == PARIS
    told = desk.model.asked[1][-1]["content"][0]["toolResult"]
    assert told["status"] == "error"
    assert "$.degrees: 'mild' is not of type 'integer'" in told["content"][0]["text"]


async def test_an_answer_that_does_not_fit_twice_is_an_error_with_the_raw_text_and_leaves_the_history() -> None:
    desk = Desk([answered({"city": "secret-city", "degrees": "mild"})])
    error = await desk.failure()
    assert (error.code, error.status) == ("invalid_answer", 502)
    assert error.raw == '{"city": "secret-city", "degrees": "mild"}'
    assert "$.degrees (type)" in error.message
    assert "mild" not in error.message
    assert len(desk.model.asked) == 2
    assert await desk.said() == []


@pytest.mark.parametrize("value", [float("nan"), "\ud800"], ids=["NaN", "half a character"])
async def test_what_json_cannot_hold_is_no_answer(value: Any) -> None:
    desk = Desk([answered({"answer": value})], [answered({"answer": 1})])
    assert (await desk.ask({"type": ["number", "string"]})).structured == 1
    json.dumps(desk.model.asked, ensure_ascii=False).encode()


async def test_a_model_that_only_ever_writes_prose_is_an_error() -> None:
    desk = Desk(["I would rather not."])
    error = await desk.failure()
    assert (error.code, error.raw, len(desk.model.asked)) == ("invalid_answer", "I would rather not.", 2)


async def test_the_raw_text_of_an_error_is_bounded_and_can_be_sent() -> None:
    error = await Desk(["\ud800" + "x" * 20_000]).failure()
    assert error.raw == "?" + "x" * 9_999
    assert error.body("r")["error"]["raw"] == error.raw


async def test_the_message_of_an_error_can_be_sent() -> None:
    error = await Desk().failure({"$ref": "#/$defs/\ud83d"})
    error.message.encode()
    assert AgentError("invalid_request", "half \ud83d").body("r")["error"]["message"] == "half ?"


async def test_an_answer_that_was_cut_off_is_no_answer() -> None:
    error = await Desk(['{"city": "Par', Cut()]).failure()
    assert (error.code, error.raw) == ("invalid_answer", '{"city": "Par')
    assert "max_tokens" in error.message


async def test_a_limit_ends_the_turn_without_an_object() -> None:
    answer = await Desk([Call("add")], tools=(ADD,), limits={"maxTurns": 1}).ask()
    assert (answer.stop_reason, answer.structured) == ("limit_turns", None)


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "array", "items": {"type": "integer"}}, [1, 2]),
        ({"enum": ["yes", "no"]}, "yes"),
        ({"$ref": "#/$defs/n", "$defs": {"n": {"type": ["integer", "null"]}}}, None),
    ],
)
async def test_an_answer_may_be_something_else_than_an_object(schema: Any, value: Any) -> None:
    desk = Desk([answered({"answer": value})])
    assert (await desk.ask(schema)).structured == value
    shown = desk.model.specs_shown[0][0]["inputSchema"]["json"]
    assert (shown["type"], shown["required"]) == ("object", ["answer"])


async def test_a_model_that_cannot_be_forced_is_asked_without_force() -> None:
    refusal = RuntimeError('tool_choice: type "tool" and "any" are not supported for this model')
    desk = Desk(["prose"], [refusal], [answered(PARIS)])
    assert (await desk.ask()).structured == PARIS
    assert desk.model.tool_choices[-1] is None


async def test_a_model_that_fails_in_the_correction_is_a_model_error() -> None:
    error = await Desk(["prose"], [RuntimeError("quota used up")]).failure()
    assert error.code == "model_error"


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "objekt"}, "$.type: 'objekt'"),
        ({"properties": {"a": {"minimum": "low"}}}, "$.properties.a.minimum"),
        ({"$ref": "#/$defs/missing"}, "$.$ref: '#/$defs/missing' is not found"),
        ({"allOf": [{"type": "object"}], "$ref": "#/allOf/x"}, "$.$ref: '#/allOf/x' is not found"),
        ({"minimum": 5, "$ref": "#/minimum/x"}, "$.$ref: '#/minimum/x' is not found"),
        ({"items": {"pattern": "[[:foo:]]"}}, "$.items.pattern: '[[:foo:]]' is not a 'regex'"),
        ({"items": {"pattern": "("}}, "$.items.pattern: '(' is not a 'regex'"),
        ({"patternProperties": {"[": {}}}, "$.patternProperties: '[' is not a 'regex'"),
        ({"items": {"$ref": "http://127.0.0.1:9/schema.json"}}, "$.items.$ref"),
        (nested(500), "nested too deeply"),
        ({"description": "x" * output_schema.LARGEST_SCHEMA}, "use at most 65536"),
    ],
)
async def test_a_schema_that_cannot_be_used_is_refused_before_the_model_is_asked(schema: Any, words: str) -> None:
    desk = Desk([answered({})])
    error = await desk.failure(schema)
    assert error.code == "invalid_request"
    assert error.message.startswith("output_schema: ")
    assert words in error.message
    assert desk.model.asked == []


async def test_an_agent_with_an_unusable_schema_does_not_start() -> None:
    with pytest.raises(ConfigError, match=r"outputSchema: \$\.type"):
        Desk(outputSchema={"type": "objekt"})


async def test_formats_are_not_checked_and_other_dialects_are_read_as_2020_12() -> None:
    # Draft 7 knows no prefixItems, and `items` would mean all of them.
    schema = {"$schema": DRAFT_7, "prefixItems": [{"format": "date"}], "items": {"type": "integer"}, "type": "array"}
    assert (await Desk([answered({"answer": ["someday", 1]})]).ask(schema)).structured == ["someday", 1]


async def test_a_schema_that_refers_to_itself_without_end_is_an_error_and_no_crash() -> None:
    error = await Desk([answered({"answer": 1})]).failure({"$ref": "#"})
    assert error.code == "invalid_answer"


@pytest.mark.parametrize(
    "schema",
    [
        {"title": "x", "$ref": "#/title"},
        {"maxLength": 5, "$ref": "#/maxLength"},
        {"elsewhere": {"maxLength": "low"}, "$ref": "#/elsewhere"},
        {"elsewhere": {"pattern": "("}, "$ref": "#/elsewhere"},
    ],
)
async def test_a_reference_to_what_is_no_schema_is_an_error_and_no_crash(schema: Any) -> None:
    error = await Desk([answered({"answer": "text"})]).failure(schema)
    assert error.code == "invalid_answer"
    assert "refers to what is no schema" in error.message


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "pattern": "^(a|a)*$"},
        {"type": "object", "patternProperties": {"^(a|a)*$": {}}, "additionalProperties": False},
        {"type": "object", "patternProperties": {"^(a|a)*$": {}}, "unevaluatedProperties": False},
        {
            "$defs": {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(40)} | {"d40": {}},
            "$ref": "#/$defs/d0",
        },
        {
            "$defs": {f"d{n}": {"$schema": DRAFT_7, "allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(40)}
            | {"d40": {}},
            "$ref": "#/$defs/d0",
        },
    ],
    ids=["a pattern", "a pattern of names", "a pattern of names that are left", "references", "another dialect"],
)
async def test_a_schema_that_takes_for_ever_is_given_up(schema: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output_schema, "CHECK_SECONDS", 0.05)
    long = "a" * 60 + "!"
    said = {long: 1} if schema.get("type") == "object" else {"answer": long}
    error = await Desk([answered(said)]).failure(schema)
    assert error.code == "invalid_answer"
    assert "the check takes more than 0.05 s" in error.message


async def test_patterns_decide_as_jsonschema_wants() -> None:
    schema = {
        "type": "object",
        "patternProperties": {"^x-": {"type": "integer"}},
        "properties": {"code": {"pattern": "^[A-Z]{2}$"}},
        "additionalProperties": False,
    }
    for said, fits in (({"code": "DE", "x-a": 1}, True), ({"code": "de"}, False), ({"y": 1}, False)):
        assert (output_schema.usable(schema).problems(said) == []) is fits


async def test_query_takes_a_schema_and_streams_carry_the_object_in_the_result() -> None:
    async with running_agent(ScriptedModel([answered(PARIS)])) as agent:
        answer = await agent.query("weather?", output_schema=CITY)
        assert answer.json()["structured"] == PARIS
        body = {"query": "weather?", "output_schema": CITY}
        stream = await agent.client.post("/query", json=body, headers={"accept": "text/event-stream"})
        assert stream.text.startswith("event: result\n")
        assert '"structured": {"city": "Paris", "degrees": 12}' in stream.text
        plain = await agent.query("weather?")
        assert plain.status_code == 200
        assert "structured" not in plain.json()


async def test_a_structured_answer_that_is_null_is_told_from_none() -> None:
    schema = {"type": ["integer", "null"]}
    async with running_agent(ScriptedModel([answered({"answer": None})], ["plain"])) as agent:
        null = (await agent.query("weather?", output_schema=schema)).json()
        plain = (await agent.query("weather?")).json()
    assert (null["structured"], null["response"]) == (None, "null")
    assert "structured" not in plain


async def test_a_structured_answer_that_is_null_is_told_over_a2a_behind_what_was_streamed() -> None:
    message = {"kind": "message", "messageId": "m", "role": "user", "parts": [{"kind": "text", "text": "weather?"}]}
    body = {"jsonrpc": "2.0", "id": 1, "method": "message/stream", "params": {"message": message}}
    model = ScriptedModel(["Let me see. ", answered({"answer": None})])
    async with running_agent(model, outputSchema={"type": ["integer", "null"]}) as agent:
        stream = (await agent.client.post("/a2a", json=body)).text
    events = [json.loads(line[6:])["result"] for line in stream.splitlines() if line.startswith("data: ")]
    parts = [event["artifact"]["parts"] for event in events if event["kind"] == "artifact-update"]
    assert [part["text"] for each in parts for part in each] == ["Let me see. ", "null"]


async def test_an_invalid_answer_is_502_with_its_raw_text_and_counted() -> None:
    async with running_agent(ScriptedModel(["prose"])) as agent:
        answer = await agent.query("weather?", output_schema=CITY)
        metrics = (await agent.client.get("/metrics")).text
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["raw"]) == (502, "invalid_answer", "prose")
    assert 'ropewalk_agent_requests_total{endpoint="/query",outcome="invalid_answer"} 1.0' in metrics
