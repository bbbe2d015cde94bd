"""A `Stopping` is what SIGTERM, SIGINT and SIGHUP do while a server is not there yet that would take them: they end the command."""

from __future__ import annotations

import signal
import threading
from types import TracebackType
from typing import Any


class Stopping:
    """A `Stopping` ends what runs in its `with` by SystemExit(0), as a server ends that is asked to.

    Attributes:
        asked: whether a signal has come; where the exception was lost (in a finalizer, say), this alone tells.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Stopping:
        if threading.current_thread() is threading.main_thread():
            # SIGTERM, which Python does not take by itself, comes last: who sees that it is taken may send any of them.
            for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
                if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores it
                    self._before[number] = signal.signal(number, self._stop)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None or kind is SystemExit:  # the process ends: another signal of the same kind changes nothing
            return
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _stop(self, number: int, frame: object) -> None:
        if not self.asked:
            self.asked = True
            raise SystemExit(0)
