"""Counters: every request is in exactly one count, every stage has its latency, and no prompt is in any of it."""

import asyncio
import contextlib
import json
import math
import re

import pytest

from ipr_engine import AsyncEngine, Engine, InvalidInputError
from ipr_engine._C import LatencyHistogram, Tally, clock_ns
from ipr_engine.errors import NotServingError
from ipr_engine.policy.calibrated import DriftEvidence
from ipr_engine.serving import BatchingEngine, prometheus_text
from ipr_engine.serving.metrics import EDGES_US, Latency
from tests.support.serving_encoders import PROMPTS, queued_engine

# -- histograms


def test_buckets_begin_at_a_microsecond_and_have_four_an_octave():
    assert EDGES_US[:6] == (1.0, 1.25, 1.5, 1.75, 2.0, 2.5)
    assert EDGES_US[-1] == 2.0**26
    assert list(EDGES_US) == sorted(set(EDGES_US))


@pytest.mark.parametrize("position", [0, 1, 2, 50, len(EDGES_US) - 1])
def test_a_latency_lies_in_the_bucket_that_its_edges_say(position):
    histogram = LatencyHistogram()
    edge_ns = round(EDGES_US[position] * 1000)
    histogram.add(edge_ns - 1)
    histogram.add(edge_ns, 3)
    counts = histogram.counts()
    assert (counts[position], counts[position + 1], sum(counts)) == (1, 3, 4)
    assert histogram.sum_ns() == 4 * edge_ns - 1
    histogram.clear()
    assert (sum(histogram.counts()), histogram.sum_ns()) == (0, 0)


def test_quantiles_are_at_most_a_quarter_too_high(rng):
    histogram = LatencyHistogram()
    seen = sorted(int(1000 * us) for us in rng.lognormal(3, 2, 1000) + 1)
    for ns in seen:
        histogram.add(ns)
    latency = Latency.of(histogram)
    for q in (0.01, 0.5, 0.9, 0.99, 1.0):
        exact = seen[math.ceil(q * 1000) - 1] / 1000
        assert exact <= latency.quantile_us(q) <= 1.25 * exact
    assert latency.mean_us == pytest.approx(sum(seen) / 1e6)


def test_snapshots_add_and_subtract():
    one, other = LatencyHistogram(), LatencyHistogram()
    assert math.isnan(Latency.of(one).quantile_us(0.5))
    assert math.isnan(Latency.of(one).mean_us)
    one.add(5000)
    other.add(2**40)
    both = Latency.of(one, other)
    assert (both.count, both.quantile_us(1.0)) == (2, math.inf)
    assert both.since(Latency.of(one)) == Latency.of(other)
    one.add(-7)  # a clock of another machine, say: no time at all
    assert one.counts()[0] == 1


def test_a_tally_counts_and_refuses_what_it_has_no_place_for():
    tally = Tally(3)
    tally.add(2)
    tally.add(0, 5)
    assert tally.counts() == [5, 0, 1]
    for position in (-1, 3):
        with pytest.raises(IndexError):
            tally.add(position)
    for wrong in ((), (1, 2, 3), ("x",)):
        with pytest.raises(TypeError):
            tally.add(*wrong)
    with pytest.raises(TypeError, match="DecideResult"):
        tally.add_decision("result", 0, 6, 4, 0)
    with pytest.raises(ValueError, match="size"):
        Tally(0)
    first = clock_ns()
    assert clock_ns() >= first


def test_a_tally_reads_the_row_of_a_result(bundles):
    decisions = Engine(bundles[0]).route_many(PROMPTS, tau=0.4)
    tally = Tally(6 * 5)
    for row in range(len(PROMPTS)):
        tally.add_decision(decisions.result, row, 5, 1, 0)
    expected = [0] * 30
    for index, cause in zip(decisions.index.tolist(), decisions.cause.tolist(), strict=True):
        expected[(index + 1) * 5 + cause] += 1
    assert tally.counts() == expected
    for arguments in ((len(PROMPTS), 5, 1, 0), (0, 1, 1, 0), (0, 5, 1, 1)):
        with pytest.raises(IndexError):
            tally.add_decision(decisions.result, *arguments)


# -- what is counted


@pytest.mark.parametrize("queued", [False, True])
def test_decisions_are_counted_by_model_family_cause_and_calibration(bundles, queued):
    engine = queued_engine(bundles[0])[0] if queued else Engine(bundles[0])
    with BatchingEngine(engine) as serving:
        expected = {}
        for terms in (
            {"tau": 0.0},
            {"tau": 0.5},
            {"tau": 1.0},
            {"tau": 0.1, "family": "beta"},
            {"tau": 0.0, "rule": "fixed"},
        ):
            for prompt in PROMPTS:
                one = serving.route(prompt, **terms)
                label = (one.model, one.model.split("/")[0], one.cause, one.calibration)
                expected[label] = expected.get(label, 0) + 1
        counters = serving.counters()
        assert counters.decisions == expected
        assert counters.decided == counters.requests == 5 * len(PROMPTS)
        assert set(counters.by_calibration) == {"uncalibrated"}
        assert counters.by_family["beta"] >= len(PROMPTS) == counters.by_cause["only_allowed"]
        assert counters.routing_coverage == 4 / 5
        assert sum(counters.by_model.values()) == counters.decided


def test_calibration_is_counted_as_the_decision_says_it(bundles, monkeypatch):
    engine = Engine(bundles[0])
    with BatchingEngine(engine) as serving:
        policy = serving.policy(tau=0.3)
        object.__setattr__(policy, "certificate", type(policy.certificate)("calibrated", "made up for the test"))
        serving.route("why", policy)
        engine.mark_stale(DriftEvidence(kind="stated", message="made up for the test"))
        serving.route("why", policy)
        assert serving.counters().by_calibration == {"calibrated": 1, "stale": 1}


def test_counts_of_one_candidate_in_several_bundles_are_one_count(bundles):
    engine = Engine(bundles[0])
    with BatchingEngine(engine) as serving:
        models = []
        for turn in range(9):
            engine.swap(bundles[turn % 3])  # siblings list the candidates in another order
            models += [serving.route(prompt, tau=0.5).model for prompt in PROMPTS]
        counters = serving.counters()
        assert counters.by_model == {model: models.count(model) for model in set(models)}
        assert counters.swaps == 8
        assert len(serving.service.board.tallies) == 3


def test_every_stage_of_a_queued_request_has_its_latency(bundles):
    engine, _ = queued_engine(bundles[0])

    async def main():
        async with AsyncEngine(engine, cache_entries=5) as serving:
            await asyncio.gather(*(serving.route(prompt, tau=0.3) for prompt in PROMPTS))
            await serving.route(PROMPTS[-1], tau=0.3)  # from the cache
            return serving.counters()

    counters = asyncio.run(main())
    stages = counters.stages
    asked = len(PROMPTS)
    assert {name: stage.count for name, stage in stages.items()} == {
        "inline": 0, "cache": 1, "queue": asked, "encode": asked, "decide": asked, "queued": asked, "total": asked + 1,
        "record": 0,
    }  # fmt: skip
    parts = sum(stages[name].sum_us for name in ("queue", "encode", "decide"))
    assert parts <= stages["queued"].sum_us
    assert sum(size * count for size, count in counters.batch_sizes.items()) == asked
    assert counters.padded_tokens >= counters.tokens > 0
    with pytest.raises(TypeError):
        stages["queue"] = None  # a snapshot does not change


def test_every_request_is_in_one_count(bundles):
    engine = Engine(bundles[0])
    serving = BatchingEngine(engine)
    asked = 0
    for step in (None, serving.start, serving.close):
        if step is not None:
            step()
        for prompt, terms in [("why", {"tau": 0.1}), ("", {"tau": 0.1}), ("why", {"tau": 3}), ("why", {})]:
            asked += 1
            with contextlib.suppress(InvalidInputError, NotServingError):
                serving.route(prompt, **terms)
    counters = serving.counters()
    assert counters.requests == asked
    assert {event: count for event, count in counters.events.items() if count} == {"invalid": 3, "not_serving": 8}


# -- as text


def test_the_snapshot_is_plain_json_and_holds_no_prompt(bundles):
    with BatchingEngine(Engine(bundles[0]), cache_entries=3) as serving:
        serving.route("explain the secret", tau=0.3)
        text = json.dumps(serving.counters().to_dict(), allow_nan=False)
        assert "secret" not in text + prometheus_text(serving.counters())
        assert json.loads(text)["stages"]["inline"]["count"] == 1


SAMPLE = re.compile(r'^ipr_[a-z_]+(\{[a-z]+="[^"\n]*"(,[a-z]+="[^"\n]*")*\})? -?[0-9.e+-]+$')


def test_the_exposition_is_well_formed_and_its_histograms_add_up(bundles):
    with BatchingEngine(queued_engine(bundles[0])[0]) as serving:
        for prompt in PROMPTS:
            serving.route(prompt, tau=0.3)
        lines = prometheus_text(serving.counters()).splitlines()
    types, helped = {}, None
    for line in lines:
        if line.startswith("# HELP "):
            _, _, helped, told = line.split(" ", 3)
            assert told.endswith(".")
        elif line.startswith("# TYPE "):
            name, kind = line.split()[2:]
            assert name not in types
            assert name == helped  # the line before says what it tells
            types[name] = kind
        else:
            assert SAMPLE.match(line), line
            name = re.split(r"[{ ]", line)[0]
            assert name in types or re.sub("_(bucket|sum|count)$", "", name) in types
    buckets = [int(line.split()[1]) for line in lines if line.startswith("ipr_decide_seconds_bucket")]
    assert buckets == sorted(buckets)
    assert buckets[-1] == len(PROMPTS)
    assert f"ipr_decide_seconds_count {len(PROMPTS)}" in lines
    assert 'ipr_decide_seconds_bucket{le="1e-06"} 0' in lines
    assert len([line for line in lines if "_decide_seconds_bucket" in line]) == 28
    assert sum(int(line.split()[-1]) for line in lines if line.startswith("ipr_decisions_total{")) == len(PROMPTS)


def test_labels_are_escaped(bundles):
    from dataclasses import replace

    with BatchingEngine(Engine(bundles[0])) as serving:
        odd = replace(serving.counters(), decisions={('a"b\\c\nd', "f", "failed", "uncalibrated"): 1})
    assert 'model="a\\"b\\\\c\\nd",family="f"' in prometheus_text(odd)
