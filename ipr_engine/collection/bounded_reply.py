"""A reply is read as far as `MOST_REPLY_BYTES`, packed or not: what asks candidates would read one without an end."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterable
from functools import cache
from typing import Any

MOST_REPLY_BYTES = 32 * 2**20  # of one reply, unpacked: some ten times what the longest answers take
PACKING = "Content-Encoding"


class UnreadReplyError(Exception):
    """A reply is not read to its end; its argument is the reason."""


async def read_bounded(chunks: AsyncIterable[bytes], packing: str | None) -> bytes:
    """Return the bytes of a reply, unpacked: replies are asked for unpacked, and one that is packed all the same is read where zlib can.

    Args:
        packing: the header `PACKING`, None where there is none.
    Raises:
        UnreadReplyError: it is too long, or packed otherwise.
    """
    packing = (packing or "identity").strip().lower()
    if packing not in ("", "identity", "gzip", "x-gzip", "deflate"):
        raise UnreadReplyError("packed")
    content = bytearray()
    async for chunk in chunks:
        content += chunk
        if len(content) > MOST_REPLY_BYTES:
            raise UnreadReplyError("too_long")
    whole = bytes(content)
    if packing not in ("", "identity"):
        try:
            whole = zlib.decompressobj(zlib.MAX_WBITS | 32).decompress(whole, MOST_REPLY_BYTES + 1)
        except zlib.error:
            raise UnreadReplyError("packed") from None
        if len(whole) > MOST_REPLY_BYTES:
            raise UnreadReplyError("too_long")
    return whole


def bounded_session(aiohttp: Any) -> Any:
    """Return a session of aiohttp that reads every reply so, in the running loop; it keeps no cookies. aiohttp: the package."""
    unpacked = aiohttp.TraceConfig()
    unpacked.on_request_start.append(_ask_for_unpacked)
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        response_class=_bounded_response(aiohttp.ClientResponse, aiohttp.StreamReader),
        trace_configs=[unpacked],
    )


async def _ask_for_unpacked(session: Any, context: Any, request: Any) -> None:
    request.headers["Accept-Encoding"] = "identity"


@cache
def _bounded_response(response: type, reader: type) -> type:
    """Return the class of replies that are read whole, within the bound, before anybody has them."""

    class BoundedResponse(response):  # type: ignore[misc]  # any, to mypy
        content: Any
        _left: Any = None  # its headers, but of a packing that it has no more

        async def start(self, connection: Any) -> Any:
            await super().start(connection)
            whole = await read_bounded(self.content.iter_any(), self._headers.get(PACKING))
            self._left = self._headers.copy()
            self._left.popall(PACKING, None)
            # Its limit is above what it holds: the connection, which others have by now, is never paused for it.
            self.content = reader(self._protocol, len(whole) + 1, loop=self._loop)
            self.content.feed_data(whole)
            self.content.feed_eof()
            return self

        @property
        def headers(self) -> Any:
            return self._headers if self._left is None else self._left

    return BoundedResponse
