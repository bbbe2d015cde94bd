"""An `Exchange` is one HTTP request and its reply over ASGI: its body is read within limits, a reply goes out in one piece."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Mapping, MutableMapping
from types import MappingProxyType
from typing import Any, Protocol, TypeVar

import orjson

from ipr_engine.server.given_once import require_once
from ipr_engine.server.json_text import json_of, json_text
from ipr_engine.server.long_body import LONG_BODY, read_beside, read_long
from ipr_engine.server.patience import Patience
from ipr_engine.server.refused import ClientGoneError, RefusedError
from ipr_engine.server.server_config import ServerLimits

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]
Made = TypeVar("Made")
_NO_PARTS: Mapping[str, Any] = MappingProxyType({})
JSON = (b"content-type", b"application/json")
SHORT_WAY = "ipr_engine.short_way"
"""The extension of a scope in which `ipr serve` puts a `ServedRequest`."""


class ServedRequest(Protocol):
    """A `ServedRequest` is a request that a server lets read, answer and break off without the messages of ASGI."""

    def body(self) -> bytes | None: ...

    def seen(self, most: int) -> bytes | None: ...

    @property
    def is_full(self) -> bool: ...

    @property
    def unread(self) -> int: ...

    async def drained(self) -> None: ...

    def reply(self, status: int, headers: Headers, body: bytes) -> bool: ...

    def abort(self) -> None: ...

    def watch(self, leaves: Callable[[], None] | None) -> None: ...


class Exchange:
    """An `Exchange` reads one request and writes its reply.

    Attributes:
        headers: of the request, names in lower case. named: the first of each name. query: of its URL, as it came.
        of_path: what stands in the place of names in its path.
        text: the body as it came, once `json` has read it.
        status: of the reply; None before it begins. ended: whether it is written to its end.
        is_long: whether what is done with its body takes long, once that is read.
    """

    __slots__ = (
        "_patience",
        "_receive",
        "_send",
        "_short_way",
        "ended",
        "headers",
        "is_long",
        "named",
        "of_path",
        "query",
        "status",
        "text",
    )

    is_long: bool

    def __init__(self, scope: Message, receive: Receive, send: Send, patience: Patience) -> None:
        """Keep what ASGI gives. patience: with which the body is awaited, and a client that does not read."""
        self.headers: Headers = list(scope["headers"])
        self.named = dict(self.headers[::-1])
        self.query: bytes = scope.get("query_string", b"")
        self.of_path: Mapping[str, Any] = scope.get("path_params", _NO_PARTS)
        self.text = b""
        self.status: int | None = None
        self.ended = False
        extensions = scope.get("extensions")
        # taken out: the scope would hold the connection, and the connection the scope
        self._short_way: ServedRequest | None = (
            extensions.pop(SHORT_WAY) if extensions and SHORT_WAY in extensions else None
        )
        self._patience = patience
        self._receive = receive
        self._send = send

    def replace_headers(self, names: Collection[bytes], headers: Mapping[bytes, bytes]) -> None:
        """Have these in place of what the client sent under some names. All names are in lower case."""
        self.headers = [header for header in self.headers if header[0] not in names] + list(headers.items())
        self.named = dict(self.headers[::-1])

    async def json(self, limits: ServerLimits) -> dict[str, Any]:
        """Read the body, an object of JSON.

        Raises:
            RefusedError: it is too long, too slow, or no object of JSON, or a control stands twice in it. ClientGoneError: the client left.
        """
        body = None if self._short_way is None else self._short_way.body()
        if body is None:
            body = await self._body(limits)
        elif len(body) > limits.body_bytes:
            raise _too_large(limits)
        self.is_long = len(body) >= LONG_BODY
        try:
            found = await read_beside(read_long, body) if self.is_long else json_of(body)
        except orjson.JSONDecodeError as error:
            raise RefusedError(400, f"body: expected an object of JSON in UTF-8, {_broken_at(body, error)}") from None
        if not isinstance(found, dict):
            raise RefusedError(400, f"body: expected an object of JSON, got {type(found).__name__}")
        if not self.is_long:
            require_once(body, found)
        self.text = body
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

    def client(self) -> WaitingClient | WatchedClient:
        """Watch the client, once the body is read."""
        return WaitingClient(self._receive) if self._short_way is None else WatchedClient(self._short_way)

    async def reply(self, status: int, body: bytes, headers: Headers) -> None:
        """Write a whole reply.

        Raises:
            ClientGoneError: the client has left.
        """
        if self._short_way is not None:
            if self._short_way.is_full:
                await self._read_on(self._short_way)
            if not self._short_way.reply(status, headers, body):
                raise ClientGoneError
            self.status, self.ended = status, True
            return
        await self.begin(status, [*headers, (b"content-length", str(len(body)).encode())])
        await self._send({"type": "http.response.body", "body": body})
        self.ended = True

    async def json_reply(self, status: int, found: Any, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
        """Write a whole reply of JSON."""
        await self.reply(status, json_text(found), [JSON, *headers])

    async def begin(self, status: int, headers: Headers) -> None:
        """Begin a reply whose pieces come later.

        Raises:
            ClientGoneError: as `piece`.
        """
        await self._sent({"type": "http.response.start", "status": status, "headers": headers})
        self.status = status

    async def piece(self, piece: bytes, *, more: bool = True) -> None:
        """Write a piece of a reply; without more it ends.

        Raises:
            ClientGoneError: the client has not read for so long that nobody waits for it any more.
        """
        await self._sent({"type": "http.response.body", "body": piece, "more_body": more})
        self.ended = not more

    async def _sent(self, message: Message) -> None:
        if self._short_way is not None:
            if self._short_way.is_full:
                await self._read_on(self._short_way)
            await self._send(message)  # it waits for nobody then
            return
        try:
            with self._patience:
                await self._send(message)
        except TimeoutError:
            raise ClientGoneError from None

    async def _read_on(self, way: ServedRequest) -> None:
        """Wait until the client has read, as long as it reads anything."""
        unread = way.unread
        while True:
            try:
                with self._patience:
                    return await way.drained()
            except TimeoutError:
                before, unread = unread, way.unread
            if unread >= before:
                way.abort()
                raise ClientGoneError

    @property
    def is_of_own_server(self) -> bool:
        """Return whether `ipr serve` runs this; else a server that has its own ways to stop."""
        return self._short_way is not None

    def break_off(self) -> None:
        """End the connection in the middle of the reply, so that the client sees that it is not whole.

        Raises:
            ConnectionAbortedError: the server knows no other way.
        """
        if self._short_way is None:
            raise ConnectionAbortedError("the reply broke off") from None
        self._short_way.abort()


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


class WatchedClient:
    """A `WatchedClient` is a `WaitingClient` of whom the server tells when it leaves: no task has to wait for that."""

    __slots__ = ("_request",)

    def __init__(self, request: ServedRequest) -> None:
        self._request = request

    async def __aenter__(self) -> WatchedClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Do nothing: it is watched while it waits."""

    async def waits_for(self, work: Coroutine[Any, Any, Made]) -> Made:
        """Do as that of `WaitingClient`."""
        task = asyncio.current_task()
        assert task is not None
        gone = False

        def leaves() -> None:
            nonlocal gone
            gone = True
            task.cancel()

        self._request.watch(leaves)
        try:
            return await work
        except asyncio.CancelledError:
            if gone and task.uncancel() == 0:  # else somebody else cancelled it too
                raise ClientGoneError from None
            raise
        finally:
            self._request.watch(None)
            if gone and task.cancelling():  # it left in the last moment: the task takes its cancellation here
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(0)
                task.uncancel()
                raise ClientGoneError from None


def _broken_at(body: bytes, error: orjson.JSONDecodeError) -> str:
    """Return where a body is no JSON, without anything of it."""
    if not body.strip():
        return "got nothing"
    line, column = error.lineno, error.colno
    try:
        body.decode()
    except UnicodeDecodeError as broken:  # orjson tells no place
        before = body[: broken.start].decode()
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        return f"which is no UTF-8 at line {line}, column {column}"
    return f"which it is not at line {line}, column {column}"


def _too_large(limits: ServerLimits) -> RefusedError:
    return RefusedError(413, f"body: expected at most {limits.body_bytes} bytes; see server.limits.body_bytes")
