"""What servers share that ask somebody else's HTTP API: limits, cache, politeness and error codes. It knows no API.

    upstream = Upstream("Open-Meteo", registry, trust_environment=True)
    server = ToolServer("...", "...", registry, upstream.lifespan)
    async with upstream.asked("https://...", {"latitude": "52.5"}, cache_seconds=600) as answer:
        forecast = upstream.document(answer)

Whatever the other side does, a call ends within its deadline, with an answer or with a CodedError:
UPSTREAM_UNAVAILABLE (down, no such name, 5xx), UPSTREAM_TIMEOUT, RATE_LIMITED (by them or by us) or UPSTREAM_INVALID
(not of the documented form).
"""
