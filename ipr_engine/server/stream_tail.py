"""A `StreamTail` keeps the end of a stream that passes by: what it tells is read only where the stream's own end is in doubt."""

from __future__ import annotations

import re
from collections import deque

KEPT_BYTES = 65536
# inside of a text of JSON the quotes are escaped; a number of more digits is none that a client can count on from
_NUMBER = re.compile(rb'"sequence_number"\s*:\s*(\d{1,18})(?=[\s,}])')


class StreamTail:
    """A `StreamTail` keeps the last pieces of a stream of events, `KEPT_BYTES` of them and no whole piece more.

    Attributes:
        long_event: how the last event began that passed in several pieces, once it is whole.
    """

    __slots__ = ("_bytes", "_inside", "_pieces", "long_event")

    def __init__(self) -> None:
        self._pieces: deque[bytes] = deque()
        self._bytes = 0
        self._inside = False
        self.long_event = b""

    def add(self, piece: bytes, *, inside: bool = False) -> None:
        """Keep a piece, by reference; the first ones leave. inside: it ends in the middle of an event."""
        self._inside = inside
        pieces = self._pieces
        pieces.append(piece)
        self._bytes += len(piece)
        while self._bytes - len(pieces[0]) >= KEPT_BYTES:
            self._bytes -= len(pieces.popleft())

    def lacks(self, ends: re.Pattern[bytes], rest: bytes = b"") -> bool:
        """Return whether no whole event says that the stream is over.

        rest: what came after the last whole event; clients do not get to see it, so that it ends nothing unless it is an end and no more.
        """
        if self._inside:
            return True
        text = b"".join(self._pieces)
        return not (ends.search(text) or ends.search(self.long_event) or ends.fullmatch(rest.rstrip(b"\r\n")))

    def next_number(self) -> int:
        """Return the number that an event after the last one has, 0 where none was told: typed clients need one."""
        numbers = _NUMBER.findall(b"".join(self._pieces))
        return int(numbers[-1]) + 1 if numbers else 0
