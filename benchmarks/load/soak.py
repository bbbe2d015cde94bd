"""A soak runs long enough to see memory grow: hours of requests at a share of the most, then twice the most.

A window after the other, each a run whose samples are summed up and dropped, so that the harness's own memory is bounded.
"""

from __future__ import annotations

import gc
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from ipr_engine.errors import InvalidInputError

from .arrivals import MOST_REQUESTS
from .loads import Load, Run
from .measure import LoadCase, figures
from .quantiles import level_name
from .runner import run_parts
from .targets import Target
from .threads import Progress
from .window import Lost

WINDOWS = 40  # of ten minutes: enough for the slope's interval
LEAST_WINDOW_S = 5.0  # each starts without a backlog: shorter ones would hide that there is one
LEAST_WINDOWS = 10  # of which a slope with an interval is told
SETTLING = 0.1  # of the windows, first ones, left out of the slope: allocators fill their pools
Z = 1.96
FLAT_MB_PER_HOUR = 10.0  # growth that is called none: 1.7 MB over ten minutes
OVERLOAD = 2.0
OVERLOAD_P99 = 2.0  # admitted requests may be this many times as slow at p99 as before the overload


@dataclass(frozen=True)
class Slope:
    """A `Slope` is Theil and Sen's slope of resident memory over time, MB an hour, with Kendall's 95 % interval."""

    mb_per_hour: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        if self.low > FLAT_MB_PER_HOUR:
            return "grows"
        return "flat" if self.high <= FLAT_MB_PER_HOUR else "cannot tell"


@dataclass
class Soak:
    """A `Soak` holds what was seen, window by window.

    Attributes:
        rate: offered, requests a second. most: what it is a share of, the most that an open loop of the target sustains.
        rows: figures of each window; rss: (seconds, MB) after each.
        answered, lost: of all windows, warm-up included.
    """

    target: str
    rate: float
    most: float
    rows: list[dict[str, Any]] = field(default_factory=list)
    rss: list[tuple[float, float]] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    answered: int = 0
    lost: Lost = field(default_factory=Lost)
    stopped: str | None = None

    def add(self, done: Run, seconds: float) -> None:
        self.rows.append({"at_s": round(seconds, 1), **figures(done.measured, done.throughput), "rejected": done.lost.rejected,
                          "kept_up": done.kept_up})  # fmt: skip
        self.errors += done.errors
        self.answered += len(done.measured) + len(done.warm_up)
        self.lost += done.lost + done.lost_in_warm_up
        self.stopped = self.stopped or done.stopped

    @property
    def p99_us(self) -> float | None:
        """Return the median over windows of a window's p99."""
        known = [row["p99_us"] for row in self.rows if row["p99_us"] is not None]
        return float(np.median(known)) if known else None

    @property
    def behind(self) -> int:
        """Count windows that ended with more requests waiting than they began with: their latencies are a backlog's."""
        return sum(row["kept_up"] is False for row in self.rows)

    @property
    def slope(self) -> Slope | None:
        """Return the slope of memory; None with too few windows."""
        kept = self.rss[math.ceil(SETTLING * len(self.rss)) :]
        return theil_sen(kept) if len(kept) >= LEAST_WINDOWS else None

    def to_dict(self) -> dict[str, Any]:
        slope = self.slope
        return {
            "target": self.target,
            "rate_rps": round(self.rate, 2),
            "most_rps": round(self.most, 2),
            "answered": self.answered,
            **asdict(self.lost),
            "windows_behind": self.behind,
            "errors": dict(self.errors),
            "stopped": self.stopped,
            level_name(0.99) + "_us": self.p99_us,
            "rss_mb": [[round(at, 2), round(mb, 3)] for at, mb in self.rss],
            "rss_slope_mb_per_hour": None
            if slope is None
            else {"slope": round(slope.mb_per_hour, 3), "low": round(slope.low, 3), "high": round(slope.high, 3),
                  "verdict": slope.verdict},
            "windows": self.rows,
        }  # fmt: skip


def soak(
    target: Target,
    case: LoadCase,
    *,
    rate: float,
    most: float,
    seconds: float,
    progress: Callable[[str], Progress],
    clock: Callable[[], float] = time.monotonic,
) -> Soak:
    """Run an open loop at `rate` for `seconds`, in windows on one session of the target. Ctrl-C ends it and keeps what was seen."""
    found = Soak(target.name, rate, most)
    windows = max(min(WINDOWS, math.ceil(seconds / LEAST_WINDOW_S)), math.ceil(rate * seconds / (MOST_REQUESTS / 4)))
    window_s = seconds / windows
    part = replace(case, mode="open", rate=rate)
    start = clock()

    def loads() -> Iterator[Load]:
        for window in range(windows):
            yield part.load(window_s, case.warm_up if window == 0 else 0.0, window)

    def each(done: Run) -> None:
        if (
            len(done.measured) or done.stopped is None
        ):  # a window without one answer is counted; one cut by Ctrl-C is not
            found.add(done, clock() - start)
        found.stopped = found.stopped or done.stopped
        del done
        gc.collect()
        found.rss.append((clock() - start, resident_mb()))

    run_parts(target, case.mix.prompts, loads(), each, seconds=seconds + case.warm_up, progress=progress("soak"))
    if found.rows and not found.answered:
        errors = "; ".join(f"{count} x {text}" for text, count in found.errors.most_common(3))
        raise InvalidInputError(
            f"target {target.name}: not one of {found.lost.count} requests was answered "
            f"({errors or f'{found.lost.rejected} rejected'}); give it a target that works"
        )
    return found


def resident_mb() -> float:
    """Return resident memory of this process, in 10^6 bytes."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def theil_sen(points: Sequence[tuple[float, float]]) -> Slope:
    """Return the median of all pairs' slopes; its interval holds for residuals that are independent of each other.

    Args:
        points: (seconds, MB), at least 3 with different seconds.
    """
    at, mb = (np.array(column) for column in zip(*points, strict=True))
    first, second = np.triu_indices(len(at), 1)
    slopes = np.sort((mb[second] - mb[first]) / (at[second] - at[first])) * 3600
    n = len(at)
    spread = Z * math.sqrt(n * (n - 1) * (2 * n + 5) / 18)
    low = max(0, math.floor((len(slopes) - spread) / 2))
    high = min(len(slopes) - 1, math.ceil((len(slopes) + spread) / 2))
    return Slope(float(np.median(slopes)), float(slopes[low]), float(slopes[high]))
