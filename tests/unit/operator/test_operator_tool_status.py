"""What MCPServers and Agents say of tools: conditions, the list, and the Event when it changes. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from operator_world import pod as pod_body
from ropewalk_operator import status
from ropewalk_operator.changes import tool_news
from ropewalk_operator.clashes import Clash, clashes
from ropewalk_operator.facts import Discovered, Facts, LeftOut, ServerView, Tool, Workload
from ropewalk_operator.pods import Pod, Trouble, pod

NOW = 1_767_225_600.0
DEPLOYED = Workload(generation=2, observed_generation=2, replicas=1, updated=1, available=1, ready=1)


def seen(**fields: Any) -> Pod:
    found = pod(pod_body(**fields))
    assert found is not None
    return found


READY = seen(ready=True)
UNREADY = seen(state={"running": {}})
FOUND = Discovered((Tool("add", "adds", "sha256:1"), Tool("sub", "subtracts", "sha256:2")), "2026-07-28", "math", "1")
SERVER = Facts("MCPServer", "math", 3, url="https://u", remote=True, discovered=FOUND)
WITH_SECRETS = replace(SERVER, needs_agent=True)
AGENT = Facts("Agent", "calc", 3, url="http://u", deployment=DEPLOYED, config_hash="new", pods=(READY,))
GUARDED = ServerView("math", True, True, "", needs_agent=True)


def conditions(said: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {each["type"]: each for each in said["conditions"]}


def of_server(facts: Facts, previous: dict[str, Any] | None = None) -> dict[str, Any]:
    return status.mcp_status(facts, previous or {}, NOW)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (FOUND, "the server listed 2 tools"),
        (replace(FOUND, tools=FOUND.tools[:1]), "the server listed 1 tool"),
        (replace(FOUND, hidden=3), "the server listed 5 tools; spec.tools keeps 3 of them from agents"),
        (
            replace(FOUND, unknown=("typo",)),
            'the server listed 2 tools; spec.tools.allow names "typo", which it did not list',
        ),
        (
            replace(FOUND, left_out=tuple(LeftOut(f"t{number}", "its inputSchema is odd") for number in range(7))),
            "the server listed 2 tools; left out, because they cannot be used: t0 (its inputSchema is odd), "
            "t1 (its inputSchema is odd), t2 (its inputSchema is odd), t3 (its inputSchema is odd), "
            "t4 (its inputSchema is odd) and 2 more",
        ),
        (replace(FOUND, note='as agent "a" reports'), 'the server listed 2 tools; as agent "a" reports'),
    ],
)
def test_the_message_counts_what_was_listed_and_names_what_is_left_out(found: Discovered, message: str) -> None:
    said = conditions(of_server(replace(SERVER, discovered=found)))["ToolsDiscovered"]
    assert (said["status"], said["reason"], said["message"]) == ("True", "ToolsListed", message)


def test_of_five_hundred_tools_the_first_256_are_shown_and_all_counted() -> None:
    tools = tuple(Tool(f"tool_{number:03}", "d", "h") for number in range(500))
    said = of_server(replace(SERVER, discovered=replace(FOUND, tools=tools)))
    assert (len(said["tools"]), said["toolCount"]) == (256, 500)
    assert "status.tools holds the first 256" in conditions(said)["ToolsDiscovered"]["message"]
    assert conditions(said)["Ready"]["message"] == "500 tools at https://u"


def test_after_a_restart_the_message_stays_until_somebody_has_answered() -> None:
    before = of_server(replace(SERVER, discovered=replace(FOUND, hidden=1)))
    after = of_server(replace(SERVER, discovered=None), before)
    assert after == before


def test_a_server_that_nobody_has_asked_yet_is_ready_where_only_agents_can_ask() -> None:
    # Whoever waits for it before making the Agent would otherwise wait for ever.
    said = conditions(of_server(replace(WITH_SECRETS, discovered=None, discovery_pending=True)))
    assert (said["ToolsDiscovered"]["status"], said["ToolsDiscovered"]["reason"]) == ("Unknown", "NeedsAnAgent")
    assert (said["Ready"]["status"], said["Ready"]["reason"]) == ("True", "NeedsAnAgent")
    assert "once an Agent uses it" in said["Ready"]["message"]


def test_a_server_that_only_agents_can_ask_is_ready_once_one_has_reported() -> None:
    said = conditions(of_server(WITH_SECRETS))
    assert (said["ToolsDiscovered"]["status"], said["Ready"]["reason"]) == ("True", "Ready")


def test_the_agent_that_fails_to_reach_the_server_is_named() -> None:
    said = conditions(of_server(replace(WITH_SECRETS, discovery_error='agent "calc": it answered HTTP 401')))
    for type_ in ("ToolsDiscovered", "Ready"):
        assert (said[type_]["status"], said[type_]["reason"]) == ("False", "DiscoveryFailed")
        assert said[type_]["message"] == 'agent "calc": it answered HTTP 401'


def test_a_server_that_anybody_can_ask_is_not_ready_before_it_has_answered() -> None:
    said = conditions(of_server(replace(SERVER, discovered=None, discovery_pending=True)))
    assert (said["Ready"]["status"], said["Ready"]["reason"]) == ("False", "Pending")


def test_pods_that_are_not_available_come_before_unknown_tools() -> None:
    facts = replace(WITH_SECRETS, remote=False, discovered=None, discovery_pending=True)
    assert conditions(of_server(facts))["Ready"]["status"] == "False"


def of_agent(facts: Facts) -> dict[str, Any]:
    return conditions(status.agent_status(facts, {}, NOW))["ToolsReady"]


def test_an_agent_whose_own_pod_is_ready_has_reached_what_only_agents_can_ask() -> None:
    assert of_agent(replace(AGENT, servers=(GUARDED,)))["status"] == "True"


def test_an_agent_follows_what_its_own_pods_say_of_such_a_server() -> None:
    words = "not ready: mcp server math: connecting since 10:00 (it answered HTTP 403 Forbidden)"
    said = of_agent(
        replace(
            AGENT,
            servers=(GUARDED,),
            pods=(UNREADY,),
            extra_trouble={UNREADY.uid: Trouble("NotReady", words)},
        )
    )
    assert (said["status"], said["reason"]) == ("False", "McpServerNotReady")
    assert said["message"] == f"pod calc-new: {words}"


def test_trouble_of_a_pod_with_something_else_is_not_taken_for_the_servers() -> None:
    trouble = {UNREADY.uid: Trouble("NotReady", "not ready: mcp server math-two: disconnected")}
    said = of_agent(replace(AGENT, servers=(GUARDED,), pods=(UNREADY,), extra_trouble=trouble))
    assert (said["status"], said["reason"]) == ("Unknown", "Pending")


def test_until_its_pods_have_told_it_is_not_known_whether_they_reach_the_server() -> None:
    said = of_agent(replace(AGENT, servers=(GUARDED,), pods=(UNREADY,)))
    assert (said["status"], said["message"]) == ("Unknown", 'no pod of this spec has told yet that it reaches "math"')


def test_what_keeps_the_pods_from_telling_is_the_reason_of_ready() -> None:
    trouble = Trouble("ImagePullFailed", "the image x cannot be pulled")
    facts = replace(AGENT, servers=(GUARDED,), pods=(replace(UNREADY, trouble=trouble),))
    facts = replace(facts, deployment=replace(DEPLOYED, available=0, ready=0))
    said = conditions(status.agent_status(facts, {}, NOW))
    assert said["ToolsReady"]["status"] == "Unknown"
    assert said["Ready"]["reason"] == "ImagePullFailed"


@pytest.mark.parametrize(
    "facts",
    [
        replace(AGENT, servers=(replace(GUARDED, required=False),), pods=(UNREADY,)),
        replace(AGENT, servers=(GUARDED,), pods=(), replicas=0, suspended=True),
    ],
)
def test_an_optional_server_and_an_agent_without_pods_wait_for_nobody(facts: Facts) -> None:
    assert of_agent(facts)["status"] == "True"


def test_a_server_whose_pods_are_down_is_not_ready_also_where_only_agents_can_ask_it() -> None:
    said = of_agent(replace(AGENT, servers=(replace(GUARDED, ready=False, message="0 of 1 pods"),)))
    assert (said["status"], said["message"]) == ("False", 'mcp server "math": 0 of 1 pods')


def test_a_clash_names_tools_servers_and_the_way_out() -> None:
    facts = replace(AGENT, clashes=(Clash("add", ("math", "calc")), Clash("now", ("", "time"))))
    said = of_agent(facts)
    assert (said["status"], said["reason"]) == ("False", "ToolNamesClash")
    assert said["message"] == (
        'tools of the same name: "add" (math and calc), "now" (local tools and time); the first one\'s is used; '
        "set spec.mcpServers[].prefix of all but one, or keep one out by spec.mcpServers[].tools"
    )


def test_of_many_clashes_ten_are_named() -> None:
    facts = replace(AGENT, clashes=tuple(Clash(f"t{number}", ("a", "b")) for number in range(12)))
    assert '"t9" (a and b) and 2 more;' in of_agent(facts)["message"]


def test_names_that_differ_in_a_dash_clash_and_a_prefix_settles_it() -> None:
    assert clashes((), {"a": ["get-it", "own"], "b": ["get_it"], "c": ["c_get_it"]}) == (Clash("get-it", ("a", "b")),)
    assert clashes(["now"], {"time": ["now"]}) == (Clash("now", ("", "time")),)
    assert clashes(["now"], {"a": ["x"], "b": ["b_x"]}) == ()
    assert clashes((), {"a": ["x", "x"]}) == (), "a server's own doubles are not another's"


def listing(*count: int, **hashes: str) -> dict[str, Any]:
    tools = [{"name": name, "hash": hashes[name]} for name in sorted(hashes)]
    return {"tools": tools, "toolCount": count[0] if count else len(tools)}


NEWS: list[tuple[str, dict[str, Any], dict[str, Any], tuple[str, str] | None]] = [
    ("the first listing", {}, listing(a="1", b="2"), ("ToolsDiscovered", "2 tools: a, b")),
    ("the first listing is empty", {}, listing(), ("ToolsDiscovered", "no tools")),
    ("the same again", listing(a="1"), listing(a="1"), None),
    ("nothing known", {}, {}, None),
    (
        "all at once",
        listing(a="1", b="2", c="3"),
        listing(a="1", b="9", d="4"),
        ("ToolsChanged", "added d; removed c; changed b"),
    ),
    ("one more", listing(a="1"), listing(a="1", b="2"), ("ToolsChanged", "added b; 2 tools now, 1 before")),
    ("the last one gone", listing(a="1"), listing(), ("ToolsChanged", "removed a; 0 tools now, 1 before")),
    (
        "of a cut list what moved out of it is not called removed",
        listing(5, b="2", c="3"),
        listing(6, a="1", b="2"),
        ("ToolsChanged", "added a; 6 tools now, 5 before"),
    ),
    (
        "of a cut list what moved into it is not called added",
        listing(6, a="1", b="2"),
        listing(5, b="2", c="3"),
        ("ToolsChanged", "removed a; 5 tools now, 6 before"),
    ),
    (
        "behind the end of the list only the number tells",
        listing(5, a="1"),
        listing(6, a="1"),
        ("ToolsChanged", "6 tools now, 5 before"),
    ),
]


@pytest.mark.parametrize(("sentence", "old", "new", "news"), NEWS, ids=[row[0] for row in NEWS])
def test_news_of_tools(sentence: str, old: dict[str, Any], new: dict[str, Any], news: tuple[str, str] | None) -> None:
    assert tool_news(old, new) == news, sentence


def test_of_many_new_tools_twenty_are_named() -> None:
    news = tool_news(listing(), listing(**{f"t{number:02}": "1" for number in range(30)}))
    assert news is not None
    assert "t19 and 10 more" in news[1]
