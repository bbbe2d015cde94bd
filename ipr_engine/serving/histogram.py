"""Latencies read out of a LatencyHistogram: counts a bucket, and quantiles as far as buckets tell them."""

from __future__ import annotations

from dataclasses import dataclass

from ipr_engine._C import LatencyHistogram, latency_edges_us

EDGES_US: tuple[float, ...] = latency_edges_us
"""Upper edges of the buckets but the last: 1 us, then four an octave up to 2**26 us (67 s)."""


@dataclass(frozen=True, slots=True)
class Latency:
    """A snapshot: counts[i] latencies lie below EDGES_US[i] and not below the edge before; counts[-1] above all edges."""

    counts: tuple[int, ...]
    sum_us: float

    @classmethod
    def of(cls, *histograms: LatencyHistogram) -> Latency:
        """Of all of them together."""
        counts = zip(*(histogram.counts() for histogram in histograms), strict=True)
        return cls(tuple(map(sum, counts)), sum(histogram.sum_ns() for histogram in histograms) / 1e3)

    @property
    def count(self) -> int:
        return sum(self.counts)

    @property
    def mean_us(self) -> float:
        """NaN when nothing was counted."""
        return self.sum_us / self.count if self.count else float("nan")

    def quantile_us(self, q: float) -> float:
        """The upper edge of the bucket that holds the quantile: at most a quarter too high. NaN when nothing was counted."""
        total, below = self.count, 0
        if total == 0:
            return float("nan")
        for edge, count in zip((*EDGES_US, float("inf")), self.counts, strict=True):
            below += count
            if below >= q * total and below:
                return edge
        return float("inf")

    def since(self, earlier: Latency) -> Latency:
        """What was counted after an earlier snapshot of the same histogram."""
        counts = tuple(mine - theirs for mine, theirs in zip(self.counts, earlier.counts, strict=True))
        return Latency(counts, self.sum_us - earlier.sum_us)
