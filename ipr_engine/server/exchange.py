"""An `Exchange` is one HTTP request and its reply over ASGI: its body is read within limits, a reply goes out in one piece."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, MutableMapping
from typing import Any, TypeVar

import orjson

from ipr_engine.server.json_text import json_text
from ipr_engine.server.patience import Patience
from ipr_engine.server.refused import ClientGoneError, RefusedError
from ipr_engine.server.server_config import ServerLimits

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Made = TypeVar("Made")
JSON = (b"content-type", b"application/json")
ABORT = "ipr_engine.abort"
"""The extension of a scope that ends its connection at once: what its client did not read is not sent."""
NONE: Mapping[str, Any] = {}


class Exchange:
    """An `Exchange` reads one request and writes its reply.

    Attributes:
        headers: of the request, names in lower case. named: the first of each name. path: of its URL.
        status: of the reply; None before it begins.
    """

    __slots__ = ("_abort", "_patience", "_receive", "_send", "headers", "named", "path", "query", "status")

    def __init__(self, scope: Message, receive: Receive, send: Send, patience: Patience) -> None:
        """Keep what ASGI gives. patience: with which the body is awaited, and a client that does not read."""
        self.headers: list[tuple[bytes, bytes]] = scope["headers"]
        self.named = dict(self.headers[::-1])
        self.path: str = scope["path"]
        self.query: bytes = scope.get("query_string", b"")
        self.status: int | None = None
        self._abort: Callable[[], None] | None = scope.get("extensions", NONE).get(ABORT)
        self._patience = patience
        self._receive = receive
        self._send = send

    async def json(self, limits: ServerLimits) -> dict[str, Any]:
        """Read the body, an object of JSON.

        Raises:
            RefusedError: it is too long, too slow, or no object of JSON. ClientGoneError: the client left.
        """
        body = await self._body(limits)
        try:
            found = orjson.loads(body)
        except orjson.JSONDecodeError:
            raise RefusedError(400, "body: expected an object of JSON in UTF-8") from None
        if not isinstance(found, dict):
            raise RefusedError(400, f"body: expected an object of JSON, got {type(found).__name__}")
        return found

    async def _body(self, limits: ServerLimits) -> bytes:
        stated = self.named.get(b"content-length")
        if stated is not None and stated.isdigit() and int(stated) > limits.body_bytes:
            raise _too_large(limits)
        kept = bytearray()
        try:
            with self._patience:  # from the head on: a body may never begin
                while True:
                    message = await self._receive()
                    if message["type"] == "http.disconnect":
                        raise ClientGoneError
                    piece: bytes = message.get("body", b"")
                    if len(kept) + len(piece) > limits.body_bytes:
                        raise _too_large(limits)
                    if not message.get("more_body"):
                        return bytes(kept) + piece if kept else piece
                    kept += piece
        except TimeoutError:
            raise RefusedError(408, f"body: did not come within {limits.body_s:g} seconds") from None

    def client(self) -> WaitingClient:
        """Watch the client, once the body is read."""
        return WaitingClient(self._receive)

    async def reply(self, status: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
        """Write a whole reply."""
        await self.begin(status, [*headers, (b"content-length", str(len(body)).encode())])
        await self._send({"type": "http.response.body", "body": body})

    async def json_reply(self, status: int, found: Any, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
        """Write a whole reply of JSON."""
        await self.reply(status, json_text(found), [JSON, *headers])

    async def begin(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Begin a reply whose pieces come later."""
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        self.status = status

    async def piece(self, piece: bytes, *, more: bool = True) -> None:
        """Write a piece of a reply; without more it ends.

        Raises:
            ClientGoneError: the client has not read for so long that nobody waits for it any more.
        """
        try:
            with self._patience:
                await self._send({"type": "http.response.body", "body": piece, "more_body": more})
        except TimeoutError:
            self.break_off()
            raise ClientGoneError from None

    def break_off(self) -> None:
        """End the connection in the middle of the reply, so that the client sees that it is not whole.

        Raises:
            ConnectionAbortedError: the server knows no other way.
        """
        if self._abort is None:
            raise ConnectionAbortedError("the reply broke off") from None
        self._abort()


class WaitingClient:
    """A `WaitingClient` is the client of one request: when it leaves, what it waits for is cancelled."""

    __slots__ = ("_gone", "_receive")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive

    async def _leaves(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def __aenter__(self) -> WaitingClient:
        self._gone = asyncio.ensure_future(self._leaves())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._gone.cancel()

    async def waits_for(self, work: Coroutine[Any, Any, Made]) -> Made:
        """Return what the work gives.

        Raises:
            ClientGoneError: the client left before; the work is cancelled, and has ended.
        """
        doing = asyncio.ensure_future(work)
        try:
            await asyncio.wait((doing, self._gone), return_when=asyncio.FIRST_COMPLETED)
            if doing.done():
                return doing.result()
            raise ClientGoneError
        finally:
            if not doing.done():
                doing.cancel()
                await asyncio.gather(doing, return_exceptions=True)


def _too_large(limits: ServerLimits) -> RefusedError:
    return RefusedError(413, f"body: expected at most {limits.body_bytes} bytes; see server.limits.body_bytes")
