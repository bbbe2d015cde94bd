"""What happens to schedulers when the process forks or ends."""

from __future__ import annotations

import atexit
import os
from typing import TYPE_CHECKING
from weakref import WeakSet

if TYPE_CHECKING:
    from ipr_engine.serving.scheduler import Scheduler

EXIT_TIMEOUT_S = (
    5.0  # a forward that runs is waited for so long; a thread that ends inside of native code may abort the process
)

_SCHEDULERS: WeakSet[Scheduler] = WeakSet()


def watch(scheduler: Scheduler) -> None:
    _SCHEDULERS.add(scheduler)


def _at_exit() -> None:
    for scheduler in list(_SCHEDULERS):
        scheduler.close(drain=False, timeout_s=EXIT_TIMEOUT_S)


def _in_child() -> None:
    for scheduler in list(_SCHEDULERS):
        scheduler.after_fork()


atexit.register(_at_exit)
os.register_at_fork(after_in_child=_in_child)
