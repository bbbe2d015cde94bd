"""The floor is what a replay costs before any work: chains of small nodes, copies or mapped memory, an event or polling."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
import triton
import triton.language as tl

from ipr_engine.cuda.graphs import Recording

from ..harness.results import Line
from .timing import GpuRun, spread

WORDS = 1024  # of the block that goes in and out, 4 kB: ids, mask and bills of one prompt of 64 tokens, and its answers


@triton.jit
def copy_words(source, target, count, BLOCK: tl.constexpr):
    """Copy `count` int32, in one program, from and to memory that the host may own."""
    at = tl.arange(0, BLOCK)
    tl.store(target + at, tl.load(source + at, mask=at < count, other=0), mask=at < count)


def measure(run: GpuRun) -> Iterator[Line]:
    """Yield lines of op "floor"."""
    one = run.graphs.buffer((1,), torch.float32)
    for nodes in (1, 10, 30, 110):
        recording = run.graphs.record(f"{nodes} nodes", _times(nodes, lambda: one.add_(1)))
        yield {"op": "floor", "what": "chain of small kernels", "nodes": nodes, **_waits(run, recording)}

    host, back = (run.graphs.host_buffer((WORDS,), torch.int32) for _ in range(2))
    there, gone = (run.graphs.buffer((WORDS,), torch.int32) for _ in range(2))

    def by_copies() -> None:
        there.copy_(host, non_blocking=True)
        copy_words[(1,)](there, gone, WORDS, BLOCK=WORDS)
        back.copy_(gone, non_blocking=True)

    def mapped() -> None:
        copy_words[(1,)](host, back, WORDS, BLOCK=WORDS)

    for what, work in (("4 kB copied in, a kernel, 4 kB copied out", by_copies), ("a kernel on mapped memory", mapped)):
        recording = run.graphs.record(what, work)
        yield {"op": "floor", "what": what, "wait": "event", **_waits(run, recording)}
        yield {"op": "floor", "what": what, "wait": "polling", **_polls(run, recording, host.numpy(), back.numpy())}


def _times(nodes: int, work: Callable[[], object]) -> Callable[[], None]:
    def many() -> None:
        for _ in range(nodes):
            work()

    return many


def _rounds(run: GpuRun) -> int:
    return 5 if run.quick else 1000


def _waits(run: GpuRun, recording: Recording) -> dict[str, float]:
    seen = []
    for _ in range(_rounds(run)):
        with run.graphs.exclusive():
            start = time.perf_counter_ns()
            recording.replay()
            recording.wait()
            seen.append((time.perf_counter_ns() - start) / 1e3)
    return spread(seen)


def _polls(run: GpuRun, recording: Recording, sent: Any, received: Any) -> dict[str, float]:
    """Ask with a new number and look at the last word of the answer until it is there."""
    seen = []
    for number in range(1, _rounds(run) + 1):
        sent.fill(number)
        with run.graphs.exclusive():
            start = time.perf_counter_ns()
            recording.replay()
            until = start + 10**9
            while received[-1] != number:
                if time.perf_counter_ns() > until:
                    raise RuntimeError("the answer did not come within a second")
            seen.append((time.perf_counter_ns() - start) / 1e3)
            recording.wait()
    return spread(seen)
