"""Targets: intervals that cover what they claim to, verdicts by the whole interval, files read with every fault named."""

import importlib
import json
import math
import subprocess
import sys

import numpy as np
import pytest

from ipr_engine.errors import InvalidInputError
from tests.support.places import ROOT

GOOD = 'case = "route"\nimpl = "engine"\nquantile = "p99"\nat_most = 3\n'


@pytest.fixture
def targets(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("benchmarks.ops.bounds")


@pytest.fixture
def bench_verify(targets):
    return importlib.import_module("benchmarks.ops.bench_verify")


def calls(rng, *, us, sigma=0.5, rounds=200, drift=None):
    """(rounds, 40) ns, log-normal; drift: (rounds,) factors that a round's calls share."""
    drift = np.ones(rounds) if drift is None else drift
    return (drift[:, None] * us * 1e3 * np.exp(sigma * rng.standard_normal((rounds, 40)))).astype(np.int64)


def empty(rounds=200):
    return np.full((rounds, 40), 60)


def target(targets, **changes):
    return targets.Bound(**{"case": "route", "impl": "engine", "quantile": "p99", "at_most": 3.0, **changes})


def covered(truth, figures):
    return np.mean([found.low <= truth <= found.high for found in figures])


def test_the_interval_of_p99_over_p50_covers_it(targets, rng):
    wanted = target(targets, over_quantile="p50")
    figures = []
    for _ in range(200):
        figures.append(targets.figure(wanted, {"engine": calls(rng, us=6) + 60, targets.FLOOR: empty()}))
    truth = math.exp(0.5 * 2.3263)
    assert covered(truth, figures) >= 0.97
    assert np.median([found.high - found.low for found in figures]) < 0.7  # it is no interval that covers everything


@pytest.mark.parametrize(("quantile", "truth"), [("p50", 6.0), ("p99", 6 * math.exp(0.5 * 2.3263))])
def test_the_interval_of_a_quantile_covers_it_less_the_floor(quantile, truth, targets, rng):
    wanted = target(targets, quantile=quantile)
    figures = [targets.figure(wanted, {"engine": calls(rng, us=6) + 60, targets.FLOOR: empty()}) for _ in range(200)]
    assert covered(truth, figures) >= 0.97


def test_a_ratio_to_a_peer_is_told_sharply_though_the_machine_s_speed_drifts(targets, rng):
    wanted = target(targets, impl="peer", quantile="p50", over_impl="engine", at_most=None, at_least=30.0)
    figures = []
    for _ in range(100):
        drift = np.exp(0.4 * rng.standard_normal(200))
        ours, theirs = (calls(rng, us=us, drift=drift) + 60 for us in (6, 240))
        figures.append(targets.figure(wanted, {"engine": ours, "peer": theirs, targets.FLOOR: empty()}))
    assert covered(40, figures) >= 0.95
    assert np.median([found.high - found.low for found in figures]) < 4
    assert {targets.verdict(wanted, found) for found in figures} == {"met"}


def test_a_machine_that_stalls_for_whole_rounds_widens_the_interval(targets, rng):
    """A hundred slow calls in a row are one event, not a hundred."""
    stalls = np.where(np.arange(200) % 67 == 5, 20.0, 1.0)
    wanted = target(targets, over_quantile="p50")
    calm, stalled = (
        targets.figure(wanted, {"engine": calls(rng, us=6, drift=drift), targets.FLOOR: empty()})
        for drift in (None, stalls)
    )
    assert targets.verdict(target(targets, over_quantile="p50", at_most=4.5), calm) == "met"
    assert targets.verdict(target(targets, over_quantile="p50", at_most=4.5), stalled) != "met"


@pytest.mark.parametrize(
    ("bound", "verdict"),
    [({"at_most": 5.0}, "met"), ({"at_most": 2.0}, "missed"), ({"at_most": 3.3}, "cannot tell"),
     ({"at_least": 2.0}, "met"), ({"at_least": 5.0}, "missed"), ({"at_least": 3.3}, "cannot tell")],
)  # fmt: skip
def test_the_whole_interval_decides(bound, verdict, targets):
    found = targets.Figure(3.2, 3.0, 3.4, 8000)
    assert targets.verdict(target(targets, **{"at_most": None, **bound}), found) == verdict


@pytest.mark.parametrize("wanted", [{}, {"over_quantile": "p50"}, {"quantile": "p50", "over_impl": "peer"}])
def test_too_few_calls_tell_nothing_and_say_how_many_it_takes(wanted, targets, rng):
    few = {name: calls(rng, us=6, rounds=3) for name in ("engine", "peer", targets.FLOOR)}
    for bound in ({"at_most": 1e9}, {"at_most": None, "at_least": 1e-9}):
        one = target(targets, **wanted, **bound)
        found = targets.figure(one, few)
        assert targets.verdict(one, found) == "cannot tell"
        assert found.needed > 3


@pytest.mark.parametrize("wanted", [{}, {"over_quantile": "p50"}, {"quantile": "p50", "over_impl": "peer"}])
def test_a_machine_without_time_to_spare_counts_one_round_and_tells_nothing(wanted, targets):
    turns = importlib.import_module("benchmarks.harness.turns")
    variants = {name: lambda item: None for name in ("engine", "peer", targets.FLOOR)}
    times = turns.in_turns(variants, ["prompt"], rounds=12, calls=40, most_s=0.0)
    assert {name: [len(calls) for calls in rounds] for name, rounds in times.items()} == {
        name: [40] for name in variants
    }
    bound = target(targets, **wanted)
    assert targets.verdict(bound, targets.figure(bound, times)) == "cannot tell"


@pytest.mark.parametrize("bound", [{"at_most": 3.0}, {"at_most": None, "at_least": 3.0}])
@pytest.mark.parametrize("over", [{"over_quantile": "p50"}, {"quantile": "p50", "over_impl": "engine"}])
def test_a_call_as_short_as_an_empty_one_tells_no_ratio(over, bound, targets, rng):
    wanted = target(targets, **{"impl": "peer", **over, **bound})
    times = {"peer": empty() + (100 if "over_impl" in over else 0), "engine": empty(), targets.FLOOR: empty()}
    assert targets.verdict(wanted, targets.figure(wanted, times)) == "cannot tell"


def test_what_is_not_installed_or_meant_for_another_machine_is_told_and_misses_nothing(targets, bench_verify, rng):
    times = {"engine": calls(rng, us=6), targets.FLOOR: empty()}
    ghost = bench_verify.judged(target(targets, impl="model2vec + numpy", over_impl="engine"), times, "avx2")
    other = bench_verify.judged(target(targets, isas=("avx512",)), times, "scalar")
    assert ghost["verdict"] == other["verdict"] == "not run"
    assert ghost["why"] == "model2vec + numpy is not installed"
    assert other["why"] == "meant for avx512, this machine runs scalar"
    assert "not run" in bench_verify.text(ghost)


def test_the_project_s_own_targets_are_read(targets, bench_verify):
    read = targets.read(targets.PATH, bench_verify.IMPLS)
    assert target(targets, over_quantile="p50") in read
    assert {one.case for one in read} == set(bench_verify.IMPLS) == set(bench_verify.ROUNDS)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "expected [[target]] entries and nothing else"),
        ("at_most = 3", "expected [[target]] entries and nothing else, got at_most"),
        ("[[target", "cannot be read"),
        ("[[target]]\n" + GOOD.replace("route", "rout"), "case: expected one of route, .* got 'rout'"),
        ("[[target]]\n" + GOOD.replace("engine", "numpy"), "impl: expected one of engine, got 'numpy'"),
        ("[[target]]\n" + GOOD.replace("p99", "p98"), "quantile: expected one of p50, p99, got 'p98'"),
        ("[[target]]\n" + GOOD + 'over_quantile = "p5"', "over_quantile: expected one of"),
        ("[[target]]\n" + GOOD + 'over_quantile = "p50"\nover_impl = "engine"', "give over_impl or over_quantile"),
        ("[[target]]\n" + GOOD + "at_least = 1", "expected either at_most or at_least, got at_most and at_least"),
        ("[[target]]\n" + GOOD.replace("at_most = 3", ""), "got neither"),
        ("[[target]]\n" + GOOD.replace("= 3", "= nan"), "at_most: expected a finite number > 0, got nan"),
        ("[[target]]\n" + GOOD.replace("= 3", "= true"), "at_most: expected a finite number > 0, got True"),
        ("[[target]]\n" + GOOD + "isas = 'avx2'", "isas: expected a list"),
        ("[[target]]\n" + GOOD + "att_most = 3", "expected the keys case, .* got att_most"),
        ("[[target]]\n" + GOOD + "[[target]]\n", "target 2: case"),
    ],
)
def test_a_file_of_targets_with_a_fault_is_refused_by_its_place(text, named, targets, bench_verify, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(InvalidInputError, match=named.replace("[[", r"\[\[").replace("]]", r"\]\]")):
        targets.read(path, bench_verify.IMPLS)


@pytest.mark.parametrize(("bound", "code", "verdict"), [("at_most = 1e9", 0, "met"), ("at_most = 1e-9", 5, "missed")])
def test_the_exit_code_is_5_where_a_target_is_missed(bound, code, verdict, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('[[target]]\ncase = "route"\nimpl = "engine"\nquantile = "p50"\n' + bound)
    command = [sys.executable, "-m", "benchmarks", "verify", "--smallest", "--json", "--targets", str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    [line] = [json.loads(text) for text in done.stdout.splitlines()]
    assert line["verdict"] == verdict
    assert 0 < line["low"] <= line["value"] <= line["high"]
    assert "verify: route" in done.stderr


def test_a_fault_in_the_file_ends_the_command_with_1_and_no_traceback(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("[[target]]\n" + GOOD.replace("route", "rout"))
    command = [sys.executable, "-m", "benchmarks", "verify", "--targets", str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "mine.toml, target 1: case: expected one of" in done.stderr
    assert "Traceback" not in done.stderr


def test_rounds_that_drift_together_widen_the_interval_of_a_ratio(targets, rng):
    covered = 0
    for _ in range(60):
        drift = np.zeros(400)
        for i in range(1, 400):
            drift[i] = 0.9 * drift[i - 1] + 0.05 * rng.standard_normal()
        above = [[round(100_000 * math.exp(part))] * 3 for part in drift]
        found = targets.paired_ratio(above, [[1000] * 3] * 400, [[0] * 3] * 400)
        covered += found.low <= 100 <= found.high
    assert covered >= 50  # of rounds taken for independent about 30


def test_the_servers_targets_are_read_and_judged_by_the_whole_interval(targets, tmp_path):
    read = targets.server_bounds()
    assert read["decision endpoint", "text"] == 30.0
    assert read["gateway", None] == 1000.0
    figure = targets.of_turns([10.0, 12.0, 11.0, 9.0, 50.0, 10.5, 11.5, 12.5, 8.0, 10.0, 11.0, 12.0])
    assert 8.0 <= figure.low <= figure.value == 11.0 <= figure.high <= 50.0
    verdicts = [targets.verdict_at_most(most, figure) for most in (60.0, 11.0, 5.0)]
    assert verdicts == ["met", "cannot tell", "missed"]
    assert targets.verdict_at_most(60.0, targets.of_turns([1.0, 2.0])) == "cannot tell"  # too few to tell


@pytest.mark.parametrize(
    "entry",
    ['what = "gateway"', "at_most = 3", 'what = "gateway"\nat_most = "3"', 'what = "x"\nat_most = 3\nbdy = "text"'],
)
def test_a_wrong_target_of_the_server_is_named(targets, tmp_path, entry):
    path = tmp_path / "targets.toml"
    path.write_text(f"[[server]]\n{entry}\n")
    with pytest.raises(InvalidInputError, match=r"targets\.toml, server 1"):
        targets.server_bounds(path)
