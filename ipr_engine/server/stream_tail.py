"""A `StreamTail` keeps the end of a stream that passes by: what it tells is read only where the stream's own end is in doubt."""

from __future__ import annotations

import re
from collections import deque

KEPT_BYTES = 65536
_BLANK_LINE = re.compile(rb"\n\r?\n|\r\r")
_NUMBER = re.compile(rb'"sequence_number"\s*:\s*(\d+)(?=\D)')  # inside of a text of JSON the quotes are escaped


class StreamTail:
    """A `StreamTail` keeps the last pieces of a stream of events, `KEPT_BYTES` of them and no whole piece more."""

    __slots__ = ("_begin", "_bytes", "_dropped", "_inside", "_pieces")

    def __init__(self) -> None:
        self._pieces: deque[bytes] = deque()
        self._begin: deque[bool] = deque()
        self._bytes = 0
        self._dropped = False
        self._inside = False

    def add(self, piece: bytes, *, begins: bool = False, inside: bool = False) -> None:
        """Keep a piece, by reference; the first ones leave. begins, inside: it is known to begin an event, to end inside of one."""
        self._inside = inside
        pieces = self._pieces
        pieces.append(piece)
        self._begin.append(begins)
        self._bytes += len(piece)
        while self._bytes - len(pieces[0]) >= KEPT_BYTES:
            self._bytes -= len(pieces.popleft())
            self._begin.popleft()
            self._dropped = True

    def lacks(self, ends: re.Pattern[bytes], rest: bytes = b"") -> bool:
        """Return whether nothing in the tail, or in a rest after it, says that the stream is over.

        It is False, too, where the beginning of the last event is not in the tail: that might have said so.
        """
        text = b"".join((*self._pieces, rest))
        if ends.search(text):
            return False
        return (
            self._inside or not self._dropped or self._begin[0] or _BLANK_LINE.search(text.rstrip(b"\r\n")) is not None
        )

    def next_number(self) -> int:
        """Return the number that an event after the last one has, 0 where none was told: typed clients need one."""
        numbers = _NUMBER.findall(b"".join(self._pieces))
        return int(numbers[-1]) + 1 if numbers else 0
