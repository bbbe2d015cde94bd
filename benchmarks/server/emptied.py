"""python -m benchmarks.server.emptied PORT: `ipr serve` with one route more, which reads its body and says nothing.

It tells what a server takes by itself.
"""

from __future__ import annotations

import socket
import sys
from typing import Any

from ipr_engine.cli.serve import LOOPBACK
from ipr_engine.server import ServerConfig, app
from ipr_engine.server.exchange import JSON, SHORT_WAY
from ipr_engine.server.http_server import serve
from ipr_engine.server.server_config import ServerOptions

EMPTY = "/empty"


class Empty:
    """An `Empty` answers `{}`, by the same short way as every endpoint of this server; ASGI."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        way = scope["extensions"].pop(SHORT_WAY)
        if way.body() is None:
            while (await receive()).get("more_body"):
                pass
        way.reply(200, [JSON], b"{}")


def emptied() -> Any:
    """Make the application. The empty route is found as `/v1/route` is."""
    made = app(None, ServerConfig(server=ServerOptions(hosts=LOOPBACK)))  # as `ipr serve` on loopback
    made.state.ipr.owns_process = True
    made.at_once["POST", EMPTY] = Empty()
    return made


if __name__ == "__main__":
    listening = socket.socket()
    listening.bind(("127.0.0.1", int(sys.argv[1])))
    serve(emptied(), listening)
