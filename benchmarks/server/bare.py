"""`bare` passes every request on and decides nothing: what a gateway of the same server and HTTP client takes by itself; ASGI.

UPSTREAM in the environment is the address it passes requests on to.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp

from .stub import Message, body_of


class Bare:
    """A `Bare` holds one HTTP client."""

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self._client: Any = None

    async def __call__(
        self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        body = await body_of(receive)
        headers = {"content-type": "application/json"}
        async with self._client.post(self._upstream + scope["path"], data=body, headers=headers) as answer:
            kept, status = await answer.read(), answer.status
        told = [(b"content-type", b"application/json"), (b"content-length", str(len(kept)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": told})
        await send({"type": "http.response.body", "body": kept})

    async def _live(
        self, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        await receive()
        self._client = aiohttp.ClientSession(auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar())
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._client.close()
        await send({"type": "lifespan.shutdown.complete"})


bare = Bare(os.environ.get("UPSTREAM", ""))
