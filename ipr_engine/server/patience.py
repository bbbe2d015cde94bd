"""A `Patience` bounds how long each of many tasks waits, by one timer for all: a timer a request would cost more than its decision."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any

LOOKS = 8
"""So many times within the bound the timer looks who is late."""


class Patience:
    """A `Patience` is a block that a task stays in for so long at most, and up to an eighth longer.

    Many tasks may be in it, each once. What a task awaits there is cancelled when it is late, and the block raises TimeoutError.
    """

    __slots__ = ("_late", "_seconds", "_timed", "_waiting")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._waiting: dict[asyncio.Task[Any], float] = {}  # in the order in which they came, so the latest stand first
        self._late: set[asyncio.Task[Any]] = set()
        self._timed = False

    def __enter__(self) -> None:
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None, "a Patience is for tasks"
        self._waiting[task] = loop.time()
        if not self._timed:
            self._timed = True
            loop.call_later(self._seconds / LOOKS, self._look, loop)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._waiting.pop(task, None)
        if task not in self._late:
            return
        self._late.discard(task)
        if task.uncancel() == 0 and kind is asyncio.CancelledError:  # else somebody else cancelled it too
            raise TimeoutError from None

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """Cancel who is late, and look again as long as anybody waits."""
        now = loop.time()
        for task, begun in list(self._waiting.items()):
            if begun + self._seconds > now:
                break
            del self._waiting[task]
            self._late.add(task)
            task.cancel()
        self._timed = bool(self._waiting)
        if self._timed:
            loop.call_later(self._seconds / LOOKS, self._look, loop)
