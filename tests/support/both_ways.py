"""One application is asked by both ways of `ipr serve`: by the short one, and by that of all endpoints."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass
from typing import Any

from tests.support.asgi_calls import AsgiApp, AsgiReply

ROUTE = "/v1/route"
HOST = (b"host", b"127.0.0.1:8000")


def told(reply: AsgiReply) -> tuple[int, Any]:
    """Return what a reply says, whatever its id."""
    assert (reply.begun, reply.ended) == (1, True)
    found = json.loads(reply.content)
    assert re.fullmatch(r"[0-9a-f]{24}", found.pop("id")) if reply.status == 200 else "error" in found
    return reply.status, (reply.headers["content-type"], found)


@dataclass
class BothWays:
    """A `BothWays` asks one application by both ways."""

    app: AsgiApp

    async def ask(
        self, body: bytes, headers: tuple[tuple[bytes, bytes], ...] = (HOST,), path: str = ROUTE
    ) -> AsgiReply:
        """Return the reply by the short way, once it is what the other way says."""
        known = await self.app.call("POST", path, headers, [body])
        shortly = await self.app.call("POST", path, headers, [body], shortly=True)
        assert told(shortly) == told(known), body[:200]
        return shortly


async def ready(application: AsgiApp) -> AsgiApp:
    while (await application.call("GET", "/ready", [HOST], [])).status != 200:
        await asyncio.sleep(0.01)
    return application


def as_json(body: object) -> bytes:
    return json.dumps(body, ensure_ascii=False).encode()
