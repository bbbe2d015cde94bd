"""Quantiles of latencies come with intervals that hold for dependent samples, or as no number where there are too few.

An order-statistic interval of a quantile q takes the order statistics whose ranks bound a Binomial(n, q) count (Conover,
*Practical Nonparametric Statistics*, sec. 3.2). Latencies in a row depend on each other, so n is first divided by the
design effect: the variance of the exceedance counts of consecutive blocks over what independence would give (Woodruff,
1952, with blocks as clusters).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Nanoseconds = npt.NDArray[np.int64]

LEVELS = (0.5, 0.9, 0.99, 0.999)
CONFIDENCE = 0.95
BLOCKS = 32  # of a run, for its design effect: enough for the variance, few enough to be longer than most disturbances


@dataclass(frozen=True)
class Quantile:
    """A `Quantile` is one quantile of a sample, in ns.

    Attributes:
        level: in (0, 1).
        value, low, high: the estimate and its 95 % interval; all None where the sample is too small for an interval.
        samples: how many values; `independent` how many independent ones they are worth.
        needed: with value None, at least how many values (worth as much as these) an interval needs.
    """

    level: float
    value: float | None
    low: float | None
    high: float | None
    samples: int
    independent: int
    needed: int | None = None

    @property
    def name(self) -> str:
        return level_name(self.level)

    def to_dict(self) -> dict[str, Any]:
        """Return microseconds; a quantile without an interval says how many requests it needs."""
        if self.value is None or self.low is None or self.high is None:
            return {"us": None, "samples": self.samples, "needs_samples": self.needed}
        return {
            "us": round(self.value / 1e3, 3),
            "low_us": round(self.low / 1e3, 3),
            "high_us": round(self.high / 1e3, 3),
            "samples": self.samples,
            "worth_independent": self.independent,
        }


def level_name(level: float) -> str:
    """Return the name of a level: 0.999 -> "p99.9"."""
    return f"p{100 * level:.10g}"


def quantile(values: Nanoseconds, level: float, *, confidence: float = CONFIDENCE) -> Quantile:
    """Estimate the quantile `level` of `values`, which are in the order in which they were intended to be sent.

    Args:
        values: (n,) int64.
        level: in (0, 1).
    """
    return _quantile(values, np.sort(values), level, confidence)


def quantiles(values: Nanoseconds, levels: Sequence[float] = LEVELS) -> tuple[Quantile, ...]:
    """Estimate several quantiles as `quantile` does, with one sort."""
    ordered = np.sort(values)
    return tuple(_quantile(values, ordered, level, CONFIDENCE) for level in levels)


def _quantile(values: Nanoseconds, ordered: Nanoseconds, level: float, confidence: float) -> Quantile:
    n = len(values)
    least = samples_needed(level, confidence)
    if n < least:
        return Quantile(level, None, None, None, n, n, least)
    estimate = int(ordered[min(n - 1, math.ceil(level * n) - 1)])
    effect = design_effect(values, estimate, level)
    worth = max(1, int(n / effect))
    ranks = binomial_ranks(worth, level, confidence)
    if ranks is None:
        return Quantile(level, None, None, None, n, worth, math.ceil(least * effect))
    low = max(1, math.floor(ranks[0] / worth * n))
    high = min(n, math.ceil(ranks[1] / worth * n))
    return Quantile(level, float(estimate), float(ordered[low - 1]), float(ordered[high - 1]), n, worth)


def design_effect(values: Nanoseconds, threshold: float, level: float, *, blocks: int = BLOCKS) -> float:
    """Return how many times the variance of the share above `threshold` exceeds that of independent values; at least 1."""
    n = len(values)
    if n < 2 * blocks:
        return 1.0
    edges = np.linspace(0, n, blocks + 1).astype(np.int64)
    above = np.concatenate([[0], np.cumsum(values > threshold)])
    counts = np.diff(above[edges]).astype(np.float64)
    expected = n / blocks * level * (1 - level)
    return max(1.0, float(counts.var(ddof=1)) / expected)


def samples_needed(level: float, confidence: float = CONFIDENCE) -> int:
    """Return how few independent values give this quantile an interval: 1 - q^n - (1-q)^n >= confidence.

    Each side must hold apart, as the intervals here have equal tails.
    """
    tail = (1 - confidence) / 2
    return max(math.ceil(math.log(tail) / math.log(level)), math.ceil(math.log(tail) / math.log1p(-level)))


def binomial_ranks(n: int, level: float, confidence: float) -> tuple[int, int] | None:
    """Return ranks (from 1) whose order statistics bound the quantile with `confidence`; None where n has none.

    P(X_(low) <= Q) = P(B >= low) and P(X_(high) >= Q) = P(B < high) for B ~ Binomial(n, level), either missed with at
    most (1 - confidence) / 2.
    """
    if n < samples_needed(level, confidence):
        return None
    tail = (1 - confidence) / 2
    spread = 12 * math.sqrt(n * level * (1 - level)) + 12
    first = max(0, math.floor(n * level - spread))
    last = min(n, math.ceil(n * level + spread))
    counts = np.arange(first, last + 1, dtype=np.float64)
    start = (
        math.lgamma(n + 1) - math.lgamma(first + 1) - math.lgamma(n - first + 1)
        + first * math.log(level) + (n - first) * math.log1p(-level)
    )  # fmt: skip
    steps = np.log((n - counts[:-1]) / (counts[:-1] + 1)) + math.log(level) - math.log1p(-level)
    cumulative = np.cumsum(np.exp(start + np.concatenate([[0.0], np.cumsum(steps)])))  # P(B <= first + i)
    low = first + int(np.searchsorted(cumulative, tail, side="right"))  # the greatest with P(B <= low - 1) <= tail
    high = (
        first + int(np.searchsorted(cumulative, 1 - tail, side="left")) + 1
    )  # the least with P(B <= high - 1) >= 1 - tail
    if low < 1 or high > n:
        return None
    return low, high
