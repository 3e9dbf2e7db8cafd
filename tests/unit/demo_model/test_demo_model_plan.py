"""Which tools the demo model calls for a text, and with what."""

from datetime import date
from typing import Any

import pytest

from demo_model.arguments import PREVIOUS, filled
from demo_model.dates import span
from demo_model.plan import Call, Plan, next_wave, plan, tool
from demo_model.schema import sound


def function(tool_name: str, description: str, required: list[str], /, **properties: Any) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "required": required}
    return {"name": tool_name, "description": description, "parameters": schema}


def arithmetic(name: str, description: str, first: str = "a", second: str = "b") -> dict[str, Any]:
    numbers = {first: {"type": "number"}, second: {"type": "number"}}
    return function(name, description, [first, second], **numbers)


TEXT = {"type": "string", "default": ""}
PROMQL = "What to ask, in PromQL"
TOOLS = [
    tool(item)
    for item in (
        arithmetic("add", "Add two numbers: a + b. The sum."),
        arithmetic("subtract", "Subtract one number from another: a - b, a minus b."),
        arithmetic("multiply", "Multiply two numbers: a * b, a times b. The product."),
        arithmetic("divide", "Divide one number by another: a / b. b must not be 0."),
        arithmetic("power", "Raise a number to a power: base ^ exponent.", "base", "exponent"),
        function("cluster_info", "Show the cluster: version, nodes with readiness, namespaces, number of pods.", []),
        function(
            "pod_management",
            "List, get, describe or delete the pods that run in a namespace.",
            ["action"],
            action={"type": "string", "enum": ["list", "get", "describe", "delete"]},
            namespace=TEXT,
            name=TEXT,
            label_selector=TEXT,
            limit={"type": "integer", "default": 100},
        ),
        function(
            "logs_retrieval",
            "Read the logs of a pod: the newest lines that a container wrote.",
            ["namespace", "pod"],
            namespace={"type": "string"},
            pod={"type": "string"},
            container=TEXT,
            tail_lines={"type": "integer"},
            since_seconds={"anyOf": [{"type": "null"}, {"type": "integer"}]},
            previous={"type": "boolean"},
        ),
        function("get_forecast", "The weather forecast for a place.", ["location"], location={"type": "string"}),
        function(
            "history", "The weather that a place had on past days.", ["place", "start_date", "end_date"],
            place={"type": "string"}, start_date={"type": "string"}, end_date={"type": "string"},
        ),
        function("frost_risk", "How likely frost is in the next days.", ["place"], place={"type": "string"}),
        function("query", "Ask Prometheus for values now.", ["query"], query={"type": "string", "description": PROMQL}),
        function(
            "range_query", "Ask Prometheus for values over a time.", ["query"],
            query={"type": "string", "description": PROMQL}, step=TEXT,
        ),
        function("server_info", "Version, uptime and targets of Prometheus.", []),
        function("list_metrics", "List the metrics that Prometheus has.", [], contains=TEXT),
        function("search", "Search the web.", ["query"], query={"type": "string", "description": "Words to find"}),
    )
]  # fmt: skip


def waves(text: str) -> list[list[tuple[str, dict[str, Any]]]]:
    return [[(call.tool, call.arguments) for call in wave] for wave in plan(text, TOOLS).waves]


def pods(action: str = "list", **more: Any) -> list[list[tuple[str, dict[str, Any]]]]:
    return [[("pod_management", {"action": action, **more})]]


@pytest.mark.parametrize(
    ("text", "name", "values"),
    [
        ("What is 21.5 plus 20.5?", "add", [21.5, 20.5]),
        ("What is the sum of 21.5 and 20.5?", "add", [21.5, 20.5]),
        ("Please add -3 and 5.", "add", [-3, 5]),
        ("What's two plus two", "add", [2, 2]),
        ("subtract 5 from 12", "subtract", [12, 5]),
        ("What is 10 - 4?", "subtract", [10, 4]),
        ("what is 1,000 * 3.5?", "multiply", [1000, 3.5]),
        ("3*4", "multiply", [3, 4]),
        ("What is 100 divided by 8", "divide", [100, 8]),
        ("divide 1 by 0", "divide", [1, 0]),
        ("2^10?", "power", [2, 10]),
        ("5 squared", "power", [5, 2]),
        ("Raise 2 to the power of 10", "power", [2, 10]),
    ],
)
def test_arithmetic_in_words_picks_the_operation_and_its_numbers(text: str, name: str, values: list[float]) -> None:
    [[(chosen, arguments)]] = waves(text)
    assert chosen == name
    assert list(arguments.values()) == values


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Which pods run in kube-system?", pods(namespace="kube-system")),
        ("Which pods run in kube-system? Answer with their names.", pods(namespace="kube-system")),
        ("list all pods", pods()),
        ("show the pods of the shop namespace", pods(namespace="shop")),
        (
            "list pods in namespace default with label selector app=web",
            pods(namespace="default", label_selector="app=web"),
        ),
        ("Describe the pod web-1-abc in namespace default", pods("describe", namespace="default", name="web-1-abc")),
        ("why does web-1-abc crash in the shop namespace?", pods("describe", namespace="shop", name="web-1-abc")),
        ("delete pod web-1 in default", pods("delete", namespace="default", name="web-1")),
        ("How many nodes does the cluster have?", [[("cluster_info", {})]]),
        ("what version does my cluster run?", [[("cluster_info", {})]]),
        ("What is the weather forecast for New York?", [[("get_forecast", {"location": "New York"})]]),
        (
            "show me the last 20 lines of the logs of coredns-5d4-xyz in kube-system",
            [[("logs_retrieval", {"namespace": "kube-system", "pod": "coredns-5d4-xyz", "tail_lines": 20})]],
        ),
        (
            "logs of web in default from the last 5 minutes",
            [[("logs_retrieval", {"namespace": "default", "pod": "web", "since_seconds": 300})]],
        ),
        (
            "get the previous logs of the container app of pod web-1 in namespace prod",
            [[("logs_retrieval", {"namespace": "prod", "pod": "web-1", "container": "app", "previous": True})]],
        ),
    ],
)
def test_questions_about_a_cluster_pick_the_tool_and_its_names(text: str, wanted: object) -> None:
    assert waves(text) == wanted


def test_parts_that_stand_by_themselves_are_called_at_once() -> None:
    assert waves("What is 2 plus 3 and 4 times 5?") == [[("add", {"a": 2, "b": 3}), ("multiply", {"a": 4, "b": 5})]]


def test_without_parallel_calls_the_same_parts_are_called_one_after_the_other() -> None:
    made = plan("What is 2 plus 3 and 4 times 5?", TOOLS, parallel=False)
    assert [len(wave) for wave in made.waves] == [1, 1]


def test_steps_use_the_number_of_the_step_before() -> None:
    made = plan("multiply 3 by 4, then add 5", TOOLS)
    assert made.waves == ((Call("multiply", {"a": 3, "b": 4}),), (Call("add", {"a": PREVIOUS, "b": 5}),))
    assert next_wave(made, [["3 * 4 = 12"]]) == (Call("add", {"a": 12, "b": 5}),)
    assert next_wave(made, [["3 * 4 = 12"], ["12 + 5 = 17"]]) == ()


def test_a_result_with_a_label_is_a_result() -> None:
    made = plan("multiply 3 by 4, then add 5", TOOLS)
    assert next_wave(made, [["Result: 12"]]) == (Call("add", {"a": 12, "b": 5}),)


def test_it_may_be_subtracted_from_a_number() -> None:
    made = plan("multiply 3 by 4, then subtract it from 100", TOOLS)
    assert made.waves[1] == (Call("subtract", {"a": 100, "b": PREVIOUS}),)


def test_a_list_of_numbers_is_worked_through() -> None:
    assert waves("add 1, 2 and 3") == [[("add", {"a": 1, "b": 2})], [("add", {"a": PREVIOUS, "b": 3})]]


@pytest.mark.parametrize("result", ["INVALID_INPUT: b is 0 in 1 / 0", "Error: 5 things broke", "no number at all"])
def test_steps_stop_after_a_result_that_gives_no_number(result: str) -> None:
    assert next_wave(plan("divide 1 by 0, then add 5", TOOLS), [[result]]) == ()


def test_a_loop_never_ends() -> None:
    made = plan("add 1 and 2", TOOLS)
    assert next_wave(made, [["1 + 2 = 3"]] * 50, loop=True) == made.waves[0]


def test_a_question_about_pods_and_a_process_asks_the_cluster_and_prometheus_at_once() -> None:
    assert waves("Is anything wrong in kube-system, and how much memory does the API server use?") == [
        [
            ("pod_management", {"action": "list", "namespace": "kube-system"}),
            ("query", {"query": 'process_resident_memory_bytes{job=~"(?i).*api[-_. ]?server.*"}'}),
        ]
    ]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("is something broken in the shop namespace?", pods(namespace="shop")),
        ("what is wrong with web-1-abc in the shop namespace?", pods("describe", namespace="shop", name="web-1-abc")),
        ("What metrics are there about memory?", [[("list_metrics", {})]]),
        ("search the web for CrashLoopBackOff", [[("search", {"query": "CrashLoopBackOff"})]]),
    ],
)
def test_trouble_is_looked_for_in_one_pod_where_one_is_named_and_names_of_metrics_are_listed(
    text: str, wanted: object
) -> None:
    assert waves(text) == wanted


@pytest.mark.parametrize(
    ("text", "name", "query"),
    [
        ("How much CPU does the kubelet use?", "query", 'rate(process_cpu_seconds_total{job=~"(?i).*kubelet.*"}[5m])'),
        ("memory of coredns.v2 in kube-system", "query", 'process_resident_memory_bytes{job=~"(?i).*coredns[.]v2.*"}'),
        ("What's etcd's memory usage?", "query", 'process_resident_memory_bytes{job=~"(?i).*etcd.*"}'),
        ("Which process uses the most memory?", "query", "process_resident_memory_bytes"),
        (
            "Is that so, and how much memory does etcd need",
            "query",
            'process_resident_memory_bytes{job=~"(?i).*etcd.*"}',
        ),
        ("Which targets are down?", "query", "up"),
        ('Please query `sum(up{job="a"})`', "query", 'sum(up{job="a"})'),
        (
            "How did the memory of the API server change over the last 2 hours?",
            "range_query",
            'process_resident_memory_bytes{job=~"(?i).*api[-_. ]?server.*"}',
        ),
    ],
)
def test_a_question_about_a_process_becomes_promql(text: str, name: str, query: str) -> None:
    assert waves(text) == [[(name, {"query": query})]]


def test_three_questions_about_the_weather_go_to_three_tools_with_their_places_and_days() -> None:
    text = "What is the forecast for New York, how was the weather in Berlin in May 2024, and is there frost in Oslo?"
    assert waves(text) == [
        [
            ("get_forecast", {"location": "New York"}),
            ("history", {"place": "Berlin", "start_date": "2024-05-01", "end_date": "2024-05-31"}),
            ("frost_risk", {"place": "Oslo"}),
        ]
    ]


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("from 2024-05-03 to 2024-06-01", date(2024, 5, 3), date(2024, 6, 1)),
        ("on 2024-02-29", date(2024, 2, 29), date(2024, 2, 29)),
        ("in February 2024", date(2024, 2, 1), date(2024, 2, 29)),
    ],
)
def test_days_are_read_from_dates_and_months(text: str, first: date, last: date) -> None:
    assert span(text) == (first, last)


@pytest.mark.parametrize("text", ["tomorrow", "on 2024-02-31", "in May"])
def test_what_is_no_day_of_the_calendar_is_left_alone(text: str) -> None:
    assert span(text) is None


@pytest.mark.parametrize("text", ["Hello, how are you?", "What did I ask before?", "", "Tell me a joke."])
def test_small_talk_calls_no_tool(text: str) -> None:
    assert plan(text, TOOLS) == Plan(())


def test_what_a_fitting_tool_lacks_is_named() -> None:
    made = plan("add 7", TOOLS)
    assert made.waves == ()
    assert made.unfilled == "The tool add fits, but it needs b, which the text does not give."


def test_a_forced_tool_is_called_whether_it_fits_or_not() -> None:
    made = plan("Hello", TOOLS, forced="cluster_info")
    assert made.waves == ((Call("cluster_info", {}),),)


def test_parameters_behind_references_unions_and_objects_are_filled() -> None:
    schema = {
        "$defs": {"Unit": {"type": "string", "enum": ["celsius", "fahrenheit"]}},
        "properties": {
            "unit": {"$ref": "#/$defs/Unit"},
            "values": {"type": "array", "items": {"type": "number"}},
            "inner": {"type": "object", "properties": {"count": {"type": "integer"}}, "required": ["count"]},
            "exact": {"type": "boolean"},
            "kind": {"type": ["null", "string"], "enum": ["a", "b"]},
        },
        "required": ["unit", "values", "inner", "exact"],
    }
    arguments, missing = filled(sound(schema), "convert 3 and 4 to fahrenheit", has_previous=False)
    assert missing == []
    assert arguments == {"unit": "fahrenheit", "values": [3, 4], "inner": {"count": 3}, "exact": False}


@pytest.mark.parametrize("text", ["in May 0000", "how much does _memory take?", f"{'9' * 5000} lines", "1e999 lines"])
def test_what_looks_like_a_figure_and_is_none_is_left_alone(text: str) -> None:
    parameters = {
        "properties": {"start_date": {}, "tail_lines": {"type": "integer"}, "query": {"description": "PromQL"}}
    }
    show = tool({"name": "show_lines", "parameters": parameters})
    assert [call.tool for wave in plan(f"show lines {text}", [show]).waves for call in wave] == ["show_lines"]
