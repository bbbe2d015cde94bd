"""`Counters` is a snapshot of a service's counts and latencies; those of several processes add up. It holds no text of a prompt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any, Self, TypeVar

from ipr_engine._C import LatencyHistogram, latency_edges_us
from ipr_engine.decide.contract import CAUSE
from ipr_engine.errors import InvalidInputError
from ipr_engine.policy.calibrated import STATUSES

DEADLINE = "deadline"
CAUSES = (*CAUSE, DEADLINE)
LEARNED = ("best_quality", "within_tolerance", "below_fixed_level")
"""Causes of a decision between candidates by predicted quality."""

KINDS = STATUSES
STAGES = ("inline", "cache", "queue", "encode", "decide", "queued", "record")
"""Ways and parts of them: a request goes inline, by the cache, or is queued, and then has the three parts in between; one that is
recorded has its record as its last part."""

EVENTS = (
    "rejected", "invalid", "deadline_unanswered", "encoder_failed", "not_serving", "failed", "cancelled", "undelivered",
    "record_failed",
)  # fmt: skip

EDGES_US: tuple[float, ...] = latency_edges_us
"""Upper edges of the buckets but the last: 1 us, then four an octave up to 2**26 us (67 s)."""
PER_OCTAVE = 4  # of EDGES_US; one bucket an octave is shown

JSON_VERSION = 2  # of `Counters.to_json`
_SUMMABLE = ("cache", "records", "tasks")
Key = TypeVar("Key")


@dataclass(frozen=True, slots=True)
class Latency:
    """A `Latency` is a snapshot: counts[i] latencies lie below EDGES_US[i] and not below the edge before; counts[-1] above all edges."""

    counts: tuple[int, ...] = (0,) * (len(EDGES_US) + 1)
    sum_ns: int = 0

    @classmethod
    def of(cls, *histograms: LatencyHistogram) -> Latency:
        """Read several histograms as one."""
        counts = zip(*(histogram.counts() for histogram in histograms), strict=True)
        return cls(tuple(map(sum, counts)), sum(histogram.sum_ns() for histogram in histograms))

    def __add__(self, other: Latency) -> Latency:
        counts = tuple(mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True))
        return Latency(counts, self.sum_ns + other.sum_ns)

    @property
    def sum_us(self) -> float:
        return self.sum_ns / 1e3

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
        return Latency(counts, self.sum_ns - earlier.sum_ns)


@dataclass(frozen=True, slots=True)
class _Summable:
    """A `_Summable` is a few counts that add up one by one."""

    def __add__(self, other: Self) -> Self:
        return type(self)(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(self)))


@dataclass(frozen=True, slots=True)
class CacheCounts(_Summable):
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


@dataclass(frozen=True, slots=True)
class RecordCounts(_Summable):
    """A `RecordCounts` holds the records that were written, how many of them no replay can decide again, and the answers that wait.

    Attributes:
        not_replayable: of the written ones: a fallback's candidate answered, or the prompt has few words and there is no key.
        waiting: answers whose record is not written yet.
    """

    written: int = 0
    not_replayable: int = 0
    waiting: int = 0


@dataclass(frozen=True, slots=True)
class TaskCounts(_Summable):
    """A `TaskCounts` holds the decisions of prompts whose caller named a task: one that the heads tell apart, or another."""

    known: int = 0
    unknown: int = 0


@dataclass(frozen=True, kw_only=True)
class Counters:
    """A `Counters` is a snapshot. Counts are since the start, depths are now; docs/operations.md says what each tells.

    Those of several processes add up (`a + b`, `Counters.sum`), depths and limits too; `to_json` and `from_json` carry them over.

    Attributes:
        decisions: (model or None, family or None, cause, calibration status) -> how many.
        events: requests that got no decision, by EVENTS.
        stages: latencies by STAGES, and "total" of all requests that got a decision.
        batch_sizes: prompts of a forward -> forwards. tokens, padded_tokens: of all forwards, without and with padding.
        queue_depth, queue_limit, in_forward: requests that wait, may wait, and are in the forward that runs.
        cache: of the decision cache. records: of the recorders. tasks: that callers named. swaps: of the engine.
        bundles: hash of a bundle that serves -> processes that it serves in.
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
    records: RecordCounts
    tasks: TaskCounts
    swaps: int
    bundles: Mapping[str, int]

    @classmethod
    def sum(cls, counters: Iterable[Counters]) -> Counters:
        """Add snapshots of several processes; of none, everything is 0."""
        total = _NOTHING
        for one in counters:
            total = total + one
        return total

    def __add__(self, other: Counters) -> Counters:
        if not isinstance(other, Counters):
            return NotImplemented
        return Counters(
            **{one.name: _added(getattr(self, one.name), getattr(other, one.name)) for one in fields(Counters)}
        )

    @property
    def ended(self) -> Counters:
        """Return what a process that has ended leaves: its counts, without what waits, is held or serves in it."""
        return replace(
            self,
            queue_depth=0,
            queue_limit=0,
            in_forward=0,
            cache=replace(self.cache, entries=0, limit=0),
            records=replace(self.records, waiting=0),
            bundles={},
        )

    @property
    def bundle_hash(self) -> str | None:
        """Return the bundle that serves; None where several do, in processes whose snapshots were added, or in none."""
        return next(iter(self.bundles)) if len(self.bundles) == 1 else None

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

    @property
    def by_task(self) -> dict[str, int]:
        """Count the decisions by what their callers say of a task: one that is known, one that is not, or none."""
        tasks = self.tasks
        none = self.decided - tasks.known - tasks.unknown
        return {"known": tasks.known, "unknown": tasks.unknown, "none": max(0, none)}

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
            "cache": {one.name: getattr(self.cache, one.name) for one in fields(self.cache)},
            "records": {one.name: getattr(self.records, one.name) for one in fields(self.records)},
            "tasks": self.by_task,
            "swaps": self.swaps,
            "bundle": self.bundle_hash,
            "bundles": dict(self.bundles),
        }

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types that `from_json` reads in another process: every count as it is, no figure derived from them."""
        document: dict[str, Any] = {one.name: getattr(self, one.name) for one in fields(self)}
        document |= {name: [getattr(document[name], one.name) for one in fields(document[name])] for name in _SUMMABLE}
        return document | {
            "version": JSON_VERSION,
            "decisions": [[*labels, count] for labels, count in self.decisions.items()],
            "events": dict(self.events),
            "stages": {name: [stage.sum_ns, *stage.counts] for name, stage in self.stages.items()},
            "batch_sizes": {str(size): count for size, count in self.batch_sizes.items()},
            "bundles": dict(self.bundles),
        }

    @classmethod
    def from_json(cls, document: Any) -> Counters:
        """Return the snapshot that `to_json` made.

        Raises:
            InvalidInputError: it is none, or that of another release.
        """
        version = document.get("version") if isinstance(document, Mapping) else None
        if version != JSON_VERSION:
            raise InvalidInputError(
                f"document: expected what Counters.to_json gave, version {JSON_VERSION}, got {version!r}; "
                "let the processes run one release"
            )
        try:
            made = cls(
                tokens=_whole(document["tokens"]),
                padded_tokens=_whole(document["padded_tokens"]),
                queue_depth=_whole(document["queue_depth"]),
                queue_limit=_whole(document["queue_limit"]),
                in_forward=_whole(document["in_forward"]),
                swaps=_whole(document["swaps"]),
                decisions=_mapping({_labels_of(row[:-1]): row[-1] for row in document["decisions"]}),
                events=_mapping({name: document["events"][name] for name in EVENTS}),
                stages=MappingProxyType({name: _latency(document["stages"][name]) for name in (*STAGES, "total")}),
                batch_sizes=_mapping({int(size): count for size, count in document["batch_sizes"].items()}),
                bundles=_mapping(document["bundles"]),
                cache=CacheCounts(*map(_whole, document["cache"])),
                records=RecordCounts(*map(_whole, document["records"])),
                tasks=TaskCounts(*map(_whole, document["tasks"])),
            )
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise InvalidInputError(
                f"document: expected what Counters.to_json gave, got another: {type(error).__name__} {error}"
            ) from None
        if made.to_json() != document:
            raise InvalidInputError("document: expected what Counters.to_json gave, got fields or labels besides")
        return made


_NOTHING = Counters(
    tokens=0,
    padded_tokens=0,
    queue_depth=0,
    queue_limit=0,
    in_forward=0,
    cache=CacheCounts(),
    records=RecordCounts(),
    tasks=TaskCounts(),
    swaps=0,
    decisions=MappingProxyType({}),
    events=MappingProxyType(dict.fromkeys(EVENTS, 0)),
    stages=MappingProxyType({name: Latency() for name in (*STAGES, "total")}),
    batch_sizes=MappingProxyType({}),
    bundles=MappingProxyType({}),
)


def _added(mine: Any, theirs: Any) -> Any:
    """Add two values of one field: numbers and counts as they are, mappings key by key."""
    if not isinstance(mine, Mapping):
        return mine + theirs
    summed = dict(mine)
    for key, value in theirs.items():
        summed[key] = summed[key] + value if key in summed else value
    return MappingProxyType(summed)


def _whole(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is no count")
    return value


def _mapping(counts: Mapping[Key, Any]) -> Mapping[Key, int]:
    return MappingProxyType({key: _whole(count) for key, count in counts.items()})


def _labels_of(labels: list[Any]) -> tuple[str | None, str | None, str, str]:
    model, family, cause, calibration = labels
    if cause not in CAUSES or calibration not in KINDS:
        raise ValueError("a cause or a calibration status that this release does not know")
    return model, family, cause, calibration


def _latency(numbers: list[Any]) -> Latency:
    sum_ns, *counts = map(_whole, numbers)
    if len(counts) != len(EDGES_US) + 1:
        raise ValueError(f"{len(counts)} buckets of a latency, and not {len(EDGES_US) + 1}")
    return Latency(tuple(counts), sum_ns)
