"""Sockets that do not go on sending when nobody wants that any more: neither after they are closed, nor for long while
nobody answers, nor when whoever is asked before says no.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from typing import Any

from aiohttp import AddrInfoType

UNACKNOWLEDGED_SECONDS = 4
"""How long the kernel tries to get something through, also for a process that is stopped or has been killed."""
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class _AskingSocket(socket.socket):
    """Between the question and the system call nothing waits, and no other task runs.

    asyncio keeps what the kernel does not take at once, and what is left of it is sent later by the loop: above the
    socket nobody is asked then.
    """

    ask: Callable[[], object]

    # The two by which asyncio's transports send.
    def send(self, *arguments: Any) -> int:
        self.ask()
        return super().send(*arguments)

    def sendmsg(self, *arguments: Any) -> int:
        self.ask()
        return super().sendmsg(*arguments)


def socket_that_forgets(address: AddrInfoType, ask: Callable[[], object]) -> socket.socket:
    """A socket for a connection to the API server. `ask` is called before each sending; an OSError of it ends the
    connection.

    A network that comes back after a while must not deliver what was written to it long before: another process may
    lead by then. So closing discards what has not arrived (SO_LINGER of 0, see socket(7)), and so does the kernel by
    itself after some seconds (TCP_USER_TIMEOUT, RFC 5482, see tcp(7)).
    """
    family, kind, protocol, _, _ = address
    made = _AskingSocket(family, kind, protocol)
    made.ask = ask
    made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_SECONDS * 1000)
    return made
