"""Every benchmark runs at its smallest size, as `python -m benchmarks` runs it, and leaves the machine as it was."""

import functools
import gc
import importlib
import json
import os
import shutil
import subprocess
import sys

import pytest

from tests.support import skips
from tests.support.places import ROOT

NAMES = sorted(path.stem.removeprefix("bench_") for path in (ROOT / "benchmarks" / "ops").glob("bench_*.py"))
LONG = {"encoder", "instructions", "load"}  # seconds each, even at their smallest
NEEDS = {
    "training": ("torch", skips.TORCH),
    "forest": ("sklearn", skips.TREES),
    "kernel_resources": ("triton", skips.GPU),
    "server": ("uvicorn", skips.SERVE),
}
TOOLS = {"instructions": ("valgrind", skips.VALGRIND), "server": ("h2load", skips.H2LOAD)}


def python(*arguments, codes=(0,)):
    """stdout of a Python process in the project's folder, whatever this process has set for Triton (decide_implementations.py)."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode in codes, done.stderr[-2000:] + done.stdout[-2000:]
    return done.stdout


@functools.cache
def smallest(name):
    codes = (0, 5) if name == "verify" else (0,)  # what is missed in a few calls is no figure
    out = python("-m", "benchmarks", "--smallest", "--json", name, codes=codes)
    return [json.loads(line) for line in out.splitlines()]


@pytest.fixture
def benchmarks(monkeypatch):
    """Imports a module of the folder benchmarks, as a clone has it."""
    monkeypatch.syspath_prepend(str(ROOT))
    return lambda name: importlib.import_module(f"benchmarks.{name}")


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in LONG)) for name in NAMES])
def test_a_benchmark_runs_at_its_smallest_size(name):
    if name in NEEDS:
        pytest.importorskip(NEEDS[name][0], reason=NEEDS[name][1])
    tool, reason = TOOLS.get(name, (None, ""))
    if tool is not None and shutil.which(tool) is None:
        pytest.skip(reason)
    lines = smallest(name)
    assert lines
    for line in lines:
        assert {"op", "machine", "versions", "commit", "command", "date"} <= set(line)


def test_every_benchmark_is_in_the_registry(benchmarks):
    main = benchmarks("__main__")
    assert sorted(main.NAMES + main.ASKED_FOR) == NAMES


@pytest.mark.parametrize("name", ["route", "encoder"])
def test_model2vec_is_timed_where_it_is_installed(name):
    pytest.importorskip("model2vec", reason=skips.MODEL2VEC)
    lines = smallest(name)
    peers = [line for line in lines if line["impl"].startswith("model2vec")]
    assert {line["prompts"] for line in peers} == {"ascii", "other"}


def test_the_micro_benchmarks_run():
    pytest.importorskip("pytest_benchmark", reason=skips.BENCH)
    least = ["--benchmark-min-rounds=1", "--benchmark-max-time=0.000001", "--benchmark-warmup=off"]
    out = python("-m", "pytest", "-q", "-p", "no:cacheprovider", "benchmarks/test_micro.py", *least)
    assert "passed" in out
    assert "skipped" not in out


def test_lines_of_the_smallest_size_are_not_recorded():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--smallest", "--record", "policy"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "--record: lines of --smallest are no figures" in done.stderr


def test_a_measurement_gives_back_the_cores_and_the_garbage_collector(benchmarks):
    cores = os.sched_getaffinity(0)
    with benchmarks("harness.turns").quiet():
        assert len(os.sched_getaffinity(0)) == 1
        assert not gc.isenabled()
    assert os.sched_getaffinity(0) == cores
    assert gc.isenabled()


def test_a_checkout_is_timed_beside_another_one_in_turns():
    lines = [
        json.loads(line)
        for line in python("-m", "benchmarks.before", str(ROOT), "--turns", "2", "--calls", "3", "--json").splitlines()
    ]
    assert [(line["call"], line["prompts"]) for line in lines] == [
        ("route", "ascii"),
        ("route", "other"),
        ("decide", "ascii"),
        ("tokens_in", "ascii"),
        ("chat", "ascii"),
        ("request", "ascii"),
        ("route_many", "ascii"),
    ]
    for line in lines:
        assert line["ratio_low"] <= line["ratio"] <= line["ratio_high"]
        assert line["commit_before"]
        assert str(ROOT) not in json.dumps(line)


def test_a_folder_that_is_no_checkout_is_named(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.before", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "CHECKOUT: expected a folder with ipr_engine" in done.stderr


@pytest.mark.slow
def test_what_an_installation_holds_is_counted():
    line = json.loads(python("-m", "benchmarks.install", "--packages", "numpy"))
    assert line["packages"] == 1
    assert 10 < line["mb"] < 500
    assert line["command"] == "python -m benchmarks.install --packages 'numpy'"


def test_an_extra_that_there_is_not_is_named():
    command = [sys.executable, "-m", "benchmarks.install", "nothing"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "EXTRA: expected one of core, test, " in done.stderr
