"""A `Load` says what a run does, a `Run` what came of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from ipr_engine.errors import InvalidInputError

from .arrivals import Schedule, at_least_one, duration
from .quantiles import Nanoseconds
from .samples import Log, Samples, gathered
from .targets import Target
from .threads import INTERRUPTED, Stop
from .window import Lost, counted, kept_up, rates

MOST_CALLERS = 1024
MOST_FAILURES = 10_000  # then the run ends: it measures a broken target
NEAR_NS = 20_000_000  # callers start together, this long after the last of them is ready
FIRST_CALLS = 3  # before a session's first load: they fill caches that no later one pays for


@dataclass(frozen=True, kw_only=True)
class Load:
    """A `Load` says what a run does.

    Attributes:
        seconds: measured. warm_up: seconds of the same load before them, reported apart.
        callers: in a closed loop, how many send their next request when they have their answer; in an open loop, how
            many calls of a blocking target, or requests of an async one, are served at once at most.
        schedule: of an open loop, over warm_up + seconds; None for a closed loop.
    """

    seconds: float
    warm_up: float
    callers: int
    schedule: Schedule | None = None

    def __post_init__(self) -> None:
        duration("seconds", self.seconds)
        if self.warm_up:
            duration("warm_up", self.warm_up)
        at_least_one("callers", self.callers)
        if self.schedule is None and self.callers > MOST_CALLERS:
            raise InvalidInputError(f"callers: expected at most {MOST_CALLERS}, got {self.callers}")

    @property
    def warm_up_ns(self) -> int:
        return int(self.warm_up * 1e9)

    @property
    def end_ns(self) -> int:
        """Return when the load ends, after its start."""
        return int((self.warm_up + self.seconds) * 1e9)


@dataclass(frozen=True)
class Run:
    """A `Run` says what came of a load.

    Attributes:
        measured, warm_up: the answered requests that were to be sent after the warm-up, and in it.
        answers, seconds: what was answered after the warm-up and until the end of the load, whenever it was sent, and the time
            that took (`window.counted`).
        lost, lost_in_warm_up: what was to be sent then and got no answer. Of a schedule, some are not sent: the run was cut
            for being late, or (async target) as many as `callers` were being served.
        due: arrivals of the schedule after the warm-up; None for a closed loop.
        errors: what failed, warm-up included, counted by type and message.
        stopped: why it ended before its time, or None.
    """

    target: str
    load: Load
    measured: Samples
    warm_up: Samples
    answers: int
    seconds: float
    lost: Lost
    lost_in_warm_up: Lost
    due: int | None
    errors: Counter[str]
    stopped: str | None

    @property
    def throughput(self) -> float:
        """Return answers a second after the warm-up."""
        return self.answers / self.seconds if self.seconds > 0 else 0.0

    @property
    def kept_up(self) -> bool | None:
        """Return whether an open loop's arrivals were served, but for what chance explains; None for a closed loop."""
        if self.due is None or self.load.schedule is None:
            return None
        burst = self.load.schedule.burst
        return self.stopped is None and kept_up(self.due, self.answers, self.lost.count, burst=burst)

    def rates(self, parts: int) -> list[float | None]:
        """Return the throughput of consecutive parts with equally many answers."""
        intended, ended = (
            np.concatenate([getattr(part, name) for part in (self.warm_up, self.measured)])
            for name in ("intended", "ended")
        )
        return rates(intended, ended, *_stretch(self.load, ended, self.stopped), parts)


def assemble(target: Target, load: Load, logs: list[Log], start: int, stop: Stop) -> Run:
    every = gathered(logs, target.stages, start)
    errors = sum((log.errors for log in logs), Counter[str]())
    warm_up_ns = load.warm_up_ns
    early = every.intended < warm_up_ns
    measured = every.where(~early)
    failed, rejected = (_before_and_after(logs, name, start + warm_up_ns) for name in ("failed_at", "rejected_at"))
    due, unsent = None, (0, 0)
    if load.schedule is not None:
        before = int(np.searchsorted(load.schedule.due_ns, warm_up_ns))
        due = len(load.schedule) - before
        if stop.why != INTERRUPTED:  # Ctrl-C leaves a schedule's rest unsent too, but drops nothing
            early_unsent = before - int(early.sum()) - failed[0] - rejected[0]
            unsent = (max(0, early_unsent), max(0, due - len(measured) - failed[1] - rejected[1]))
    return Run(
        target.name,
        load,
        measured,
        every.where(early),
        *counted(every.intended, every.ended, *_stretch(load, every.ended, stop.why)),
        Lost(failed[1], rejected[1], unsent[1]),
        Lost(failed[0], rejected[0], unsent[0]),
        due,
        errors,
        stop.why,
    )


def _before_and_after(logs: list[Log], name: str, at: int) -> tuple[int, int]:
    """Count the logs' times that lie before `at`, and those that do not."""
    times = np.concatenate([np.frombuffer(getattr(log, name), np.int64) for log in logs])
    early = int((times < at).sum())
    return early, len(times) - early


def _stretch(load: Load, ended: Nanoseconds, stopped: str | None) -> tuple[int, int]:
    """Return start and end, ns, of what is measured: a run that was stopped ends with its last answer."""
    start, end = load.warm_up_ns, load.end_ns
    return start, end if stopped is None or not len(ended) else max(start, min(end, int(ended.max())))
