"""python -m benchmarks.server.emptied PORT: `ipr serve` with one route more, which reads its body and says nothing.

It tells what a server takes by itself.
"""

from __future__ import annotations

import socket
import sys
from typing import Any

from ipr_engine.server import app
from ipr_engine.server.http_server import serve

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
    """Make the application. The empty route is found as `/v1/route` is."""
    made = app()
    made.state.ipr.owns_process = True
    made.at_once["POST", EMPTY] = Empty()
    return made


if __name__ == "__main__":
    listening = socket.socket()
    listening.bind(("127.0.0.1", int(sys.argv[1])))
    serve(emptied(), listening)
