"""`prometheus_text` writes `Counters` in the Prometheus exposition format."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from ipr_engine.serving.metrics import EDGES_US, PER_OCTAVE, Counters, Latency


class Metric(NamedTuple):
    """A `Metric` is one name of the exposition: its type, what it tells, and its one number; None where labels or buckets tell more."""

    kind: str
    told: str
    number: Callable[[Counters], int] | None = None


METRICS: Mapping[str, Metric] = {
    "decisions_total": Metric("counter", "Requests with a decision, failed rows and fallbacks included."),
    "unanswered_total": Metric("counter", "Requests without a decision, by reason."),
    "deadline_misses_total": Metric(
        "counter",
        "Requests whose budget_us was over first: answered by the fallback, or not at all.",
        lambda c: c.deadline_misses,
    ),
    "unsupported_total": Metric(
        "counter", "Decisions of prompts whose support was below the policy's min_support.", lambda c: c.unsupported
    ),
    "tasks_total": Metric("counter", "Decisions by whether the caller named a task, and the heads tell it apart."),
    "swaps_total": Metric(
        "counter", "Bundles put in place of another; each process of a server swaps, and counts.", lambda c: c.swaps
    ),
    "cache_hits_total": Metric("counter", "Decisions found in the decision cache.", lambda c: c.cache.hits),
    "cache_misses_total": Metric(
        "counter", "Decisions looked for in the decision cache, and not found.", lambda c: c.cache.misses
    ),
    "cache_evictions_total": Metric(
        "counter", "Decisions that left the decision cache for others.", lambda c: c.cache.evictions
    ),
    "forwards_total": Metric("counter", "Batches that the encoder ran on.", lambda c: sum(c.batch_sizes.values())),
    "forward_prompts_total": Metric(
        "counter", "Prompts of all batches.", lambda c: sum(size * count for size, count in c.batch_sizes.items())
    ),
    "forward_tokens_total": Metric("counter", "Tokens of all batches, without padding.", lambda c: c.tokens),
    "forward_padded_tokens_total": Metric(
        "counter", "Tokens of all batches, padding included.", lambda c: c.padded_tokens
    ),
    "records_total": Metric("counter", "Decision records written.", lambda c: c.records.written),
    "records_not_replayable_total": Metric(
        "counter", "Decision records written that no replay can decide again.", lambda c: c.records.not_replayable
    ),
    "queue_depth": Metric("gauge", "Requests that wait for the worker now.", lambda c: c.queue_depth),
    "queue_limit": Metric("gauge", "Requests that may wait for the worker.", lambda c: c.queue_limit),
    "in_forward": Metric("gauge", "Requests in the batch that runs now.", lambda c: c.in_forward),
    "cache_entries": Metric("gauge", "Decisions that the decision cache keeps now.", lambda c: c.cache.entries),
    "records_waiting": Metric(
        "gauge", "Decisions that wait for their record to be written now.", lambda c: c.records.waiting
    ),
    "serving_bundle": Metric("gauge", "Processes that a bundle serves in, by its hash."),
    "inline_seconds": Metric("histogram", "From the call to the decision, made in the caller's thread."),
    "cache_seconds": Metric("histogram", "From the call to the decision, found in the decision cache."),
    "queue_seconds": Metric("histogram", "From the call to the begin of the request's batch."),
    "encode_seconds": Metric("histogram", "Encoding of the batch that a request was in."),
    "decide_seconds": Metric("histogram", "Deciding of the batch that a request was in."),
    "queued_seconds": Metric("histogram", "From the call to the answer at its caller, of a request that was queued."),
    "record_seconds": Metric("histogram", "From a decision until its record is written."),
    "total_seconds": Metric("histogram", "From the call to the answer, whichever way."),
}
"""Every metric, in the order in which they are written."""


def prometheus_text(counters: Counters, *, prefix: str = "ipr") -> str:
    """Write every counter in the Prometheus exposition format (version 0.0.4); times in seconds, one bucket an octave from 1 us on.

    >>> print(prometheus_text(engine.counters()))
    # HELP ipr_decisions_total Requests with a decision, failed rows and fallbacks included.
    # TYPE ipr_decisions_total counter
    ipr_decisions_total{model="...",family="...",cause="best_quality",calibration="uncalibrated"} 17
    """
    lines = []
    for name, metric in METRICS.items():
        lines += [f"# HELP {prefix}_{name} {metric.told}", f"# TYPE {prefix}_{name} {metric.kind}"]
        if metric.number is not None:
            lines.append(f"{prefix}_{name} {metric.number(counters)}")
        else:
            lines += [f"{prefix}_{sample}" for sample in _samples(counters, name)]
    return "\n".join(lines) + "\n"


def _samples(counters: Counters, name: str) -> Iterator[str]:
    """Yield the samples of a metric with labels or buckets, without the prefix."""
    if name == "decisions_total":
        for (model, family, cause, calibration), count in sorted(counters.decisions.items(), key=str):
            labels = {"model": model or "", "family": family or "", "cause": cause, "calibration": calibration}
            yield f"{name}{_labels(labels)} {count}"
    elif name == "unanswered_total":
        yield from (f"{name}{_labels({'reason': event})} {count}" for event, count in counters.events.items())
    elif name == "tasks_total":
        yield from (f"{name}{_labels({'task': said})} {count}" for said, count in counters.by_task.items())
    elif name == "serving_bundle":
        yield from (
            f"{name}{_labels({'bundle': bundle})} {count}" for bundle, count in sorted(counters.bundles.items())
        )
    else:
        yield from _histogram(name, counters.stages[name.removesuffix("_seconds")])


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
