"""The hooks of fork and exit: schedulers begin anew in a forked child, and end with the process."""

from __future__ import annotations

import atexit
import os
from typing import Protocol
from weakref import WeakSet

EXIT_TIMEOUT_S = (
    5.0  # a forward that runs is waited for so long; a thread that ends inside of native code may abort the process
)


class WatchedThread(Protocol):
    """An owner of a thread: it ends the thread with `close`, and begins without it in a forked child."""

    def close(self, *, drain: bool, timeout_s: float | None) -> bool: ...

    def after_fork(self) -> None: ...


_WATCHED: WeakSet[WatchedThread] = WeakSet()


def watch(owner: WatchedThread) -> None:
    """Call the owner's `close` when the process ends, and its `after_fork` in a forked child, as long as it lives."""
    _WATCHED.add(owner)


def _at_exit() -> None:
    for owner in list(_WATCHED):
        owner.close(drain=False, timeout_s=EXIT_TIMEOUT_S)


def _in_child() -> None:
    for owner in list(_WATCHED):
        owner.after_fork()


atexit.register(_at_exit)
os.register_at_fork(after_in_child=_in_child)
