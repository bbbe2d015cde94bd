"""A `HeadWithBody` is a transport between uvicorn, which writes the head of a reply by itself, and the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import struct
import termios
from collections.abc import Callable

NOT_COPIED = 65536
"""Bytes from which on a second system call costs less than a copy."""
_QUEUED = struct.Struct("i")


class HeadWithBody:
    """A `HeadWithBody` is a transport that writes the head of a reply together with what follows it: one system call, one packet."""

    __slots__ = (
        "_flushing",
        "_head",
        "_lingers",
        "_loop",
        "_transport",
        "abort",
        "get_extra_info",
        "get_write_buffer_size",
        "is_closing",
    )

    def __init__(
        self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, lingers: Callable[[], bool]
    ) -> None:
        """Keep the transport. lingers: is asked at its end, once, whether the client may send on and has to be read."""
        self._transport = transport
        self._loop = loop
        self._lingers = lingers
        self._head = b""
        self._flushing: asyncio.Handle | None = None
        self.abort, self.is_closing = transport.abort, transport.is_closing
        self.get_write_buffer_size, self.get_extra_info = transport.get_write_buffer_size, transport.get_extra_info

    @property
    def unread(self) -> int:
        """Return how much the client has not read yet of what was written. A slow one reads on long before the buffer here gets less."""
        waiting = self.get_write_buffer_size()
        with contextlib.suppress(OSError):  # it is closed, or no kernel that tells
            asked = self.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(_QUEUED.size)
            waiting += _QUEUED.unpack(fcntl.ioctl(*asked))[0]
        return waiting

    def write(self, data: bytes) -> None:
        """Write, but a head only once something follows, or the event loop goes on without."""
        flushing = self._flushing
        if flushing is not None:
            flushing.cancel()
            self._flushing = None
            if len(data) > NOT_COPIED:
                self._transport.write(self._head)
                self._transport.write(data)
            else:
                self._transport.write(self._head + data)
        elif data.startswith(b"HTTP/1.1 "):  # a piece of a body that begins so waits for a moment, too
            self._head = data
            self._flushing = self._loop.call_soon(self._flush)
        else:
            self._transport.write(data)

    def write_whole(self, data: bytes) -> None:
        """Write a head with its body, after what is held back."""
        if self._flushing is not None:
            self._flushing.cancel()
            self._flush()
        self._transport.write(data)

    def _flush(self) -> None:
        self._flushing = None
        self._transport.write(self._head)

    def close(self) -> None:
        """End what is written, and the connection; but where it lingers the client ends that, or the time in which it may."""
        if self.is_closing():
            return
        if self._flushing is not None:
            self._flushing.cancel()
            self._flush()
        if self._lingers():
            self.is_closing = _yes  # to everybody else
            with contextlib.suppress(OSError):  # the client has reset it
                self._transport.write_eof()
        else:
            self._transport.close()

    def end(self) -> None:
        """Close, and read on for nobody."""
        if self._flushing is not None:
            self._flushing.cancel()
            self._flush()
        self._transport.close()


def _yes() -> bool:
    return True
