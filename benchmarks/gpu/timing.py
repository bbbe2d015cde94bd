"""The GPU benchmarks time a recording against a recording, and a call from Python against a call from Python."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from ipr_engine.cuda.graphs import Graphs

from ..harness.turns import percentiles, uncollected

MARKS = {"p50_us": 50.0, "p90_us": 90.0, "p99_us": 99.0, "p999_us": 99.9}
NODES = 20  # copies of the work in one recording: the time of a launch is shared among them


@dataclass
class GpuRun:
    """A `GpuRun` holds what every part needs: where to run, how long, and what to say of it.

    Attributes:
        graphs: of the device; eager on the CPU. quick: few sizes and rounds, to try the code itself.
        ends: time.monotonic() at which no new measurement begins. left_out: what was not measured for want of time.
    """

    graphs: Graphs
    quick: bool
    ends: float
    left_out: list[str] = field(default_factory=list)

    @property
    def on_gpu(self) -> bool:
        return self.graphs.device != "cpu"

    def has_time(self, what: str, seconds: float = 0) -> bool:
        """Return whether `what` may begin; if not, note that it was left out."""
        if time.monotonic() + seconds < self.ends:
            return True
        self.left_out.append(what)
        return False

    def synchronize(self) -> None:
        if self.on_gpu:
            import torch

            torch.cuda.synchronize(self.graphs.device)


def node_us(
    run: GpuRun, label: str, work: Callable[[], object], *, nodes: int = NODES, rounds: int = 200
) -> dict[str, float]:
    """Return microseconds of `work` inside a recording that holds it `nodes` times: median and 99th percentile over replays."""
    nodes = 1 if run.quick else nodes

    def many() -> None:
        for _ in range(nodes):
            work()

    recording = run.graphs.record(label, many)
    seen = []
    for _ in range(5 if run.quick else rounds):
        with run.graphs.exclusive():
            start = time.perf_counter_ns()
            recording.replay()
            recording.wait()
            seen.append((time.perf_counter_ns() - start) / nodes / 1e3)
    return spread(seen)


def calls_us(
    run: GpuRun, variants: Mapping[str, Callable[[], object]], *, rounds: int = 20, calls: int = 50
) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield microseconds of single calls from Python, each waiting for its answer; variants take turns, round by round."""
    rounds, calls = (2, 2) if run.quick else (rounds, calls)
    times: dict[str, list[float]] = {name: [] for name in variants}
    with uncollected():
        for turn in range(rounds + 1):
            for name, call in variants.items():
                call()
                seen = []
                for _ in range(calls):
                    start = time.perf_counter_ns()
                    call()
                    seen.append((time.perf_counter_ns() - start) / 1e3)
                if turn:
                    times[name] += seen
    for name, seen in times.items():
        yield name, spread(seen)


def spread(seen: list[float]) -> dict[str, float]:
    """Return p50, p90, p99, p99.9 in microseconds, and how many calls there were."""
    return percentiles(seen, MARKS, digits=2) | {"samples": len(seen)}
