"""A `WholeEvents` passes server-sent events on whole: the bytes are the same, and where they break off no client sees half an event."""

from __future__ import annotations

import re

MOST_HELD = 1 << 20
BEGIN_BYTES = 4096
_ENDS = (b"\n\n", b"\r\n\r\n", b"\r\r")
# what may stand before an event, and is dispatched to nobody: comments that keep a connection open, and blank lines
_NO_EVENT = re.compile(rb"(?:(?::[^\r\n]*+)?+(?>\r\n|\n|\r))*+")


class WholeEvents:
    """A `WholeEvents` holds back the bytes after the last event that is whole, `MOST_HELD` of them; longer events pass in parts.

    Attributes:
        inside: part of an event has been passed on, and its end not.
        begun: how the last event begins that passed, or passes, in parts: its type stands there.
    """

    __slots__ = ("_held", "_last", "begun", "inside")

    def __init__(self) -> None:
        self._held = bytearray()
        self._last = self.begun = b""
        self.inside = False

    def add(self, piece: bytes) -> bytes:
        """Return what may be passed on now that this piece is there; b"" where nothing may."""
        if self.inside:
            end = _end_of_events(self._last + piece, 0) - len(self._last)
            if end < 0:
                self._last = piece[-1:] or self._last
                return piece
            self.inside = False
            self._held += piece[end:]
            return piece[:end] + self._without_events()
        held = self._held
        if not held and piece.endswith(_ENDS):  # as most pieces do
            return piece
        known = len(held)
        held += piece
        end = max(_end_of_events(held, max(0, known - 1)), 0)
        passed = bytes(held[:end])
        del held[:end]
        if end or b"\n" in piece or b"\r" in piece:
            passed += self._without_events()
        if len(held) > MOST_HELD:
            self.inside, self._last, self.begun = True, bytes(held[-1:]), bytes(held[:BEGIN_BYTES])
            passed += self.rest()
        return passed

    def rest(self) -> bytes:
        """Return what is held back, for a stream that has ended: an event without its end, or nothing."""
        rest = bytes(self._held)
        self._held.clear()
        return rest

    def _without_events(self) -> bytes:
        """Return the lines at the beginning of what is held that belong to no event."""
        found = _NO_EVENT.match(self._held)
        end = 0 if found is None else found.end()
        lines = bytes(self._held[:end])
        del self._held[:end]
        return lines


def _end_of_events(text: bytes | bytearray, start: int) -> int:
    """Return where the last blank line ends that begins at `start` or after it; -1 where there is none."""
    last = max(text.rfind(ends, start) for ends in (b"\n\n", b"\n\r", b"\r\r"))
    if last < 0:
        return -1
    end = last + 2
    return end + 1 if text[last + 1 : end + 1] == b"\r\n" else end
