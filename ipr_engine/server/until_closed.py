"""An `UntilClosed` answers a request of HTTP/1.0, whose client knows no chunks: a reply without a length ends with the connection."""

from __future__ import annotations

import socket
import struct
from typing import Any, Protocol

from ipr_engine.server.exchange import Message, Receive, Send

OLD = "1.0"
AT_ONCE = struct.pack("ii", 1, 0)
LENGTH = b"content-length"


class Cycle(Protocol):
    """A `Cycle` is what uvicorn keeps of a request and its reply."""

    chunked_encoding: bool | None
    expected_content_length: int


class UntilClosed:
    """An `UntilClosed` is an application that writes what has no length as it is, where uvicorn would write chunks."""

    def __init__(self, application: Any, cycle: Cycle) -> None:
        self._application = application
        self._cycle = cycle

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        cycle, bare = self._cycle, False

        async def sent(message: Message) -> None:
            nonlocal bare
            if message["type"] == "http.response.start":
                bare = all(name.lower() != LENGTH for name, _ in message.get("headers", ()))
                if bare:
                    cycle.chunked_encoding = False
            elif bare:  # uvicorn compares the two, of each piece and in the end
                cycle.expected_content_length = len(message.get("body", b""))
            await send(message)

        await self._application(scope, receive, sent)


def reset_at_close(transport: Any) -> None:
    """Have the connection reset once it is closed: a reply that ends with it, and is not whole, is told by that alone."""
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
