"""Who reads a reply hears of the end of its connection, and a connection that ends between two replies is nobody's fault."""

from __future__ import annotations

import asyncio
import gc
import socket
import struct
from typing import Any

import pytest

from ipr_engine.server.reply_reading import end_with_connection
from tests.support.skips import SERVE

aiohttp = pytest.importorskip("aiohttp", reason=SERVE)

WHOLE = b"HTTP/1.1 200 -\r\ncontent-length: 2\r\n\r\n{}"
WRONG = b"HTTP/1.1 200 -\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n"
RESET = struct.pack("ii", 1, 0)


class Raw:
    """A `Raw` answers each request by the next reply of its list: pieces, None for a reset of the connection, apart in time."""

    def __init__(self, *replies: list[bytes | None]) -> None:
        self._replies = list(replies)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while self._replies:
            try:
                await reader.readuntil(b"\r\n\r\n")
            except (asyncio.IncompleteReadError, ConnectionError):
                break
            for piece in self._replies.pop(0):
                if piece is None:
                    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                    writer.transport.abort()
                    return
                writer.write(piece)
                await asyncio.sleep(0.05)
        writer.close()


async def told(raw: Raw, replies: int) -> tuple[list[object], list[str]]:
    """Return what is read of so many replies, bodies or kinds of errors, and what asyncio says meanwhile."""
    complaints: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, said: complaints.append(said["message"]))
    server = await asyncio.start_server(raw.serve, "127.0.0.1", 0)
    url, found = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", []
    async with server, aiohttp.ClientSession() as session:
        for _ in range(replies):
            found.append(await asyncio.wait_for(read(session, url), 5))
        await asyncio.sleep(0.2)
    gc.collect()
    return found, complaints


async def read(session: Any, url: str) -> object:
    async with session.get(url) as response:
        end_with_connection(response, aiohttp.ClientPayloadError)
        try:
            return await response.read()
        except aiohttp.ClientError as error:
            return type(error)


@pytest.mark.parametrize("end", [[b"zz\r\nfoo"], [None], []], ids=["a wrong chunk", "a reset", "no last chunk"])
def test_an_end_of_the_connection_inside_of_a_reply_is_an_error(end: list[bytes | None]) -> None:
    (found,), complaints = asyncio.run(told(Raw([WRONG, *end]), 1))
    assert isinstance(found, type)
    assert issubclass(found, aiohttp.ClientError)
    assert complaints == []


def test_a_kept_connection_that_is_reset_is_none() -> None:
    found, complaints = asyncio.run(told(Raw([WHOLE], [WHOLE], [WHOLE, None]), 3))
    assert found == 3 * [b"{}"]
    assert complaints == []
