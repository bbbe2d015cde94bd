"""A clock tells the time a run is measured with, and waits for a due time without oversleeping it."""

from __future__ import annotations

import select
import time
from typing import Protocol

COARSE_NS = 300_000  # a sleep may end this late on a busy kernel (50 us of timer slack, then the scheduler)


def _give_way() -> None:
    """Give the interpreter away: an empty select comes back at once, time.sleep(0) a timer's slack later."""
    select.select((), (), (), 0)


class Clock(Protocol):
    def now(self) -> int:
        """Return nanoseconds of a clock that never goes back."""
        ...

    def wait_until(self, due_ns: int) -> None:
        """Return at `due_ns` or as soon after it as can be."""
        ...


class MonotonicClock:
    """A `MonotonicClock` tells perf_counter_ns; it sleeps to shortly before the time, then polls, giving the interpreter away each time."""

    now = staticmethod(time.perf_counter_ns)

    @staticmethod
    def wait_until(due_ns: int) -> None:
        clock = time.perf_counter_ns
        early = due_ns - clock() - COARSE_NS
        if early > 0:
            time.sleep(early / 1e9)
        while clock() < due_ns:
            _give_way()
