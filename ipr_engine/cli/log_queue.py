"""A `LogQueue` writes the log of `ipr serve` in a thread: a pipe that nobody reads, or a slow disk, holds up no request."""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from contextlib import suppress
from logging import Formatter, LogRecord
from logging.handlers import QueueHandler, QueueListener
from queue import Full, Queue
from time import gmtime, monotonic, sleep
from typing import Any

MOST_LINES = 4096
"""Lines that may wait; more are lost, and counted."""
FLUSH_S = 2.0
"""Seconds in which the lines that wait are written at the end."""
_LOOK_S = 0.01


class LogQueue(QueueHandler):
    """A `LogQueue` takes lines from any thread, and waits for nobody.

    Attributes:
        lost: is called for each line that is lost.
    """

    queue: Queue[str]

    def __init__(self, file: int, lost: Callable[[], object] = lambda: None) -> None:
        """Begin to write. file: the descriptor of an open file; nobody else holds a lock of it."""
        super().__init__(Queue(MOST_LINES))
        self._stuck = 0  # lines that a flush waited for in vain
        self.lost = lost
        _Writer(self, file).start()

    def prepare(self, record: LogRecord) -> str:
        """Return the line; the record itself stays with other handlers, and is not copied for this one."""
        return self.format(record)

    def enqueue(self, record: Any) -> None:
        """Let a line wait until it is written, or lose it where too many do. record: what `prepare` returned."""
        try:
            self.queue.put_nowait(record)
        except Full:
            self.lost()

    def flush(self) -> None:
        """Wait until every line is written, but no longer than FLUSH_S; not again for lines of which none was written meanwhile."""
        end = monotonic() + FLUSH_S
        while (waiting := self.queue.unfinished_tasks) and waiting != self._stuck and monotonic() < end:
            sleep(_LOOK_S)
        self._stuck = self.queue.unfinished_tasks


class LogFormat(Formatter):
    """A `LogFormat` puts time and level before a line, but for those that say when they are of themselves."""

    def __init__(self, bare: str) -> None:
        """Make the form. bare: the name of the logger whose lines stay as they are."""
        super().__init__("%(asctime)s.%(msecs)03dZ %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S")
        self.converter = gmtime
        self._bare = bare

    def format(self, record: LogRecord) -> str:
        return record.getMessage() if record.name == self._bare else super().format(record)


class _Writer(QueueListener):
    """A `_Writer` is the thread that writes. It has no handler of `logging`: the end of the process would wait for the lock of one."""

    def __init__(self, lines: LogQueue, file: int) -> None:
        super().__init__(lines.queue)
        self._lines = lines
        self._file = file
        self._cut = False  # the last line was not written to its end

    def handle(self, record: Any) -> None:
        """Write a line; it is lost where the file takes no more. record: what `prepare` returned."""
        line = f"{record}\n".encode(errors="backslashreplace")
        try:
            if self._cut:
                self._write(b"\n")
                self._cut = False
            self._write(line)
        except OSError:
            self._lines.lost()

    def _write(self, rest: bytes) -> None:
        whole = len(rest)
        try:
            while rest:
                with suppress(BlockingIOError):
                    rest = rest[os.write(self._file, rest) :]
                    continue
                select.select((), (self._file,), ())
        finally:
            self._cut = self._cut or 0 < len(rest) < whole
