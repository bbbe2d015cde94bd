"""How every benchmark here measures: variants take turns, medians are compared, a line says what machine it was."""

from __future__ import annotations

import gc
import math
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
import timeit
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

ROOT = Path(__file__).resolve().parent.parent

Line = dict[str, Any]
Item = TypeVar("Item")
Value = TypeVar("Value")


@dataclass(frozen=True)
class Size:
    """How much a benchmark does: FULL for figures, SMALLEST to see in seconds that all of its parts run."""

    smallest: bool = False

    def of(self, full: Value, smallest: Value) -> Value:
        """One of the two values: a number of rounds, a list of sizes ..."""
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
    """One line a variant: p50 and p99 of single calls, and the median over rounds of its time over `base`'s.

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
            "p50_us": round(float(np.percentile(calls, 50)), 3),
            "p99_us": round(float(np.percentile(calls, 99)), 3),
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
    """Nanoseconds of single calls, round by round: (rounds, calls) a variant, all of one round on the same inputs.

    Args:
        warm_up: rounds before them, not counted.
        most_s: seconds after which no further round begins.
    """
    times: dict[str, list[list[int]]] = {name: [] for name in variants}
    clock = time.perf_counter_ns
    latest = time.perf_counter() + most_s
    with quiet():
        for turn in range(warm_up + rounds):
            if time.perf_counter() > latest:
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


BLOCK_SECONDS = 2e-4  # long enough to hide the clock, short enough that a disturbance spoils one block only


class Timings:
    """Times of several variants, measured block by block in turn, so that a slow moment hits all of them."""

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
        """Microseconds per call at a quantile over blocks."""
        return float(np.quantile(self.blocks[name], quantile)) * 1e6

    def ratio(self, slow: str, fast: str) -> float:
        """How many times longer `slow` takes: the median over pairs of neighbouring blocks."""
        pairs = zip(self.blocks[slow], self.blocks[fast], strict=True)
        return statistics.median(a / b for a, b in pairs)


def copy_gb_per_s(bytes_each: int) -> float:
    """Measured copy bandwidth, read plus write, of two buffers of this size: small ones sit in L2, large in memory."""
    source, target = np.ones(bytes_each // 4, np.float32), np.empty(bytes_each // 4, np.float32)
    timer = timeit.Timer(lambda: np.copyto(target, source))
    number = max(1, 2_000_000 // bytes_each)
    return 2 * bytes_each * number / min(timer.repeat(20, number)) / 1e9


@contextmanager
def quiet() -> Iterator[None]:
    """This thread stays on one core and no garbage is collected, so that neither is measured; both as before afterwards."""
    cores, collecting = os.sched_getaffinity(0), gc.isenabled()
    os.sched_setaffinity(0, {min(cores)})
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
        os.sched_setaffinity(0, cores)


@cache
def machine() -> Line:
    """The machine and the versions, for every recorded line."""
    cpuinfo = Path("/proc/cpuinfo").read_text().splitlines()
    cpus = [line.split(":", 1)[1].strip() for line in cpuinfo if line.startswith("model name")]
    family = [line.split(":", 1)[1].strip() for line in cpuinfo if line.startswith(("cpu family", "model\t"))]
    return {
        "machine": f"{cpus[0]} (family {family[0]} model {family[1]}), {len(cpus)} cores, Linux {platform.release()}",
        "versions": {
            "python": platform.python_version(),
            **{
                name: found
                for name in ("ipr_engine", "numpy", "tokenizers", "model2vec", "torch")
                if (found := _version(name))
            },
        },
        "load_1m": round(os.getloadavg()[0], 2),  # well above 1: someone else was at work, the figures are worth less
        "commit": _git("rev-parse", "--short=12", "HEAD")
        + ("+changes" if _git("status", "--porcelain", "-uno") else ""),
        "command": f"python -m benchmarks {' '.join(sys.argv[1:])}".strip(),
        "date": time.strftime("%Y-%m-%d"),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git(*arguments: str) -> str:
    if not (ROOT / ".git").exists():  # a tree carried to another machine: benchmarks/gpu/pack.py writes COMMIT
        carried = ROOT / "COMMIT"
        return carried.read_text().strip() if arguments[0] == "rev-parse" and carried.is_file() else ""
    if shutil.which("git") is None:
        return ""
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip()
