"""`in_threads` watches the threads of a run: progress, Ctrl-C, the first error, and an end even for a target that hangs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from .samples import Log

Progress = Callable[[float, int], None]  # seconds gone, requests answered

PROGRESS_S = 0.5
GRACE_S = 30.0  # for calls in flight when the run ends
INTERRUPTED = "interrupted"
BEHIND = "more than twice its time: the target is behind the schedule"


class Stop:
    """A `Stop` is asked by every caller before its next request."""

    __slots__ = ("asked", "why")

    def __init__(self) -> None:
        self.asked = False
        self.why: str | None = None

    def ask(self, why: str) -> None:
        self.why = self.why or why
        self.asked = True


def in_threads(
    works: Sequence[Callable[[], None]],
    logs: Callable[[], Sequence[Log]],
    seconds: float,
    stop: Stop,
    progress: Progress | None,
) -> None:
    """Run each in a thread of its own and wait for all.

    Args:
        logs: what is being written just now, for the progress.
        seconds: how long they should take; a late open loop is let finish what it has to send, but not for ever.
    """
    failures: list[BaseException] = []

    def guarded(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)
            stop.ask("an error")

    threads = [threading.Thread(target=guarded, args=(work,), daemon=True) for work in works]
    begun = time.monotonic()
    latest = begun + 2 * seconds + GRACE_S
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            while thread.is_alive():
                thread.join(PROGRESS_S)
                if progress is not None:
                    progress(time.monotonic() - begun, sum(len(log.ended) for log in logs()))
                if time.monotonic() > latest:
                    stop.ask(BEHIND)
    except KeyboardInterrupt:
        stop.ask(INTERRUPTED)
        for thread in threads:
            thread.join(GRACE_S)
    if failures:
        raise failures[0]
