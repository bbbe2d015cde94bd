"""An `HttpConnection` is a client's connection to `ipr serve`: uvicorn's, with bounds of its heads and of the number of connections."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from ipr_engine.server.connections import LINGER_BYTES, Connections
from ipr_engine.server.exchange import SHORT_WAY
from ipr_engine.server.head_with_body import HeadWithBody
from ipr_engine.server.short_way import ShortWay
from ipr_engine.server.until_closed import OLD, UntilClosed


class HttpConfig(uvicorn.Config):
    """An `HttpConfig` is uvicorn's config, with the connections of the worker that loads it."""

    connections: Connections

    def load(self) -> None:
        super().load()
        self.connections = Connections(self.loaded_app.state.ipr.config.server.limits)


class Nowhere(list[tuple[bytes, bytes]]):
    """A `Nowhere` takes the headers that follow a body, and keeps none: who asks and how is told by a request's head."""

    def append(self, header: tuple[bytes, bytes]) -> None:
        """Drop it."""


class HttpConnection(HttpToolsProtocol):
    """An `HttpConnection` answers a client's requests one after the other."""

    config: HttpConfig
    parser: Any

    def __init__(self, config: HttpConfig, *arguments: Any, **options: Any) -> None:
        super().__init__(config, *arguments, **options)
        self._connections = config.connections
        self.watched: dict[ShortWay, Callable[[], None]] = {}
        self._owes = False  # a head, or the rest of a body that was answered before its end
        self._in_head = self._in_body = False
        self._given_up = False  # what comes is dropped
        self._dropped_bytes = 0
        self.lingers = False
        self._head_bytes = 0  # of a head that has not ended, without the piece in which it began: that may hold more
        self._piece_bytes = 0  # of what is being read
        self._wrong = HTTPStatus.BAD_REQUEST  # what a request is that cannot be read

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self.transport = HeadWithBody(transport, self.loop, self._goes_on)  # it has what uvicorn asks of one
        if not self._connections.opened(transport.get_extra_info("socket").fileno()):
            self.refuse(HTTPStatus.SERVICE_UNAVAILABLE)
            return
        self._owe()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.closed(self)
        self._unset_keepalive_if_required()
        self._mark_left()
        super().connection_lost(exc)
        self._tell_left()

    def _mark_left(self) -> None:
        for waiting, _ in self.pipeline:
            waiting.disconnected = True
        for way in self.watched:
            way.left()

    def _tell_left(self) -> None:
        for leaves in list(self.watched.values()):
            leaves()

    def _goes_on(self) -> bool:
        """Return whether the client may send on, and have it read then: closing would reset the connection, and the client not read why."""
        if not (self._in_head or self._in_body or self._given_up or self.flow.read_paused):
            return False
        self._given_up, self._owes = True, False
        self._connections.linger(self)
        if not self.transport.get_write_buffer_size():
            self.connections.discard(self)  # a server that stops waits for those
        self.flow.resume_reading()
        return True

    def data_received(self, data: bytes) -> None:
        if self._given_up:  # it is read on so that the client's leaving is seen
            self._dropped_bytes += len(data) if self.lingers else 0
            if self._dropped_bytes > LINGER_BYTES:
                self.transport.abort()
            return
        self._connections.idle.pop(self, None)
        self._unset_keepalive_if_required()
        self._piece_bytes = len(data)
        self._head_bytes += self._piece_bytes
        while data:
            try:
                self.parser.feed_data(data)
                break
            except httptools.HttpParserUpgrade as asked:
                data = self._without_upgrade(data[asked.args[0] :])
            except httptools.HttpParserError:
                self.refuse(self._wrong)
                return
        if self._given_up:
            return
        if self._is_answering and not self._in_head and not self._in_body:
            self._head_bytes = 0
        elif self._head_bytes > self._connections.head_bytes:
            self.refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        elif not self._owes and not self._is_answering:
            self._owe()

    def _without_upgrade(self, rest: bytes) -> bytes:
        """Return a request, and what follows it, without its wish for another protocol: the parser does not read the body of such a one.

        Java's HTTP client asks for HTTP/2 so in its first request. Nothing where there is no such request.
        """
        kept = [(name, value) for name, value in self.headers if name != b"upgrade"]
        if len(kept) == len(self.headers):  # CONNECT
            self.refuse(HTTPStatus.METHOD_NOT_ALLOWED)
            return b""
        lines = [self.parser.get_method(), b" ", self.url, b" HTTP/", self.parser.get_http_version().encode(), b"\r\n"]
        for name, value in kept:
            lines += [name, b": ", value, b"\r\n"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's
        return b"".join(lines) + b"\r\n" + rest

    def read_on(self) -> None:
        """Read, unless requests wait that came before: their number is bounded by that."""
        if not self.pipeline:
            self.flow.resume_reading()
        elif self.watched:
            self._connections.unread(self)

    @property
    def is_unread(self) -> bool:
        return bool(self.watched) and self.flow.read_paused

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def _length_of_head(self) -> int:
        """Return its bytes alone: of what has come, a body may be a part."""
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _owe(self) -> None:
        self._owes = True
        self._connections.owes(self)

    def _pay(self) -> None:
        if self._owes:
            self._owes = False
            self._connections.paid(self)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._head_bytes = True, 0
        self._connections.idle.pop(self, None)  # it may have ended another in the same piece
        self._unset_keepalive_if_required()

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._pay()
        most = self._connections.head_bytes
        if self._head_bytes + self._piece_bytes > most and self._length_of_head > most:
            self._wrong = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            raise ValueError("the head is too long")  # it ends the parser
        if not self.parser.should_upgrade():  # else `data_received` goes on
            super().on_headers_complete()  # the task that answers has not begun
            self.scope["extensions"] = {SHORT_WAY: ShortWay(self, self.cycle)}
            self.headers = Nowhere()
            self._in_body = True
            if self.pipeline and self.watched:
                self._connections.unread(self)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        super()._start_asgi_task(cycle, UntilClosed(app, cycle) if cycle.scope["http_version"] == OLD else app)

    def on_body(self, body: bytes) -> None:
        self._head_bytes = 0  # what is neither head nor body, lengths of chunks and trailers, is bounded as a head is
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_body, self._head_bytes = False, 0
        if self._owes:  # it was answered before
            self._pay()
            self._connections.idle[self] = None
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            self._end_when_read()
            return
        if self.pipeline:  # uvicorn reads on after every reply; here one piece of requests waits, and no more
            self.flow.pause_reading()
        if self._is_answering:  # a request may have waited behind
            return
        if self._in_head or self._in_body:
            self._owe()
        else:
            self._connections.idle[self] = None

    def timeout_keep_alive_handler(self) -> None:
        self._end_when_read()

    def _end_when_read(self) -> None:
        """Close once the client has read what was written; one that read nothing of it for so long is cut off."""
        if not self.transport.get_write_buffer_size():
            self.transport.close()
            return
        unread = self.transport.unread

        def look() -> None:
            if self.transport.unread < unread:
                self._end_when_read()
            else:
                self.transport.abort()

        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, look)

    def refuse(self, status: HTTPStatus) -> None:
        """Say why the connection ends, and end it; nothing is said in the middle of a reply, or to who never said a word."""
        if self.transport.is_closing():
            return
        if self._is_answering and (
            self.pipeline or not self._in_body
        ):  # what came behind a request is wrong: that one is answered yet
            self.cycle.keep_alive = False
            self._given_up = True
            return
        cycle = self.cycle
        answered = cycle is not None and (cycle.response_started if self._is_answering else self._in_body)
        silent = status == HTTPStatus.REQUEST_TIMEOUT and cycle is None and not self._piece_bytes
        if silent or (answered and status == HTTPStatus.REQUEST_TIMEOUT):  # it had its time
            self.transport.end()
            return
        if not answered:
            said = f"{status.phrase}\n".encode()
            head = f"HTTP/1.1 {status.value} {status.phrase}\r\nconnection: close\r\ncontent-type: text/plain; charset=utf-8\r\n"
            self.transport.write(f"{head}content-length: {len(said)}\r\n\r\n".encode() + said)
        self._given_up = True
        self.transport.close()
        if self._is_answering:  # who waits for the rest of this body has nobody to answer
            self._mark_left()
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            self._tell_left()
