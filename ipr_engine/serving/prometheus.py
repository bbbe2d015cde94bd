"""Counters as text in the Prometheus exposition format (version 0.0.4), for whoever serves /metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ipr_engine.serving.counters import Counters
from ipr_engine.serving.histogram import EDGES_US, Latency

PER_OCTAVE = 4  # of EDGES_US; one bucket an octave is shown


def prometheus_text(counters: Counters, *, prefix: str = "ipr") -> str:
    """Every counter; times in seconds, one histogram bucket an octave from 1 us on.

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
        if position % PER_OCTAVE == 0:
            yield f'{name}_bucket{{le="{edge_us / 1e6:g}"}} {below}'
    yield f'{name}_bucket{{le="+Inf"}} {stage.count}'
    yield f"{name}_sum {stage.sum_us / 1e6:.9g}"
    yield f"{name}_count {stage.count}"


def _labels(labels: Mapping[str, str]) -> str:
    escaped = (
        (name, value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")) for name, value in labels.items()
    )
    return "{" + ",".join(f'{name}="{value}"' for name, value in escaped) + "}"
