"""`Progress` shows a progress bar on stderr for long work, on a terminal or when asked for."""

from __future__ import annotations

import sys
import time
from types import TracebackType

SHOW_FROM = 2000  # steps; shorter work is over before a bar is read
EVERY = 0.1  # seconds between two states of a bar
BAR = 40  # characters


class Progress:
    """A `Progress` shows how far work is: `with Progress("embedding", total) as progress: progress.advance(n)`.

    It is silent where stderr is no terminal, and for work of fewer than SHOW_FROM steps, unless `verbose`. A terminal shows
    what is done as it grows, and keeps the last state when `verbose`; another stderr gets the last state alone.
    """

    def __init__(self, what: str, total: int, *, verbose: bool = False) -> None:
        self._what, self._total, self._done = what, total, 0
        self._terminal, self._keep = sys.stderr.isatty(), verbose
        self._shown = verbose or (self._terminal and total >= SHOW_FROM)
        self._start = self._last = time.monotonic()

    def __enter__(self) -> Progress:
        self._start = self._last = time.monotonic()
        if self._shown and self._terminal:
            self._draw()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._shown:
            return
        if self._keep:
            self._draw()
            sys.stderr.write("\n")
        else:
            sys.stderr.write("\r\x1b[K")  # the line is cleared
        sys.stderr.flush()

    def advance(self, steps: int = 1) -> None:
        self._done += steps
        if self._shown and self._terminal:
            now = time.monotonic()
            if now - self._last >= EVERY:
                self._last = now
                self._draw()

    def _draw(self) -> None:
        share = min(1.0, self._done / self._total) if self._total else 1.0
        passed = time.monotonic() - self._start
        bar = "#" * int(BAR * share)
        left = f"{passed * (1 - share) / share:,.0f} s left" if 0 < share < 1 else f"{passed:,.0f} s"
        again = "\r\x1b[K" if self._terminal else ""
        sys.stderr.write(f"{again}{self._what} [{bar:<{BAR}}] {share:4.0%} {left}")
        sys.stderr.flush()
