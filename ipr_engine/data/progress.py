"""A progress bar on stderr for long work: shown on a terminal, or when asked for."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any

SHOW_FROM = 2000  # steps; shorter work is over before a bar is read


class Progress:
    """`with Progress("embedding", total) as progress: progress.advance(n)`; silent when stderr is no terminal."""

    def __init__(self, what: str, total: int, *, verbose: bool = False) -> None:
        self._bar: Any = None
        if verbose or (sys.stderr.isatty() and total >= SHOW_FROM):
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
