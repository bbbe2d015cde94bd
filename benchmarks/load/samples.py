"""`Samples` holds what was measured, request by request."""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from .quantiles import Nanoseconds

TOTAL, QUEUE, SERVICE = "total", "queue", "service"
MOST_KINDS_OF_ERRORS = 20


class Log:
    """A `Log` holds one caller's notes while the run goes on; that caller alone appends to it."""

    __slots__ = ("ended", "errors", "failed_at", "intended", "rejected_at", "stages", "started")

    def __init__(self, stages: int) -> None:
        self.intended, self.started, self.ended = array("q"), array("q"), array("q")
        self.stages = tuple(array("q") for _ in range(stages))
        self.failed_at, self.rejected_at = array("q"), array("q")  # when they were to be sent
        self.errors: Counter[str] = Counter()

    def reaches(self, at: int) -> bool:
        """Return whether a request that was to be sent at `at` or later has had an answer, a failure or a rejection."""
        return any(len(times) and times[-1] >= at for times in (self.intended, self.failed_at, self.rejected_at))

    def fail(self, error: BaseException, intended: int) -> None:
        self.failed_at.append(intended)
        text = f"{type(error).__name__}: {str(error)[:200]}"
        self.errors[text if text in self.errors or len(self.errors) < MOST_KINDS_OF_ERRORS else "others"] += 1


@dataclass(frozen=True)
class Samples:
    """`Samples` holds answered requests in the order in which they were to be sent, (n,) int64 ns since the start of the run.

    Attributes:
        intended: when the schedule (open loop) or the caller that had become free (closed loop) wanted to send.
        started, ended: when the call was made, and when its answer was there.
        stages: of the target, where it reports them: name -> ns.
    """

    intended: Nanoseconds
    started: Nanoseconds
    ended: Nanoseconds
    stages: dict[str, Nanoseconds] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.intended)

    @cached_property
    def total(self) -> Nanoseconds:
        """Return times from the intended send, so that a request which had to wait for its turn is not shorter for it."""
        return self.ended - self.intended

    @cached_property
    def queue(self) -> Nanoseconds:
        """Return times before the call was made."""
        return self.started - self.intended

    @cached_property
    def service(self) -> Nanoseconds:
        """Return times of the call alone: what a harness that omits the waiting would report."""
        return self.ended - self.started

    def by_stage(self) -> dict[str, Nanoseconds]:
        """Return total, queue, service, then the target's own stages."""
        return {TOTAL: self.total, QUEUE: self.queue, SERVICE: self.service, **self.stages}

    def parts(self) -> dict[str, Nanoseconds]:
        """Return what adds up to the total: queue, then the target's stages and what is in none of them, or the service whole."""
        if not self.stages:
            return {QUEUE: self.queue, SERVICE: self.service}
        rest = self.service - np.sum(list(self.stages.values()), axis=0)
        own = self.stages.get(QUEUE)
        named = {name: values for name, values in self.stages.items() if name != QUEUE}
        return {QUEUE: self.queue if own is None else self.queue + own, **named, "other": np.maximum(rest, 0)}

    def where(self, chosen: npt.NDArray[Any]) -> Samples:
        return Samples(
            self.intended[chosen],
            self.started[chosen],
            self.ended[chosen],
            {name: values[chosen] for name, values in self.stages.items()},
        )

    def blocks(self, count: int) -> list[Samples]:
        """Return consecutive parts of equal numbers of requests."""
        edges = np.linspace(0, len(self), count + 1).astype(int)
        return [self.where(np.arange(a, b)) for a, b in zip(edges[:-1], edges[1:], strict=True)]


def gathered(logs: list[Log], stages: tuple[str, ...], start_ns: int) -> Samples:
    """Join the notes of all callers, one after the other by intended time."""
    intended, started, ended = (
        np.concatenate([np.frombuffer(getattr(log, name), np.int64) for log in logs]) - start_ns
        for name in ("intended", "started", "ended")
    )
    own = {
        name: np.concatenate([np.frombuffer(log.stages[k], np.int64) for log in logs]) for k, name in enumerate(stages)
    }
    order = np.argsort(intended, kind="stable")
    return Samples(intended[order], started[order], ended[order], {name: values[order] for name, values in own.items()})
