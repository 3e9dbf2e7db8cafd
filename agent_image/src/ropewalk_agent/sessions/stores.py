"""The store that agent.json asks for. Opens nothing: a store begins to work when it is first used, on the worker."""

from ropewalk_agent.config import AgentConfig
from ropewalk_agent.sessions import SessionStore


def session_store(config: AgentConfig) -> SessionStore:
    """Return the store, made of what `config.sessions` says. Only the one that is asked for is imported."""
    sessions = config.sessions
    if sessions.store == "file":
        from ropewalk_agent.sessions.file import FileSessions

        return FileSessions(sessions.directory, ttl_seconds=sessions.ttl_seconds, max_sessions=sessions.max_sessions)
    if sessions.redis_url_file is not None:
        from ropewalk_agent.sessions.redis import RedisSessions

        return RedisSessions(
            sessions.redis_url_file,
            agent=f"{config.namespace}/{config.name}",
            ttl_seconds=sessions.ttl_seconds,
            max_sessions=sessions.max_sessions,
        )
    from ropewalk_agent.sessions.memory import MemorySessions

    return MemorySessions(ttl_seconds=sessions.ttl_seconds, max_sessions=sessions.max_sessions)
