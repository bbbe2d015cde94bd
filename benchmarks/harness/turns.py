"""Every benchmark here measures alike: variants take turns, medians are compared."""

from __future__ import annotations

import gc
import math
import os
import statistics
import time
import timeit
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from .results import Line

Item = TypeVar("Item")
Value = TypeVar("Value")


@dataclass(frozen=True)
class Size:
    """A `Size` says how much a benchmark does: FULL for figures, SMALLEST to see in seconds that all of its parts run."""

    smallest: bool = False

    def of(self, full: Value, smallest: Value) -> Value:
        """Return one of the two values: a number of rounds, a list of sizes ..."""
        return smallest if self.smallest else full


FULL, SMALLEST = Size(), Size(smallest=True)
ROUNDS = 60
WARM_UP = 3  # rounds that are run and not counted
CALLS_PER_ROUND = 40
UNCOUNTED = 8  # first calls of a variant's turn: the caches are still full of the variant before


def interleave(
    variants: Mapping[str, Callable[[Item], object]],
    items: Sequence[Item],
    labels: Line,
    *,
    base: str,
    size: Size = FULL,
) -> Iterator[Line]:
    """Return one line a variant: p50 and p99 of single calls, and the median over rounds of its time over `base`'s.

    Args:
        variants: name -> a call of one item.
        items: inputs, taken in turn; every variant sees the same ones in a round.
        labels: what every line says besides.
        base: the variant that `vs_base` compares with, round by round.
    """
    times = in_turns(
        variants, items, rounds=size.of(ROUNDS, 2), calls=size.of(CALLS_PER_ROUND, 4), warm_up=size.of(WARM_UP, 0)
    )
    medians = {name: [statistics.median(seen) for seen in rounds] for name, rounds in times.items()}
    for name, rounds in times.items():
        calls = np.concatenate(rounds) / 1e3
        ratios = [mine / theirs for mine, theirs in zip(medians[name], medians[base], strict=True)]
        yield {
            **labels,
            "impl": name,
            **percentiles(calls),
            "vs_base": round(statistics.median(ratios), 3),
            "base": base,
            "calls": len(calls),
        }


def in_turns(
    variants: Mapping[str, Callable[[Item], object]],
    items: Sequence[Item],
    *,
    rounds: int,
    calls: int,
    warm_up: int = WARM_UP,
    most_s: float = math.inf,
) -> dict[str, list[list[int]]]:
    """Return nanoseconds of single calls, round by round: (rounds, calls) a variant, all of one round on the same inputs.

    Args:
        warm_up: rounds before them, not counted.
        most_s: seconds after which no further round begins; one is counted, however long that takes.
    """
    times: dict[str, list[list[int]]] = {name: [] for name in variants}
    clock = time.perf_counter_ns
    latest = time.perf_counter() + most_s
    with quiet():
        for turn in range(warm_up + rounds):
            if turn > warm_up and time.perf_counter() > latest:
                break
            inputs = [items[(turn * calls + k) % len(items)] for k in range(calls)]
            for name, call in variants.items():
                seen = []
                for item in inputs[:UNCOUNTED]:
                    call(item)
                for item in inputs:
                    start = clock()
                    call(item)
                    seen.append(clock() - start)
                if turn >= warm_up:
                    times[name].append(seen)
    return times


P50_P99 = {"p50_us": 50.0, "p99_us": 99.0}


def percentiles(times_us: npt.ArrayLike, marks: Mapping[str, float] = P50_P99, *, digits: int = 3) -> dict[str, float]:
    """Return percentiles of single calls, by the name that a line gives them."""
    times = np.asarray(times_us)
    return {name: round(float(np.percentile(times, mark)), digits) for name, mark in marks.items()}


BLOCK_SECONDS = 2e-4  # long enough to hide the clock, short enough that a disturbance spoils one block only


class Timings:
    """`Timings` holds times of several variants, measured block by block in turn, so that a slow moment hits all of them."""

    def __init__(self, variants: dict[str, Callable[[], Any]], seconds: float) -> None:
        timers = {name: timeit.Timer("call()", globals={"call": call}) for name, call in variants.items()}
        calls = {}
        for name, timer in timers.items():
            timer.timeit(10)
            calls[name] = max(1, round(BLOCK_SECONDS * 20 / max(timer.timeit(20), 1e-9)))
        self.blocks: dict[str, list[float]] = {name: [] for name in variants}
        end = time.perf_counter() + seconds
        while time.perf_counter() < end or len(next(iter(self.blocks.values()))) < 20:
            for name, timer in timers.items():
                self.blocks[name].append(timer.timeit(calls[name]) / calls[name])

    def us(self, name: str, quantile: float = 0.5) -> float:
        """Return microseconds per call at a quantile over blocks."""
        return float(np.quantile(self.blocks[name], quantile)) * 1e6

    def ratio(self, slow: str, fast: str) -> float:
        """Return how many times longer `slow` takes: the median over pairs of neighbouring blocks."""
        pairs = zip(self.blocks[slow], self.blocks[fast], strict=True)
        return statistics.median(a / b for a, b in pairs)


def copy_gb_per_s(bytes_each: int) -> float:
    """Measure copy bandwidth, read plus write, of two buffers of this size: small ones sit in L2, large in memory."""
    source, target = np.ones(bytes_each // 4, np.float32), np.empty(bytes_each // 4, np.float32)
    timer = timeit.Timer(lambda: np.copyto(target, source))
    number = max(1, 2_000_000 // bytes_each)
    return 2 * bytes_each * number / min(timer.repeat(20, number)) / 1e9


@contextmanager
def uncollected() -> Iterator[None]:
    """Collect no garbage inside of the block, so that it is not measured; restore what was afterwards."""
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


@contextmanager
def quiet() -> Iterator[None]:
    """Keep this thread on one core and collect no garbage inside of the block, so that neither is measured; restore both afterwards."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        with uncollected():
            yield
    finally:
        os.sched_setaffinity(0, cores)
