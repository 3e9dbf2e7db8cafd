"""Finds loopback ports for programs that have to be told theirs."""

import random
import socket

# Below those that systems take for the near end of a connection: such a port could be somebody's before it is used, and
# a client that knocks at one where nobody listens can end up connected to itself.
_PORTS = range(20_000, 30_000)
# Not by the generator that tests seed: two processes would try the same ports in the same order.
_untried = iter(random.SystemRandom().sample(_PORTS, len(_PORTS)))


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody uses at the moment, and that this process has not returned before."""
    for port in _untried:
        if is_free(port):
            return port
    raise RuntimeError(f"every port from {_PORTS[0]} to {_PORTS[-1]} was tried")


def is_free(port: int) -> bool:
    """Whether nobody listens on a port of 127.0.0.1."""
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True
