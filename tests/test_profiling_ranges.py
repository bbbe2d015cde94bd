"""The ranges of the GPU path, counted: every push has its pop, in order and by name, through NVTX and through torch.profiler."""

import importlib
import json
import subprocess
import sys
from collections import Counter

import pytest

from ipr_engine import _profiling as profiling
from ipr_engine.errors import InvalidInputError
from tests.support import (
    decide_implementations,  # noqa: F401  (before anything that imports triton)
    skips,
)
from tests.support.gpu_engines import DEVICE, PROMPTS, gpu_engine, make_bundle, make_export
from tests.support.places import ROOT
from tests.support.transformer_folders import import_torch

pytestmark = [
    pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning"),  # of Triton's interpreter
    pytest.mark.skipif(
        DEVICE != "emulated", reason=f"{skips.HARDWARE} the emulation: its GPU's graphs mark at capture alone"
    ),
]


class CountingNvtx:
    """The three calls of the library that torch.cuda.nvtx makes, noted."""

    def __init__(self):
        self.told, self.open, self.deepest, self.marks = [], [], 0, []

    def rangePushA(self, name):
        self.told.append(name)
        self.open.append(name)
        self.deepest = max(self.deepest, len(self.open))
        return len(self.open) - 1

    def rangePop(self):
        self.told.append(f"/{self.open.pop()}")  # an empty list: a pop without its push
        return len(self.open)

    def markA(self, message):
        self.marks.append(message)


@pytest.fixture
def nvtx(monkeypatch):
    """A counting library where torch looks for the real one, taken up by torch's own import of it."""
    torch, _ = import_torch()
    counting = CountingNvtx()
    monkeypatch.setattr("torch._C._nvtx", counting, raising=False)
    importlib.reload(torch.cuda.nvtx)
    profiling.enable()
    yield counting
    profiling.disable()
    monkeypatch.undo()
    importlib.reload(torch.cuda.nvtx)


@pytest.fixture
def profiler():
    torch, _ = import_torch()
    profiling.enable("profiler")
    yield torch.profiler
    profiling.disable()


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    return make_export(tmp_path_factory.mktemp("ranges"))


@pytest.fixture(scope="module")
def engine(export, tmp_path_factory):
    return gpu_engine(make_bundle(tmp_path_factory.mktemp("bundle"), export), batches=(1, 4))


ONE_PASS = ["copy", "/copy", "encode", "/encode", "decide", "/decide"]


@pytest.mark.parametrize(("prompts", "passes"), [(1, 1), (4, 1), (5, 2)])
def test_every_pass_pushes_and_pops_its_ranges_once_and_in_order(prompts, passes, engine, nvtx):
    engine.route_many(["why"] * prompts, tau=0.3)  # of one length, at most 4 a pass
    assert nvtx.open == []
    assert nvtx.told[:2] == ["tokenize", "/tokenize"]
    assert nvtx.told[2:] == ONE_PASS * passes
    assert nvtx.deepest == 1
    assert nvtx.marks == ["ipr_engine"]


def test_ranges_nest_and_an_error_inside_closes_them(nvtx):
    with profiling.span("encode"), profiling.span("copy"):
        assert nvtx.open == ["encode", "copy"]
    with pytest.raises(ValueError, match="inside"), profiling.span("decide"):
        raise ValueError("inside")
    assert nvtx.told == ["encode", "copy", "/copy", "/encode", "decide", "/decide"]
    assert nvtx.open == []


def test_a_failed_route_leaves_no_range_open(engine, nvtx, monkeypatch):
    def fail(*arguments):
        raise RuntimeError("no copy")

    monkeypatch.setattr("ipr_engine.gpu_router.router.fill_rows", fail)
    with pytest.raises(RuntimeError, match="no copy"):
        engine.route(PROMPTS[0], tau=0.3)
    assert nvtx.told == ["tokenize", "/tokenize", "copy", "/copy"]


def test_disabled_again_nothing_is_marked(engine, nvtx):
    profiling.disable()
    engine.route(PROMPTS[0], tau=0.3)
    assert nvtx.told == []


def test_torch_s_profiler_records_the_same_ranges_around_the_work(engine, profiler):
    engine.route(PROMPTS[0], tau=0.3)
    with profiler.profile(activities=[profiler.ProfilerActivity.CPU]) as trace:
        for _ in range(3):
            engine.route(PROMPTS[0], tau=0.3)
    events = [event for event in trace.events() if event.name in profiling.NAMES]
    assert Counter(event.name for event in events) == dict.fromkeys(profiling.NAMES, 3)
    ordered = sorted(events, key=lambda event: event.time_range.start)
    assert [event.name for event in ordered] == ["tokenize", "copy", "encode", "decide"] * 3
    for one, then in zip(ordered, ordered[1:], strict=False):
        assert one.time_range.end <= then.time_range.start
    inside = {child.name for event in ordered if event.name == "encode" for child in event.cpu_children}
    assert any(name.startswith("aten::") for name in inside)  # the model's operators lie within its range


def test_an_unknown_marker_is_refused():
    with pytest.raises(InvalidInputError, match="marker: expected one of nvtx, profiler, got 'itt'"):
        profiling.enable("itt")


def test_without_nsys_a_trace_of_torch_s_profiler_holds_the_ranges(export, tmp_path):
    command = [sys.executable, "benchmarks/profile/record.py", str(export), "--out", str(tmp_path), "--device", "cpu"]
    environment = {"PATH": "", "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}
    short = ["--tokens", "4", "--calls", "2"]
    done = subprocess.run([*command, *short], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "nsys: not found on PATH" in done.stdout
    assert "ranges in 2 calls: tokenize 2, copy 2, encode 2, decide 2" in done.stdout
    trace = json.loads((tmp_path / "route.json").read_text())
    names = Counter(event.get("name") for event in trace["traceEvents"] if event.get("cat") == "user_annotation")
    assert {name: names[name] for name in profiling.NAMES} == dict.fromkeys(profiling.NAMES, 2)


@pytest.mark.parametrize(
    ("script", "recorded", "told"),
    [
        ("echo 'permission denied' >&2; exit 3", False, "nsys: ended with 3 and no report; torch.profiler instead"),
        ("exit 0", False, "nsys: ended with 0 and no report; torch.profiler instead"),
        ('test "$1" = stats || echo "$IPR_NVTX" > "$OUT/route.nsys-rep"', True, "recording"),
    ],
)
def test_an_nsys_that_does_not_record_is_told_and_replaced(script, recorded, told, tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks" / "profile"))
    monkeypatch.setenv("OUT", str(tmp_path))
    nsys = tmp_path / "nsys"
    nsys.write_text(f"#!/bin/sh\n{script}\n")
    nsys.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    record = importlib.import_module("record")
    assert record.find_nsys() == str(nsys)
    assert record.record_with_nsys(str(nsys), [sys.executable, "-c", "pass"], tmp_path) is recorded
    assert told in capsys.readouterr().out
    if recorded:
        assert (tmp_path / "route.nsys-rep").read_text() == "1\n"
