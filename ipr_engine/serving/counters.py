"""What a serving engine counts: written from every thread without a lock, read as one plain snapshot. No prompt text anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock
from types import MappingProxyType
from typing import Any

from ipr_engine._C import LatencyHistogram, Tally
from ipr_engine.bundle import Bundle
from ipr_engine.decide.contract import CAUSE
from ipr_engine.decision import Row
from ipr_engine.errors import (
    DeadlineError,
    EncoderFailedError,
    InvalidInputError,
    NotServingError,
    OverloadError,
    RowError,
)
from ipr_engine.policy.calibrated import STATUSES
from ipr_engine.serving.cache import CacheCounts
from ipr_engine.serving.histogram import Latency

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
_KIND = {kind: position for position, kind in enumerate(KINDS)}
_EVENT = {event: position for position, event in enumerate(EVENTS)}
_DEADLINE = CAUSES.index(DEADLINE)
_ERRORS: Mapping[type[Exception], str] = {
    OverloadError: "rejected",
    InvalidInputError: "invalid",
    DeadlineError: "deadline_unanswered",
    EncoderFailedError: "encoder_failed",
    NotServingError: "not_serving",
}
Named = tuple[tuple[str, str], ...]  # (name, family) of every candidate, in a bundle's order


@dataclass(frozen=True, kw_only=True)
class Counters:
    """A snapshot. Every count is since the start, but depths, which are now; `docs/operations.md` says what each tells.

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
        """Requests that got a decision, failed rows and degraded ones included."""
        return sum(self.decisions.values())

    @property
    def requests(self) -> int:
        """Requests that are over, with a decision or without."""
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
        """Share of decisions that chose between candidates by predicted quality; NaN before the first.

        Not of them: one candidate was allowed, the row failed, its support was too low, the fallback answered past a deadline.
        """
        return sum(self.by_cause.get(cause, 0) for cause in LEARNED) / self.decided if self.decided else float("nan")

    @property
    def unsupported(self) -> int:
        """Decisions of prompts whose support was below the policy's min_support."""
        return self.by_cause.get("unsupported", 0)

    @property
    def deadline_misses(self) -> int:
        """Requests whose budget_us was over first: answered by the fallback, or by a DeadlineError."""
        return self.by_cause.get(DEADLINE, 0) + self.events["deadline_unanswered"]

    def _by(self, position: int) -> dict[str | None, int]:
        summed: dict[str | None, int] = {}
        for labels, count in self.decisions.items():
            summed[labels[position]] = summed.get(labels[position], 0) + count
        return summed

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types: every attribute, the sums, and three quantiles a stage in microseconds."""
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


class CounterBoard:
    """The counts while they grow. A tally belongs to a set of candidates in its order, so that swaps do not add up memory."""

    def __init__(self) -> None:
        self.stages = {name: LatencyHistogram() for name in STAGES}
        self.inline, self.cached, self.queued = self.stages["inline"], self.stages["cache"], self.stages["queued"]
        self.batch_sizes: dict[int, int] = {}  # written by the worker alone, as the next two
        self.tokens = 0
        self.padded_tokens = 0
        self._events = Tally(len(EVENTS))
        self._tallies: dict[Named, Tally] = {}
        self._current: tuple[str, Tally] = ("", Tally(1))
        self._lock = Lock()

    def decided(self, decision: Row) -> None:
        """Count a decision of the engine's own, or a row that failed."""
        kind = _KIND[decision.policy.certificate.status]
        if kind:  # the rest costs more: drift, and whether this prompt fits every candidate
            kind = _KIND[decision.calibration]
        bundle = decision._bundle
        current = self._current
        if current[0] != bundle.hash:
            current = self._current = (bundle.hash, self._tally(bundle))
        current[1].add_decision(decision._result, decision._row, len(CAUSES), len(KINDS), kind)

    def degraded(self, decision: Row) -> None:
        """Count a decision of the fallback."""
        self._tally(decision.bundle).add(((decision.index + 1) * len(CAUSES) + _DEADLINE) * len(KINDS))

    def answered(self, decision: Row) -> None:
        if decision.degraded is None:
            self.decided(decision)
        else:
            self.degraded(decision)

    def event(self, event: str, by: int = 1) -> None:
        self._events.add(_EVENT[event], by)

    def error(self, error: Exception) -> None:
        """Count what a request got instead of a decision; a RowError was counted as a failed row."""
        if not isinstance(error, RowError):
            kinds = (event for kind, event in _ERRORS.items() if isinstance(error, kind))
            self.event(next(kinds, "failed"))

    def batch(self, size: int, tokens: int, padded: int) -> None:
        self.batch_sizes[size] = self.batch_sizes.get(size, 0) + 1
        self.tokens += tokens
        self.padded_tokens += padded

    def _tally(self, bundle: Bundle) -> Tally:
        named = tuple((candidate.name, candidate.family) for candidate in bundle.candidates)
        with self._lock:
            found = self._tallies.get(named)
            if found is None:
                found = self._tallies[named] = Tally((len(named) + 1) * len(CAUSES) * len(KINDS))
            return found

    def snapshot(
        self, *, queue_depth: int, queue_limit: int, in_forward: int, cache: CacheCounts, swaps: int, bundle_hash: str
    ) -> Counters:
        stages = {name: Latency.of(histogram) for name, histogram in self.stages.items()}
        stages["total"] = Latency.of(self.inline, self.cached, self.queued)
        return Counters(
            decisions=MappingProxyType(self._decisions()),
            events=MappingProxyType(dict(zip(EVENTS, self._events.counts(), strict=True))),
            stages=MappingProxyType(stages),
            batch_sizes=MappingProxyType(self.batch_sizes.copy()),
            tokens=self.tokens,
            padded_tokens=self.padded_tokens,
            queue_depth=queue_depth,
            queue_limit=queue_limit,
            in_forward=in_forward,
            cache=cache,
            swaps=swaps,
            bundle_hash=bundle_hash,
        )

    def _decisions(self) -> dict[tuple[str | None, str | None, str, str], int]:
        with self._lock:
            tallies = list(self._tallies.items())
        summed: dict[tuple[str | None, str | None, str, str], int] = {}
        for named, tally in tallies:
            rows: list[tuple[str | None, str | None]] = [(None, None), *named]
            labels = ((*row, cause, kind) for row in rows for cause in CAUSES for kind in KINDS)
            for label, count in zip(labels, tally.counts(), strict=True):
                if count:
                    summed[label] = summed.get(label, 0) + count
        return summed

    def after_fork(self) -> None:
        """In a forked child: nothing was counted there yet."""
        self._lock = Lock()
        for histogram in self.stages.values():
            histogram.clear()
        for tally in (self._events, *self._tallies.values()):
            tally.clear()
        self.batch_sizes.clear()
        self.tokens = self.padded_tokens = 0
