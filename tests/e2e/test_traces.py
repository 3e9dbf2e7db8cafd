"""One trace runs from the client through an agent's pod to its model and its tool."""

from __future__ import annotations

import httpx

from agent_otlp import otlp_receiver
from cluster.layout import NODE_ADDRESS
from e2e_cluster import Workspace, agent, mcpserver
from waiting import until

TRACE, CLIENT_SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def test_one_trace_runs_from_the_client_through_the_pod_to_the_model_and_the_tool(space: Workspace) -> None:
    with otlp_receiver(NODE_ADDRESS) as collector:
        env = [{"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": collector.url}]
        space.apply(mcpserver("math"), agent("traced", "math", pod={"env": env}))
        space.wait("agent/traced")
        answer = httpx.post(
            f"{space.url('traced-agent')}/query",
            json={"query": "What is 20 plus 22?"},
            headers={"traceparent": f"00-{TRACE}-{CLIENT_SPAN}-01"},
            timeout=30,
        )
        assert answer.status_code == 200, answer.text
        until(lambda: "POST /query" in collector.names, "the spans have arrived")
    spans = [span for span in collector.spans if span.trace_id == TRACE]
    by_id = {span.span_id: span for span in spans}

    def path(name: str) -> list[str]:
        """The names from the span up to the client's."""
        span, names = next(span for span in spans if span.name == name), [name]
        while span.parent_id != CLIENT_SPAN:
            span = by_id[span.parent_id]
            names.append(span.name)
        return names

    assert path("chat ropewalk-demo")[1:] == ["invoke_agent traced", "POST /query"]
    assert path("execute_tool add")[1:] == ["invoke_agent traced", "POST /query"]
    assert [key for span in spans for key in span.attributes if key.endswith("arguments")] == []
