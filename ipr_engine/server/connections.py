"""A `Connections` bounds the connections of one worker: how many there are, and how long each may owe the head of a request."""

from __future__ import annotations

import asyncio
import select
from http import HTTPStatus
from typing import Any, Protocol

from ipr_engine.server.open_files import LACK, LAST, RESERVE, left_after
from ipr_engine.server.server_config import ServerLimits

LOOKS = 8
"""So many times within `head_s` the timer looks who is late."""
HAS_LEFT = getattr(select, "POLLRDHUP", 0)
"""What the system tells of a client that sends nothing more, whatever was not read before; that a connection was reset it tells anyway."""
UNREAD_S = 1.0
"""So often the timer looks whether who is not read has left."""
LINGERING = 128
"""So many connections that were told their end may be read on; for one more the oldest is cut off."""
LINGER_BYTES = 1 << 26
"""The most that is read, and dropped, of one of them; twice what a body may have by default."""


class Bounded(Protocol):
    """A `Bounded` is a connection that can be ended.

    Attributes:
        lingers: it was told its end, and is read on for a while; it is none of those that are counted any more.
        is_unread: whether somebody works for a request of it, and it is not read meanwhile.
    """

    transport: Any
    lingers: bool

    @property
    def is_unread(self) -> bool: ...

    def refuse(self, status: HTTPStatus) -> None: ...


class Connections:
    """A `Connections` is all connections of one worker: how many there are, which are idle, and which owe the head of a request."""

    def __init__(self, limits: ServerLimits) -> None:
        self.head_bytes = limits.head_bytes
        self.idle: dict[Bounded, None] = {}  # in the order in which they became so
        self._most = limits.connections
        self._head_s = limits.head_s
        self._owing: dict[Bounded, float] = {}  # since when, the longest first
        self._lingering: dict[Bounded, asyncio.TimerHandle] = {}
        self._timed = False
        self._unread: dict[Bounded, None] = {}
        self._looks_at_unread = False
        self._count = 0

    def opened(self, descriptor: int) -> bool:
        """Count one more; False where it is one too many. The one that was idle, or owed a head, for longest makes room.

        descriptor: of its socket, which tells where the system has few left.
        """
        self._count += 1
        left = left_after(descriptor)
        if left < RESERVE:
            LACK.seen()
        fits = self._count <= self._most
        if fits and left >= RESERVE:
            return True
        oldest = next(iter(self.idle), None) or next(iter(self._owing), None)
        if oldest is None:
            return fits and left >= LAST
        self.idle.pop(oldest, None)
        self._owing.pop(oldest, None)
        oldest.transport.end()
        return True

    def closed(self, connection: Bounded) -> None:
        if connection.lingers:
            self._forget(connection)
            return
        self._unread.pop(connection, None)
        self._count -= 1
        self.idle.pop(connection, None)
        self._owing.pop(connection, None)

    def linger(self, connection: Bounded) -> None:
        """Have it read on for as long as a head may take, but without a place among those that are counted."""
        self.closed(connection)
        connection.lingers = True
        self._lingering[connection] = asyncio.get_running_loop().call_later(self._head_s, connection.transport.abort)
        if len(self._lingering) > LINGERING:
            oldest = next(iter(self._lingering))
            self._forget(oldest)
            oldest.transport.abort()

    def _forget(self, connection: Bounded) -> None:
        timer = self._lingering.pop(connection, None)
        if timer is not None:
            timer.cancel()

    def owes(self, connection: Bounded) -> None:
        """Say that the connection owes a head from now on."""
        loop = asyncio.get_running_loop()
        self._owing[connection] = loop.time()
        if not self._timed:
            self._timed = True
            loop.call_later(self._head_s / LOOKS, self._look, loop)

    def paid(self, connection: Bounded) -> None:
        """Say that the head has come."""
        self._owing.pop(connection, None)

    def unread(self, connection: Bounded) -> None:
        """Look whether its client leaves, as long as it is unread: the event loop tells that of those alone that it reads."""
        self._unread[connection] = None
        if not self._looks_at_unread:
            self._looks_at_unread = True
            loop = asyncio.get_running_loop()
            loop.call_later(UNREAD_S, self._look_at_unread, loop)

    def _look_at_unread(self, loop: asyncio.AbstractEventLoop) -> None:
        """End who has left, though what it sent before was not read, and look again as long as anybody is unread."""
        polled, found = select.poll(), {}
        self._unread = {one: None for one in self._unread if one.is_unread and not one.transport.is_closing()}
        for one in self._unread:
            number = one.transport.get_extra_info("socket").fileno()
            found[number] = one
            polled.register(number, HAS_LEFT)
        for number, _ in polled.poll(0):
            found[number].transport.abort()
        self._looks_at_unread = bool(self._unread)
        if self._looks_at_unread:
            loop.call_later(UNREAD_S, self._look_at_unread, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """End who is late, and look again as long as anybody owes."""
        now = loop.time()
        for connection, since in list(self._owing.items()):
            if since + self._head_s > now:
                break
            del self._owing[connection]
            connection.refuse(HTTPStatus.REQUEST_TIMEOUT)
        self._timed = bool(self._owing)
        if self._timed:
            loop.call_later(self._head_s / LOOKS, self._look, loop)
