"""What the bridge counts. Labels are bounded: methods are MCP's own, and never a client's text."""

from prometheus_client import Counter, Gauge, Histogram

REQUESTS = Counter("ropewalk_mcp_stdio_requests", "Requests of clients", ["method", "outcome"])
SECONDS = Histogram(
    "ropewalk_mcp_stdio_request_duration_seconds",
    "From a request's arrival to its answer",
    ["method"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
IN_FLIGHT = Gauge("ropewalk_mcp_stdio_in_flight", "Requests that children work on")
QUEUED = Gauge("ropewalk_mcp_stdio_queued", "Requests that wait for their turn")
CHILDREN = Gauge("ropewalk_mcp_stdio_children", "Child processes that run")
RESTARTS = Counter("ropewalk_mcp_stdio_child_restarts", "Children started again, by why", ["reason"])
SESSIONS = Gauge("ropewalk_mcp_stdio_sessions", "Sessions that are open")
UNROUTED = Counter(
    "ropewalk_mcp_stdio_unrouted", "Messages of a child that no client could be named for with certainty", ["kind"]
)
