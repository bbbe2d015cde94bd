"""The `KeptConnections` of the upstreams' client: one on which anything came after its last reply is closed, and not used again."""

from __future__ import annotations

import asyncio
import select
from contextvars import ContextVar
from functools import partial
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler

IS_KEPT: ContextVar[bool] = ContextVar("is_kept", default=False)
"""Whether the connection of this task's last request had carried one before."""


class ListeningProtocol(ResponseHandler):
    """A `ListeningProtocol` is a connection that remembers whether anything came while no request was on it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.rests = False
        self.is_used = False
        self._has_unasked = False

    def data_received(self, data: bytes) -> None:
        if data and self.rests:  # without data aiohttp goes on with what it has
            self._has_unasked = True  # of half a head it does not tell
        super().data_received(data)

    @property
    def is_silent(self) -> bool:
        """Return whether nothing is there to be read as a reply: neither kept by aiohttp nor, yet unread, in the socket."""
        return not (self._has_unasked or self.should_close or _has_come(self.transport))

    def rest(self) -> None:
        self.rests = True


class KeptConnections(aiohttp.TCPConnector):
    """A `KeptConnections` opens connections and keeps them for the next request.

    aiohttp 3.14 uses a kept one again as long as it is open, even where the upstream has written more on it: a 408 to nobody, a reply
    twice. That would be the reply to the next request, which may be another client's.
    """

    def __init__(self) -> None:
        # without a limit nobody waits for a free one, so that a time-out of connecting is the upstream's
        super().__init__(limit=0, keepalive_timeout=30, ttl_dns_cache=30)
        self._factory = partial(ListeningProtocol, loop=asyncio.get_running_loop())

    async def connect(self, req: Any, traces: Any, timeout: Any) -> Any:
        """Return a connection on which nothing is to be read; IS_KEPT tells whether it is a kept one."""
        while True:
            connection = await super().connect(req, traces=traces, timeout=timeout)
            protocol = connection.protocol
            kept = protocol.is_used
            if kept and not protocol.is_silent:
                connection.close()
                continue
            protocol.is_used, protocol.rests = True, False
            connection.add_callback(protocol.rest)
            IS_KEPT.set(kept)
            return connection


def _has_come(transport: Any) -> bool:
    """Return whether bytes, or the end, wait in the socket that the event loop has not read yet."""
    looked = select.poll()
    try:
        looked.register(transport.get_extra_info("socket"), select.POLLIN)
        return bool(looked.poll(0))
    except (OSError, ValueError, TypeError, AttributeError):  # it was closed in this moment
        return True
