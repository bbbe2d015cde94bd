"""A window counts what was answered, and what was lost, in a stretch of a run: only here are answers divided by time.

Latencies belong to the requests that were *sent* in the stretch; throughput belongs to those that were *answered* in it,
whenever they were sent. Counting the former over the time until the last of them is answered leaves out the round that was
under way when the stretch began: with many callers of a slow target most of the work would be done and not counted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .quantiles import Nanoseconds

BEHIND = 0.02  # of the arrivals of a stretch: no more of them may be lost, or added to those that wait
BEHIND_SIGMAS = 2.0  # and what the chance of Poisson arrivals adds at any time, in standard deviations


@dataclass(frozen=True)
class Lost:
    """`Lost` counts requests without an answer: they failed, the target rejected them for want of room, or they were never sent."""

    failed: int = 0
    rejected: int = 0
    unsent: int = 0

    def __add__(self, other: Lost) -> Lost:
        return Lost(self.failed + other.failed, self.rejected + other.rejected, self.unsent + other.unsent)

    @property
    def count(self) -> int:
        return self.failed + self.rejected + self.unsent


def window_edges(intended: Nanoseconds, ended: Nanoseconds, start: int, end: int) -> tuple[int, int]:
    """Return the stretch [start, end] with its ends moved back to where the work under way began.

    A target that works in batches gives its answers in lumps: the time of a batch that straddles an end must be counted
    where its answers are. Where nothing is answered in the stretch it ends with the last answer of the run.

    Args:
        intended, ended: (n,) ns of every answered request of the run.
    """
    first = _work_began(intended, ended, start)
    if not ((ended > start) & (ended <= end)).any():
        end = max(end, int(ended.max())) if len(ended) else end
    return first, _work_began(intended, ended, end)


def _work_began(intended: Nanoseconds, ended: Nanoseconds, at: int) -> int:
    """Return when the target took up its work of time `at`: after its last answer, or when the oldest waiting request came."""
    waiting = (intended <= at) & (ended > at)
    if not waiting.any():
        return at
    before = ended[ended <= at]
    oldest = int(intended[waiting].min())
    return min(at, max(oldest, int(before.max())) if len(before) else oldest)


def counted(intended: Nanoseconds, ended: Nanoseconds, start: int, end: int) -> tuple[int, float]:
    """Count the requests answered in the stretch [start, end] ns of a run, and the seconds the target took for them."""
    first, last = window_edges(intended, ended, start, end)
    answers = int(np.count_nonzero((ended > first) & (ended <= last)))
    return answers, (last - first) / 1e9


def rates(intended: Nanoseconds, ended: Nanoseconds, start: int, end: int, parts: int) -> list[float | None]:
    """Return answers a second of consecutive parts of the stretch with equally many answers; None for one that took no time."""
    first, last = window_edges(intended, ended, start, end)
    inside = np.sort(ended[(ended > first) & (ended <= last)])
    edges = np.linspace(0, len(inside), parts + 1).astype(int)
    found: list[float | None] = []
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        if high > low:
            spent = int(inside[high - 1]) - (int(inside[low - 1]) if low else first)
            found.append((high - low) / spent * 1e9 if spent > 0 else None)
    return found


def kept_up(due: int, served: int, lost: int, *, burst: int = 1) -> bool:
    """Return whether a target bore an open loop's arrivals: hardly any is lost, and no more wait at the end, but by chance.

    Args:
        due: arrivals of a stretch. lost: those of them that got no answer.
        served: answers, in the same stretch, of requests of any time.
        burst: arrivals that come at one instant.
    """
    return lost <= BEHIND * due and due - lost - served <= BEHIND * due + BEHIND_SIGMAS * math.sqrt(due * burst)
