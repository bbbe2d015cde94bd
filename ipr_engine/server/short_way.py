"""A `ShortWay` reads and answers a request of `ipr serve` without the messages of ASGI."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from ipr_engine.server.exchange import Headers
from ipr_engine.server.until_closed import OLD, reset_at_close


class ClientConnection(Protocol):
    """A `ClientConnection` is the connection by which a request came."""

    flow: Any
    transport: Any
    watched: dict[ShortWay, Callable[[], None]]

    def read_on(self) -> None: ...


class ShortWay:
    """A `ShortWay` is one request and its reply, for who does without the messages of ASGI: each takes microseconds."""

    __slots__ = ("_connection", "_cycle")

    def __init__(self, connection: ClientConnection, cycle: Any) -> None:
        self._connection = connection
        self._cycle = cycle

    def body(self) -> bytes | None:
        """Return the body, where it has come whole; it is taken by that."""
        cycle = self._cycle
        if cycle.more_body or cycle.disconnected:
            return None
        body, cycle.body = bytes(cycle.body), bytearray()
        self._connection.read_on()  # a long body paused it, and nobody would see the client leave
        return body

    def seen(self, most: int) -> bytes | None:
        """Return the body, where it has come whole and has so many bytes at most, and leave it."""
        cycle = self._cycle
        return None if cycle.more_body or cycle.disconnected or len(cycle.body) > most else bytes(cycle.body)

    @property
    def is_full(self) -> bool:
        """Return whether the client has not read what was written before."""
        return bool(self._connection.flow.write_paused)

    @property
    def unread(self) -> int:
        """Return how many bytes of it the client has not read."""
        return int(self._connection.transport.unread)

    async def drained(self) -> None:
        """Wait until the client has read, or left."""
        await self._connection.flow.drain()

    def reply(self, status: int, headers: Headers, body: bytes) -> bool:
        """Write a whole reply; False where the client has left."""
        cycle = self._cycle
        if cycle.disconnected or self._connection.transport.is_closing():
            cycle.disconnected = True  # uvicorn would answer on its own
            return False
        cycle.response_started, cycle.waiting_for_100_continue = True, False
        lines = [STATUS_LINE[status]]
        for name, value in (*cycle.default_headers, *headers):
            lines += (name, b": ", value, b"\r\n")
        if not cycle.keep_alive:
            lines.append(b"connection: close\r\n")
        lines.append(b"content-length: %d\r\n\r\n" % len(body))
        if cycle.scope["method"] != "HEAD":
            lines.append(body)
        self._connection.transport.write_whole(b"".join(lines))
        cycle.response_complete = True
        cycle.body = bytearray()  # where it was seen alone it would stay until the next request
        cycle.message_event.set()
        if not cycle.keep_alive:
            self._connection.transport.close()
        cycle.on_response()
        return True

    def left(self) -> None:
        """Say that the client has left."""
        self._cycle.disconnected = True

    def watch(self, leaves: Callable[[], None] | None) -> None:
        """Have the client's leaving told, from now on; None: no longer."""
        if leaves is None:
            self._connection.watched.pop(self, None)
        elif self._cycle.disconnected or self._connection.transport.is_closing():
            leaves()
        else:
            self._connection.watched[self] = leaves
            self._connection.read_on()

    def abort(self) -> None:
        """End the connection at once: what was not sent is dropped."""
        self._cycle.disconnected = True
        if self._cycle.scope["http_version"] == OLD and not self._connection.transport.is_closing():
            reset_at_close(self._connection.transport)
        self._connection.transport.abort()
