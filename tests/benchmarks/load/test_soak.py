"""Memory's slope, windows of a long run, and the search for the most."""

import asyncio
import subprocess
import sys
import time

import numpy as np
import pytest

from benchmarks.cli import soak_command as bench_soak
from benchmarks.load import soak as module
from benchmarks.load.ladder import best, most, sustained, sustained_rate
from benchmarks.load.lengths import Mix
from benchmarks.load.measure import LoadCase
from benchmarks.load.noise import Noise, unsteady
from benchmarks.load.soak import Soak, soak, theil_sen
from benchmarks.load.window import Lost
from ipr_engine.errors import InvalidInputError
from tests.support.load_targets import AsyncKnownTarget, KnownTarget, MadeUpClock

MIX = Mix(("a",), "one", (1,))


def silent(label):
    return lambda seconds, answered: None


def case(**changes):
    usual = {"mix": MIX, "mode": "open", "callers": 1, "seconds": 1, "warm_up": 0.0, "seed": 0}
    return LoadCase(**(usual | changes))


def test_the_slope_of_memory_is_found_and_its_interval_covers_it(rng):
    covered = 0
    for _ in range(200):
        at = np.arange(40) * 15.0
        mb = 60 + at * 30 / 3600 + 0.05 * rng.standard_normal(40)
        slope = theil_sen(list(zip(at, mb, strict=True)))
        covered += slope.low <= 30 <= slope.high
    assert covered / 200 > 0.9
    assert slope.verdict == "grows"


@pytest.mark.parametrize(
    ("per_hour", "noise", "verdict"), [(0, 0.01, "flat"), (200, 0.01, "grows"), (8, 3.0, "cannot tell")]
)
def test_a_slope_is_judged_by_its_interval(per_hour, noise, verdict, rng):
    at = np.arange(40) * 15.0
    mb = 60 + at * per_hour / 3600 + noise * rng.standard_normal(40)
    assert theil_sen(list(zip(at, mb, strict=True))).verdict == verdict


def test_one_step_of_an_allocator_does_not_look_like_growth():
    at = np.arange(40) * 15.0
    mb = np.where(np.arange(40) < 3, 60.0, 62.0)
    assert theil_sen(list(zip(at, mb, strict=True))).verdict == "flat"


def test_a_soak_s_windows_hold_every_request_and_its_memory(monkeypatch):
    monkeypatch.setattr(module, "LEAST_WINDOW_S", 0.02)
    target = KnownTarget(MadeUpClock(), lambda call: 0, fails={50: ValueError("broken")})
    found = soak(target, case(), rate=500, most=1000, seconds=0.4, progress=silent)
    assert found.lost == Lost(failed=1)
    assert found.answered + found.lost.count == target.calls
    assert len(found.rows) == len(found.rss) == 20
    assert found.slope is not None
    assert found.to_dict()["rss_slope_mb_per_hour"]["verdict"] in ("flat", "grows", "cannot tell")


def test_an_outage_of_whole_windows_is_counted_and_the_others_stand(monkeypatch):
    monkeypatch.setattr(module, "LEAST_WINDOW_S", 0.02)
    down = {call: ValueError("down") for call in range(50, 130)}  # of 200 arrivals, ten a window
    found = soak(
        KnownTarget(MadeUpClock(), lambda call: 0, fails=down),
        case(),
        rate=500,
        most=1000,
        seconds=0.4,
        progress=silent,
    )
    assert found.lost == Lost(failed=80)
    assert len(found.rows) == 20
    assert found.behind >= 5
    assert any(row["throughput_rps"] is None for row in found.rows)


def test_a_soak_of_a_target_that_never_answers_is_an_error(monkeypatch):
    monkeypatch.setattr(module, "LEAST_WINDOW_S", 0.02)
    dead = {call: ValueError("dead") for call in range(1000)}
    with pytest.raises(InvalidInputError, match=r"target known: not one of .* requests was answered \(.* x ValueError"):
        soak(
            KnownTarget(MadeUpClock(), lambda call: 0, fails=dead),
            case(),
            rate=500,
            most=1000,
            seconds=0.2,
            progress=silent,
        )


def test_too_few_windows_give_no_slope():
    assert Soak("t", 1, 1, rss=[(float(i), 60.0) for i in range(8)]).slope is None


def test_resident_memory_sees_what_is_allocated():
    """In a process of its own: in this one freed memory may be taken back meanwhile."""
    code = (
        "import numpy as np; from benchmarks.load.soak import resident_mb; before = resident_mb(); "
        "block = np.ones(5_000_000); print(resident_mb() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 30 < float(done.stdout) < 60


def test_the_search_stops_where_more_callers_bring_nothing():
    target = KnownTarget(MadeUpClock(), lambda call: 0)
    steps = most(target, case(mode="closed", seconds=0.05), silent)
    assert 3 <= len(steps) <= 7
    assert best(steps).run.throughput == max(step.run.throughput for step in steps)


def test_a_target_that_falls_behind_is_told_by_its_windows_and_misses(monkeypatch):
    monkeypatch.setattr(module, "LEAST_WINDOW_S", 0.1)
    target = KnownTarget(MadeUpClock(), lambda call: 0)
    target.call = lambda prompt: time.sleep(0.006)
    found = soak(target, case(), rate=500, most=500, seconds=0.3, progress=silent)
    assert found.behind == len(found.rows) == 3
    verdicts, code = bench_soak.judge_soak(found, None)
    assert verdicts["schedule"] == "behind in 3 of 3 windows"
    assert code == 5


@pytest.mark.slow
def test_the_most_of_an_open_loop_is_found_in_an_open_loop():
    """Of a target that is dear where each request is a task of its own, as in an open loop, and free where one task asks again."""
    seen = set()

    async def dear_in_a_new_task():
        task = asyncio.current_task()
        if task not in seen:
            seen.add(task)
            end = time.perf_counter() + 1e-4
            while time.perf_counter() < end:
                pass

    target, short = AsyncKnownTarget(dear_in_a_new_task), case(mode="closed", seconds=0.05)
    top = best(most(target, short, silent))
    steps = sustained(target, short, top, silent)
    assert all(step.run.load.schedule is not None for step in steps)
    assert sustained_rate(steps) < 1.3 * 10_000  # 10,000 a second at most, and what chance adds to 500 arrivals


def test_noise_is_told_in_words_only_where_there_is_some():
    with Noise() as noise:
        pass
    found = noise.to_dict()
    assert found["before"]["spin_us"] > 0
    quiet = {"spin_us": 100.0, "spin_p99_ratio": 1.1, "longest_us": 150.0}
    calm = {**found, "before": quiet, "after": quiet, "steal_share": 0.0, "load_1m": 0.5, "throttled_periods": 0}
    assert unsteady(calm) == []
    assert "stolen" in unsteady({**calm, "steal_share": 0.2})[0]
    assert "quota" in unsteady({**calm, "throttled_periods": 3})[0]
    assert "speed changed" in unsteady({**calm, "after": {**quiet, "spin_us": 150.0}})[0]
