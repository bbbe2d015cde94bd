"""`Counters` is a snapshot of a service's counts and latencies; `prometheus_text` writes it. It holds no text of a prompt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ipr_engine._C import LatencyHistogram, latency_edges_us
from ipr_engine.decide.contract import CAUSE
from ipr_engine.policy.calibrated import STATUSES

DEADLINE = "deadline"
CAUSES = (*CAUSE, DEADLINE)
LEARNED = ("best_quality", "within_tolerance", "below_fixed_level")
"""Causes of a decision between candidates by predicted quality."""

KINDS = STATUSES
STAGES = ("inline", "cache", "queue", "encode", "decide", "queued")
"""Ways and parts of them: a request goes inline, by the cache, or is queued, and then has the three parts in between."""

EVENTS = (
    "rejected", "invalid", "deadline_unanswered", "encoder_failed", "not_serving", "failed", "cancelled", "undelivered",
)  # fmt: skip

EDGES_US: tuple[float, ...] = latency_edges_us
"""Upper edges of the buckets but the last: 1 us, then four an octave up to 2**26 us (67 s)."""
PER_OCTAVE = 4  # of EDGES_US; one bucket an octave is shown


@dataclass(frozen=True, slots=True)
class Latency:
    """A `Latency` is a snapshot: counts[i] latencies lie below EDGES_US[i] and not below the edge before; counts[-1] above all edges."""

    counts: tuple[int, ...]
    sum_us: float

    @classmethod
    def of(cls, *histograms: LatencyHistogram) -> Latency:
        """Read several histograms as one."""
        counts = zip(*(histogram.counts() for histogram in histograms), strict=True)
        return cls(tuple(map(sum, counts)), sum(histogram.sum_ns() for histogram in histograms) / 1e3)

    @property
    def count(self) -> int:
        return sum(self.counts)

    @property
    def mean_us(self) -> float:
        """Return the mean; NaN when nothing was counted."""
        return self.sum_us / self.count if self.count else float("nan")

    def quantile_us(self, q: float) -> float:
        """Return the upper edge of the bucket that holds the quantile, at most a quarter too high; NaN when nothing was counted."""
        total, below = self.count, 0
        if total == 0:
            return float("nan")
        for edge, count in zip((*EDGES_US, float("inf")), self.counts, strict=True):
            below += count
            if below >= q * total and below:
                return edge
        return float("inf")

    def since(self, earlier: Latency) -> Latency:
        """Return what was counted after an earlier snapshot of the same histogram."""
        counts = tuple(mine - theirs for mine, theirs in zip(self.counts, earlier.counts, strict=True))
        return Latency(counts, self.sum_us - earlier.sum_us)


@dataclass(frozen=True, slots=True)
class CacheCounts:
    """A `CacheCounts` holds hits, misses and evictions since the start, and the entries now, of at most `limit` (0: no cache)."""

    hits: int = 0
    misses: int = 0
    evictions: int = 0
    entries: int = 0
    limit: int = 0

    @property
    def hit_rate(self) -> float:
        """Return the share of hits in all look-ups; NaN before the first."""
        looked = self.hits + self.misses
        return self.hits / looked if looked else float("nan")


@dataclass(frozen=True, kw_only=True)
class Counters:
    """A `Counters` is a snapshot. Counts are since the start, depths are now; docs/operations.md says what each tells.

    Attributes:
        decisions: (model or None, family or None, cause, calibration status) -> how many.
        events: requests that got no decision, by EVENTS.
        stages: latencies by STAGES, and "total" of all requests that got a decision.
        batch_sizes: prompts of a forward -> forwards. tokens, padded_tokens: of all forwards, without and with padding.
        queue_depth, queue_limit, in_forward: requests that wait, may wait, and are in the forward that runs.
        cache: of the decision cache. swaps: of the engine. bundle_hash: the bundle that serves.
    """

    decisions: Mapping[tuple[str | None, str | None, str, str], int]
    events: Mapping[str, int]
    stages: Mapping[str, Latency]
    batch_sizes: Mapping[int, int]
    tokens: int
    padded_tokens: int
    queue_depth: int
    queue_limit: int
    in_forward: int
    cache: CacheCounts
    swaps: int
    bundle_hash: str

    @property
    def decided(self) -> int:
        """Count the requests that got a decision, failed rows and degraded ones included."""
        return sum(self.decisions.values())

    @property
    def requests(self) -> int:
        """Count the requests that are over, with a decision or without."""
        return self.decided + sum(self.events.values())

    @property
    def by_model(self) -> dict[str | None, int]:
        return self._by(0)

    @property
    def by_family(self) -> dict[str | None, int]:
        return self._by(1)

    @property
    def by_cause(self) -> dict[str | None, int]:
        return self._by(2)

    @property
    def by_calibration(self) -> dict[str | None, int]:
        return self._by(3)

    @property
    def routing_coverage(self) -> float:
        """Return the share of decisions that chose between candidates by predicted quality; NaN before the first.

        The others: one candidate was allowed, the row failed, its support was too low, the fallback answered past a deadline.
        """
        return sum(self.by_cause.get(cause, 0) for cause in LEARNED) / self.decided if self.decided else float("nan")

    @property
    def unsupported(self) -> int:
        """Count the decisions of prompts whose support was below the policy's min_support."""
        return self.by_cause.get("unsupported", 0)

    @property
    def deadline_misses(self) -> int:
        """Count the requests whose budget_us was over first: answered by the fallback, or by a DeadlineError."""
        return self.by_cause.get(DEADLINE, 0) + self.events["deadline_unanswered"]

    def _by(self, position: int) -> dict[str | None, int]:
        summed: dict[str | None, int] = {}
        for labels, count in self.decisions.items():
            summed[labels[position]] = summed.get(labels[position], 0) + count
        return summed

    def to_dict(self) -> dict[str, Any]:
        """Return every attribute, the sums, and three quantiles a stage in microseconds, as plain JSON types."""
        return {
            "decisions": [
                {"model": model, "family": family, "cause": cause, "calibration": calibration, "count": count}
                for (model, family, cause, calibration), count in self.decisions.items()
            ],
            "routing_coverage": self.routing_coverage if self.decided else None,
            "events": dict(self.events),
            "deadline_misses": self.deadline_misses,
            "unsupported": self.unsupported,
            "stages": {
                name: {"count": stage.count, "mean_us": stage.mean_us}
                | {f"p{100 * q:g}_us": stage.quantile_us(q) for q in (0.5, 0.99, 0.999)}
                for name, stage in self.stages.items()
                if stage.count
            },
            "batch_sizes": {str(size): count for size, count in sorted(self.batch_sizes.items())},
            "tokens": self.tokens,
            "padded_tokens": self.padded_tokens,
            "queue_depth": self.queue_depth,
            "queue_limit": self.queue_limit,
            "in_forward": self.in_forward,
            "cache": {name: getattr(self.cache, name) for name in ("hits", "misses", "evictions", "entries", "limit")},
            "swaps": self.swaps,
            "bundle": self.bundle_hash,
        }


def prometheus_text(counters: Counters, *, prefix: str = "ipr") -> str:
    """Write every counter in the Prometheus exposition format (version 0.0.4); times in seconds, one bucket an octave from 1 us on.

    >>> print(prometheus_text(engine.counters()))
    # TYPE ipr_decisions_total counter
    ipr_decisions_total{model="...",family="...",cause="best_quality",calibration="uncalibrated"} 17
    """
    return "\n".join(f"{prefix}_{line}" if line[0] != "#" else line for line in _lines(counters, prefix)) + "\n"


def _lines(counters: Counters, prefix: str) -> Iterator[str]:
    yield f"# TYPE {prefix}_decisions_total counter"
    for (model, family, cause, calibration), count in sorted(counters.decisions.items(), key=str):
        labels = {"model": model or "", "family": family or "", "cause": cause, "calibration": calibration}
        yield f"decisions_total{_labels(labels)} {count}"
    yield f"# TYPE {prefix}_unanswered_total counter"
    for event, count in counters.events.items():
        yield f"unanswered_total{_labels({'reason': event})} {count}"
    cache = counters.cache
    for name, total in {
        "deadline_misses": counters.deadline_misses,
        "unsupported": counters.unsupported,
        "swaps": counters.swaps,
        "cache_hits": cache.hits,
        "cache_misses": cache.misses,
        "cache_evictions": cache.evictions,
        "forwards": sum(counters.batch_sizes.values()),
        "forward_prompts": sum(size * count for size, count in counters.batch_sizes.items()),
        "forward_tokens": counters.tokens,
        "forward_padded_tokens": counters.padded_tokens,
    }.items():
        yield f"# TYPE {prefix}_{name}_total counter"
        yield f"{name}_total {total}"
    for name, value in {
        "queue_depth": counters.queue_depth,
        "queue_limit": counters.queue_limit,
        "in_forward": counters.in_forward,
        "cache_entries": cache.entries,
    }.items():
        yield f"# TYPE {prefix}_{name} gauge"
        yield f"{name} {value}"
    for name, stage in counters.stages.items():
        yield f"# TYPE {prefix}_{name}_seconds histogram"
        yield from _histogram(f"{name}_seconds", stage)


def _histogram(name: str, stage: Latency) -> Iterator[str]:
    below = 0
    for position, (edge_us, count) in enumerate(zip(EDGES_US, stage.counts, strict=False)):
        below += count
        if position % PER_OCTAVE == 0:  # Prometheus buckets are cumulative: leaving some out loses nothing
            yield f'{name}_bucket{{le="{edge_us / 1e6:g}"}} {below}'
    yield f'{name}_bucket{{le="+Inf"}} {stage.count}'
    yield f"{name}_sum {stage.sum_us / 1e6:.9g}"
    yield f"{name}_count {stage.count}"


def _labels(labels: Mapping[str, str]) -> str:
    escaped = (
        (name, value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")) for name, value in labels.items()
    )
    return "{" + ",".join(f'{name}="{value}"' for name, value in escaped) + "}"
