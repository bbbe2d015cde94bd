"""Regression or noise: paired turns and recorded runs whose true change is known."""

import numpy as np
import pytest

from benchmarks.load import compare, report
from ipr_engine.errors import InvalidInputError


def recorded(rng, *, p50_us=10.0, spread=0.02, parts=20, spin_us=100.0, machine="one machine", **case):
    """A run's document as `ipr bench load --record` writes it, as far as comparisons read it."""
    rows = [
        {
            "p50_us": p50_us * float(np.exp(spread * rng.standard_normal())),
            "p90_us": 2 * p50_us * float(np.exp(spread * rng.standard_normal())),
            "p99_us": 4 * p50_us * float(np.exp(spread * rng.standard_normal())),
            "throughput_rps": 1e6 / p50_us * float(np.exp(spread * rng.standard_normal())),
        }
        for _ in range(parts)
    ]
    shape = {"mode": "closed", "callers": 1, "mix": "64 tokens", "mix_sha256": "a", "seed": 0}
    return {
        "schema_version": 2,
        "kind": "load",
        "target": "engine",
        "settings": {"bundle": "b", "isa": "avx2"},
        "case": {**shape, **case},
        "subruns": rows,
        "noise": {"before": {"spin_us": spin_us}},
        "machine": machine,
        "date": "2026-11-24",
        "commit": "c",
    }


def turns(rng, slowness, count=20, drift=0.3, spread=0.03):
    """Pairs on a machine whose speed drifts by a lot from turn to turn, for both alike."""
    speed = np.exp(drift * rng.standard_normal(count))
    ours, theirs = [], []
    for shared in speed:
        for rows, factor in ((ours, slowness), (theirs, 1.0)):
            own = factor * shared * np.exp(spread * rng.standard_normal(4))
            rows.append(
                {"p50_us": 5 * own[0], "p90_us": 9 * own[1], "p99_us": 20 * own[2], "throughput_rps": 2e5 / own[3]}
            )
    return ours, theirs


def test_turns_find_a_small_regression_under_a_drift_ten_times_as_large(rng):
    found = compare.paired(*turns(rng, 1.12), "base")
    assert found.verdict == compare.SLOWER
    assert all(change.low > 1 for change in found.changes)
    assert compare.paired(*turns(rng, 1 / 1.12), "base").verdict == compare.FASTER


def test_equal_targets_are_rarely_called_slower(rng):
    verdicts = [compare.paired(*turns(rng, 1.0, spread=0.015), "base").verdict for _ in range(200)]
    assert verdicts.count(compare.SLOWER) <= 4
    assert verdicts.count(compare.SAME) > 100


def test_a_change_too_small_to_count_is_no_regression(rng):
    ours, theirs = turns(rng, 1.02, spread=0.001)
    assert compare.paired(ours, theirs, "base").verdict == compare.SAME


def test_noise_larger_than_the_change_cannot_be_told(rng):
    ours, theirs = turns(rng, 1.1, count=10, spread=0.6)
    assert compare.paired(ours, theirs, "base").verdict == compare.UNTOLD


def test_too_few_turns_say_so(rng):
    ours, theirs = turns(rng, 2.0, count=5)
    found = compare.paired(ours, theirs, "base")
    assert found.verdict == compare.INCOMPARABLE
    assert "fewer than 8 turns" in found.caveats[0]


def test_the_throughput_of_an_open_loop_is_its_schedule_s_and_not_compared(rng):
    found = compare.paired(*turns(rng, 1.0), "base", fixed_rate=True)
    assert "throughput_rps" not in [change.figure for change in found.changes]


def test_a_recorded_run_shows_a_large_change_and_says_what_it_cannot_exclude(rng):
    base = recorded(rng)
    found = compare.unpaired(recorded(rng, p50_us=14.0), [base])
    assert found.verdict == compare.SLOWER
    assert any("another load on the machine" in caveat for caveat in found.caveats)
    assert any("1 recorded run(s)" in caveat for caveat in found.caveats)
    assert compare.unpaired(recorded(rng), [base]).verdict == compare.SAME


def test_the_spread_between_recorded_runs_widens_the_interval(rng):
    def runs():
        return [recorded(rng, p50_us=10 * float(np.exp(0.15 * rng.standard_normal()))) for _ in range(6)]

    verdicts = [compare.unpaired(recorded(rng, p50_us=11.5), runs()).verdict for _ in range(40)]
    assert verdicts.count(compare.SLOWER) <= 4


def test_a_slower_machine_excuses_as_much_as_its_probe_tells(rng):
    base = recorded(rng)
    found = compare.unpaired(recorded(rng, p50_us=13.0, spin_us=140.0), [base])
    assert found.verdict == compare.UNTOLD
    assert any("spin probe" in caveat for caveat in found.caveats)


def test_another_machine_is_not_comparable(rng):
    found = compare.unpaired(recorded(rng, machine="another"), [recorded(rng)])
    assert found.verdict == compare.INCOMPARABLE
    assert "another machine" in found.caveats[0]


def test_a_change_is_told_the_way_that_is_above_one(rng):
    assert "times as fast" in str(compare.judged("p50_us", 0.5, 0.4, 0.6, 0.05))
    assert str(compare.judged("p50_us", 2.0, 1.5, 2.5, 0.05)) == "p50: slower: 2 times as slow [1.5, 2.5]"


def test_the_runs_of_another_case_are_listed_when_none_fits(rng):
    runs = [recorded(rng, callers=8)]
    with pytest.raises(
        InvalidInputError, match=r"no recorded run of this case.*there are: engine, closed loop, 8 caller"
    ):
        report.same_case(recorded(rng), runs, "--compare")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "got none"),
        ("{", "line 1: expected one JSON object a line"),
        ("[]", "expected a run that"),
        ('{"kind": "load", "schema_version": 9}', "schema_version 2"),
        (
            '{"kind": "load", "schema_version": 1}',
            "schema_version 2; version 1 counted throughput otherwise: record it anew",
        ),
        ('{"kind": "load", "schema_version": 2}', "the run lacks target, case"),
    ],
)
def test_a_file_that_holds_no_runs_is_named(text, named, tmp_path):
    path = tmp_path / "base.jsonl"
    path.write_text(text)
    with pytest.raises(InvalidInputError, match=named):
        report.read(path, "--compare")
