"""A swap costs its own time, the first call after it, and what the calls beside it feel; a record costs the time to write it.

Both bundles are the default one, with other prices. Before anything is timed, every decision made beside the swaps is
checked against an engine of the bundle it names.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from ipr_engine import Bundle, Engine, Policy
from ipr_engine.audit.record import Record
from ipr_engine.audit.replay import replay
from ipr_engine.bundle import with_prices

from ..harness.results import Line
from ..harness.turns import FULL, P50_P99, Size, percentiles
from .prompts import ASCII

TAU = 0.2
ROUNDS = 60
SECONDS = 4.0  # of routing beside swaps, each way


def run(size: Size = FULL) -> Iterator[Line]:
    with tempfile.TemporaryDirectory() as folder:
        yield from _lines(Path(folder), size)


def _lines(folder: Path, size: Size) -> Iterator[Line]:
    rounds = size.of(ROUNDS, 3)
    engine = Engine.load()
    first = engine.bundle
    paths = [with_prices(first, replace(first.prices, date=f"2026-01-0{n}"), root=folder) for n in (1, 2)]
    bundles = [Bundle.load(path) for path in paths]
    policy = engine.policy(tau=TAU)
    prompts = list(ASCII)
    check(engine, bundles, policy, prompts)

    def first_call(turn: int) -> int:
        engine.swap(bundles[turn % 2])
        start = time.perf_counter_ns()
        engine.route(prompts[0], policy)
        return time.perf_counter_ns() - start

    yield timed("swap to a loaded bundle", lambda turn: engine.swap(bundles[turn % 2]), rounds)
    yield timed("swap to a folder: read, verify, plan", lambda turn: engine.swap(paths[turn % 2]), rounds)
    after = np.array([first_call(turn) for turn in range(rounds)]) / 1e3
    yield line("first call with a held policy after a swap", after)
    yield timed("Engine.route", lambda turn: engine.route(prompts[turn % len(prompts)], policy), size.of(2000, 20))
    written: list[bytes] = []
    recorder = engine.recorder(written.append)
    yield timed("Recorder.route", lambda turn: recorder.route(prompts[turn % len(prompts)], policy), size.of(2000, 20))
    yield timed("Record.from_line", lambda turn: Record.from_line(written[turn]), size.of(1000, 10))
    yield timed("replay of one record", lambda turn: list(replay([written[turn]], engine)), size.of(1000, 10))
    yield {"op": "swap", "impl": "a record of 11 candidates x 256", "bytes": round(np.mean([len(w) for w in written]))}
    for name, targets, pause_s in (
        ("nothing", [], 0.0),
        ("10 swaps a second to loaded bundles", bundles, 0.1),
        ("10 swaps a second to folders", paths, 0.1),
    ):
        yield line(
            f"Engine.route beside {name}", beside(engine, policy, prompts, targets, pause_s, size.of(SECONDS, 0.2))
        )


def check(engine: Engine, bundles: list[Bundle], policy: Policy, prompts: list[str]) -> None:
    for bundle in bundles:
        engine.swap(bundle)
        alone = Engine(bundle)
        for prompt in prompts:
            ours, theirs = engine.route(prompt, policy), alone.route(prompt, tau=TAU)
            assert ours.to_dict() == theirs.to_dict(), prompt


def timed(name: str, call: Callable[[int], object], rounds: int) -> Line:
    call(0)
    seen = []
    for turn in range(1, rounds + 1):
        start = time.perf_counter_ns()
        call(turn)
        seen.append(time.perf_counter_ns() - start)
    return line(name, np.array(seen) / 1e3)


def beside(
    engine: Engine,
    policy: Policy,
    prompts: list[str],
    targets: list[Bundle] | list[Path],
    pause_s: float,
    seconds: float,
) -> np.ndarray:
    """Return microseconds of each call of one thread while another swaps."""
    done, seen = threading.Event(), []

    def swap() -> None:
        turn = 0
        while targets and not done.wait(pause_s):
            engine.swap(targets[turn % len(targets)])
            turn += 1

    thread = threading.Thread(target=swap)
    thread.start()
    end, clock = time.perf_counter() + seconds, time.perf_counter_ns
    turn = 0
    while time.perf_counter() < end:
        start = clock()
        engine.route(prompts[turn % len(prompts)], policy)
        seen.append(clock() - start)
        turn += 1
    done.set()
    thread.join()
    return np.array(seen) / 1e3


def line(name: str, times_us: np.ndarray) -> Line:
    found = percentiles(times_us, P50_P99 | {"p99.9_us": 99.9})
    return {"op": "swap", "impl": name, **found, "max_us": round(float(times_us.max()), 1), "calls": len(times_us)}
