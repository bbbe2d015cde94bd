"""`emptied` is the application of `ipr serve` with one route more, which reads its body and says nothing: what a server takes by itself."""

from __future__ import annotations

from typing import Any

from starlette.routing import Route

from ipr_engine.server import app

EMPTY = "/empty"


class Empty:
    """An `Empty` answers `{}`; ASGI."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        headers = [(b"content-type", b"application/json"), (b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"{}"})


def emptied() -> Any:
    """Make the application; granian calls this."""
    made = app()
    made.router.routes.append(Route(EMPTY, Empty(), methods=["POST"]))
    return made
