"""An `AsgiApp` is an application called in this process, as a server calls it: many calls cost little."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

Headers = Sequence[tuple[bytes, bytes]]


@dataclass
class AsgiReply:
    """An `AsgiReply` is what an application sent: begun is how often it began a reply, ended whether it ended one.

    plainly: whether it was answered in one step, by the short way of `ipr serve`.
    """

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    content: bytes = b""
    begun: int = 0
    ended: bool = False
    plainly: bool = False


class ShortCall:
    """A `ShortCall` is one request by the short way of `ipr serve`, whose body has come whole."""

    is_full = False
    unread = 0

    def __init__(self, body: bytes, reply: AsgiReply) -> None:
        self._body = body
        self._reply = reply
        self._taken = False

    def seen(self, most: int) -> bytes | None:
        return self._body if len(self._body) <= most else None

    def body(self) -> bytes:
        self._taken = True
        return self._body

    def reply(self, status: int, headers: Headers, body: bytes) -> bool:
        reply = self._reply
        reply.begun, reply.ended, reply.plainly = reply.begun + 1, True, status == 200 and not self._taken
        reply.status, reply.content = status, body
        reply.headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}
        return True

    async def drained(self) -> None: ...

    def abort(self) -> None: ...

    def watch(self, leaves: Callable[[], None] | None) -> None: ...


class AsgiApp:
    """An `AsgiApp` runs an application's lifespan as long as its `async with` lasts."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __aenter__(self) -> AsgiApp:
        self._told: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._said: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
        self._life = asyncio.ensure_future(self._app(scope, self._told.get, self._said.put))
        await self._told.put({"type": "lifespan.startup"})
        said = await self._said.get()
        assert said["type"] == "lifespan.startup.complete", said
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._told.put({"type": "lifespan.shutdown"})
        await self._said.get()
        await self._life

    async def call(
        self,
        method: str,
        path: str,
        headers: Headers,
        pieces: Iterable[bytes],
        *,
        leaves: bool = False,
        waits: bool = True,
        shortly: bool = False,
    ) -> AsgiReply:
        """Call once.

        Args:
            pieces: of the body. leaves: the client leaves before the last one. waits: it waits for its reply.
            shortly: by the short way of `ipr serve`.
        """
        pieces = list(pieces)
        messages: list[dict[str, Any]] = [
            {"type": "http.request", "body": piece, "more_body": True} for piece in pieces
        ]
        if leaves or not messages:
            messages.append({"type": "http.disconnect"} if leaves else {"type": "http.request", "body": b""})
        else:
            messages[-1]["more_body"] = False
        left, reply = iter(messages), AsgiReply()

        async def receive() -> dict[str, Any]:
            message = next(left, None)
            if message is None:
                if waits:
                    await asyncio.Event().wait()
                return {"type": "http.disconnect"}
            return message

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                reply.begun += 1
                reply.status = message["status"]
                reply.headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in message["headers"]}
            else:
                reply.content += message.get("body", b"")
                reply.ended = not message.get("more_body", False)

        path, _, query = path.partition("?")
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode("utf-8", "replace"),
            "root_path": "",
            "query_string": query.encode("utf-8", "replace"),
            "headers": list(headers),
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2),
        }
        if shortly:
            scope["extensions"] = {"ipr_engine.short_way": ShortCall(b"".join(pieces), reply)}
        await self._app(scope, receive, send)
        if shortly:
            assert scope["extensions"] == {}, "the way and its scope hold each other"
        return reply
