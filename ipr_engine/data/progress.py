"""`Progress` shows a progress bar on stderr for long work, on a terminal or when asked for."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any

SHOW_FROM = 2000  # steps; shorter work is over before a bar is read


class Progress:
    """A `Progress` shows how far work is: `with Progress("embedding", total) as progress: progress.advance(n)`.

    It is silent where stderr is no terminal, and for work of fewer than SHOW_FROM steps, unless `verbose`.
    """

    def __init__(self, what: str, total: int, *, verbose: bool = False) -> None:
        self._bar: Any = None
        if verbose or (sys.stderr.isatty() and total >= SHOW_FROM):
            # rich comes with the extras [train] and [eval]; work without a bar needs none of it.
            from rich.console import Console
            from rich.progress import Progress as Bar

            self._bar = Bar(console=Console(stderr=True), transient=not verbose)
            self._task = self._bar.add_task(what, total=total)

    def __enter__(self) -> Progress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, steps: int = 1) -> None:
        if self._bar is not None:
            self._bar.advance(self._task, steps)
