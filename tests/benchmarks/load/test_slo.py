"""Objectives: read, judged by the whole interval, and a miss laid at the door of a stage."""

import numpy as np
import pytest

from benchmarks.load.attribution import attribute
from benchmarks.load.slo import duration_text, judge, parse_slos
from ipr_engine.errors import InvalidInputError


def test_objectives_are_read_from_commas_and_repeats():
    slos = parse_slos(["p99=5ms,p50=250us", "encode.p99.9=1.5s"])
    assert [(one.stage, one.level, one.limit_ns) for one in slos] == [
        ("total", 0.99, 5e6),
        ("total", 0.5, 250e3),
        ("encode", pytest.approx(0.999), 1.5e9),
    ]
    assert [str(one) for one in slos] == ["p99=5ms", "p50=250us", "encode.p99.9=1.5s"]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("p99", "expected \\[STAGE.\\]pQ=TIME"),
        ("99=5ms", "expected \\[STAGE.\\]pQ=TIME"),
        ("p99=5", "a time above 0 with its unit"),
        ("p99=0ms", "a time above 0 with its unit"),
        ("p99=-5ms", "a time above 0 with its unit"),
        ("p99=5min", "a time above 0 with its unit"),
        ("p100=5ms", "between p0 and p100"),
        ("p99=5ms,p99=6ms", "given twice"),
        ("p99=5ms,", "expected \\[STAGE.\\]pQ=TIME"),
    ],
)
def test_an_objective_that_is_none_is_refused(text, named):
    with pytest.raises(InvalidInputError, match=named):
        parse_slos([text])


@pytest.mark.parametrize(("limit", "verdict"), [("200us", "met"), ("50us", "missed"), ("99us", "cannot tell")])
def test_the_whole_interval_decides(limit, verdict, rng):
    values = rng.permutation(np.arange(1, 1001)) * 100  # p99 is 99.1 us
    [slo] = parse_slos([f"p99={limit}"])
    assert judge(slo, {"total": values}).verdict == verdict


def test_a_sample_too_small_for_the_quantile_is_no_verdict(rng):
    [slo] = parse_slos(["p99.9=1s"])
    found = judge(slo, {"total": rng.integers(1, 100, 200)})
    assert found.verdict == "cannot tell"
    assert "3,688" in str(found)
    assert "widen the run" in str(found)


def test_a_stage_that_is_not_reported_is_named_with_those_that_are():
    [slo] = parse_slos(["queue.p50=1ms"])
    with pytest.raises(InvalidInputError, match="no stage 'queue'; it reports total, encode"):
        judge(slo, {"total": np.ones(100, np.int64), "encode": np.ones(100, np.int64)})


def missed(parts, limit="5us"):
    total = sum(parts.values())
    [slo] = parse_slos([f"p99={limit}"])
    judgement = judge(slo, {"total": total})
    assert judgement.verdict == "missed"
    return judgement, total


def test_a_slow_tail_is_blamed_on_the_stage_that_grew(rng):
    steady = rng.integers(3000, 3100, 5000)
    bursts = np.where(rng.random(5000) < 0.03, 50_000, 100)
    judgement, total = missed({"queue": bursts, "service": steady})
    found = attribute(judgement, {"queue": bursts, "service": steady}, total)
    assert (found.stage, found.why) == ("queue", "tail")
    assert "to blame: queue" in str(found)


def test_where_even_the_median_misses_the_heaviest_stage_is_blamed(rng):
    parts = {"queue": rng.integers(100, 200, 5000), "encode": rng.integers(9000, 9100, 5000)}
    judgement, total = missed(parts)
    found = attribute(judgement, parts, total)
    assert (found.stage, found.why) == ("encode", "all")


def test_a_blamed_service_is_told_apart_by_a_pass_or_by_counters(rng):
    parts = {"queue": rng.integers(1, 2, 5000), "service": rng.integers(9000, 9100, 5000)}
    judgement, total = missed(parts)
    split = {"tokenize": rng.integers(1000, 1100, 500), "encode": rng.integers(7000, 7100, 500)}
    assert attribute(judgement, parts, total, split).stage == "encode"
    assert attribute(judgement, parts, total, None, {"total": 9.0, "inline": 8.0, "cache": 1.0}).stage == "inline"
    assert attribute(judgement, parts, total).stage == "service"


@pytest.mark.parametrize(
    ("ns", "text"), [(12, "12ns"), (1500, "1.5us"), (123_456, "123us"), (5e6, "5ms"), (1.25e9, "1.25s")]
)
def test_a_time_is_told_in_the_unit_that_suits(ns, text):
    assert duration_text(ns) == text
