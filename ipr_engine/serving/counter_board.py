"""A `CounterBoard` counts what a service does: every thread writes without a lock, a reader gets one plain snapshot."""

from __future__ import annotations

from collections.abc import Mapping
from threading import Lock
from types import MappingProxyType

from ipr_engine._C import LatencyHistogram, Tally
from ipr_engine.bundle import BundleSpec
from ipr_engine.decision.decision import Row
from ipr_engine.errors import (
    DeadlineError,
    EncoderFailedError,
    InvalidInputError,
    NotServingError,
    OverloadError,
    RecordError,
    RowError,
)
from ipr_engine.serving.metrics import (
    CAUSES,
    DEADLINE,
    EVENTS,
    KINDS,
    STAGES,
    CacheCounts,
    Counters,
    Latency,
    RecordCounts,
    TaskCounts,
)

_KIND = {kind: position for position, kind in enumerate(KINDS)}
_EVENT = {event: position for position, event in enumerate(EVENTS)}
_DEADLINE = CAUSES.index(DEADLINE)
_ERRORS: Mapping[type[Exception], str] = {
    OverloadError: "rejected",
    InvalidInputError: "invalid",
    DeadlineError: "deadline_unanswered",
    EncoderFailedError: "encoder_failed",
    NotServingError: "not_serving",
    RecordError: "record_failed",
}
Named = tuple[tuple[str, str], ...]  # (name, family) of every candidate, in a bundle's order


class CounterBoard:
    """A `CounterBoard` holds the counts of one service.

    A tally belongs to a set of candidates in their order, so that swaps do not add up memory.

    Attributes:
        stages: STAGES -> latencies. inline, cached, queued: three of them, by name since every request adds to one.
        batch_sizes, tokens, padded_tokens: of all forwards.
        tallies: (name, family) of each candidate -> decisions.
    """

    def __init__(self) -> None:
        self.stages = {name: LatencyHistogram() for name in STAGES}
        self.inline, self.cached, self.queued = self.stages["inline"], self.stages["cache"], self.stages["queued"]
        self.batch_sizes: dict[int, int] = {}  # written by the worker alone, as the next two
        self.tokens = 0
        self.padded_tokens = 0
        self._events = Tally(len(EVENTS))
        self._records = Tally(2)  # written; those of them that cannot be replayed
        self._tasks = Tally(2)  # decisions of a known task; of another
        self.tallies: dict[Named, Tally] = {}
        self._current: tuple[str, Tally] = ("", Tally(1))
        self._lock = Lock()

    def decided(self, decision: Row) -> None:
        """Count a decision of the engine's own, or a row that failed."""
        policy = decision.policy
        kind = _KIND[policy.certificate.status]
        if kind and (
            policy.drift.evidence is not None or decision.may_keep_out or decision.inputs.moved or decision.by_support
        ):
            kind = _KIND[decision.calibration]  # it costs more
        bundle = decision.bundle
        current = self._current  # read once: another thread may replace it for another bundle
        if current[0] != bundle.hash:
            current = self._current = (bundle.hash, self._tally(bundle))
        current[1].add_decision(decision.result, decision.row, len(CAUSES), len(KINDS), kind)
        if decision.inputs.task is not None:
            self._tasks.add(not decision.inputs.task.known)

    def degraded(self, decision: Row) -> None:
        """Count a decision of the fallback."""
        # the place of (candidate, cause, status) in a tally: a failed row is candidate 0, status 0 is "uncalibrated"
        self._tally(decision.bundle).add(((decision.index + 1) * len(CAUSES) + _DEADLINE) * len(KINDS))
        if decision.inputs.task is not None:
            self._tasks.add(not decision.inputs.task.known)

    def arrived(self, answer: Row | Exception, begun_ns: int, way: str) -> None:
        """Count what a request got that waited for it, as it reaches its caller. way: the stage that its latency belongs to."""
        if isinstance(answer, Exception):
            self.error(answer)
        else:
            self.decided(answer) if answer.degraded is None else self.degraded(answer)
            self.stages[way].since(begun_ns)

    def recorded(self, taken_ns: int, *, replayable: bool) -> None:
        """Count a record that is written. taken_ns: when its decision was made, of clock_ns."""
        self._records.add(0)
        if not replayable:
            self._records.add(1)
        self.stages["record"].since(taken_ns)

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

    def _tally(self, bundle: BundleSpec) -> Tally:
        named = tuple((candidate.name, candidate.family) for candidate in bundle.candidates)
        with self._lock:
            found = self.tallies.get(named)
            if found is None:
                found = self.tallies[named] = Tally((len(named) + 1) * len(CAUSES) * len(KINDS))
            return found

    def snapshot(
        self,
        *,
        queue_depth: int,
        queue_limit: int,
        in_forward: int,
        cache: CacheCounts,
        records_waiting: int,
        swaps: int,
        bundle_hash: str,
    ) -> Counters:
        """Return the counts, with the depths and counts of others that the caller passes."""
        written, not_replayable = self._records.counts()
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
            records=RecordCounts(written, not_replayable, records_waiting),
            tasks=TaskCounts(*self._tasks.counts()),
            swaps=swaps,
            bundles=MappingProxyType({bundle_hash: 1}),
        )

    def _decisions(self) -> dict[tuple[str | None, str | None, str, str], int]:
        with self._lock:
            tallies = list(self.tallies.items())
        summed: dict[tuple[str | None, str | None, str, str], int] = {}
        for named, tally in tallies:
            rows: list[tuple[str | None, str | None]] = [(None, None), *named]
            labels = ((*row, cause, kind) for row in rows for cause in CAUSES for kind in KINDS)
            for label, count in zip(labels, tally.counts(), strict=True):
                if count:
                    summed[label] = summed.get(label, 0) + count
        return summed

    def after_fork(self) -> None:
        """Begin anew in a forked child, where nothing was counted yet."""
        self._lock = Lock()
        for histogram in self.stages.values():
            histogram.clear()
        for tally in (self._events, self._records, self._tasks, *self.tallies.values()):
            tally.clear()
        self.batch_sizes.clear()
        self.tokens = self.padded_tokens = 0
