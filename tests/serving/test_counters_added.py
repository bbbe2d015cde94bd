"""Counters of several processes: they add up, go through JSON exactly, and a sum is the counters of one service that did it all."""

import asyncio
import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipr_engine import AsyncEngine, Engine, InvalidInputError
from ipr_engine.serving import BatchingEngine, Counters, prometheus_text
from ipr_engine.serving.exposition import METRICS
from ipr_engine.serving.metrics import (
    CAUSES,
    EDGES_US,
    EVENTS,
    KINDS,
    STAGES,
    CacheCounts,
    Latency,
    RecordCounts,
    TaskCounts,
)
from tests.support.serving_encoders import PROMPTS, queued_engine

count = st.integers(0, 2**60)
label = st.tuples(
    st.none() | st.sampled_from(["a/b", 'q"uo\\te\n']),
    st.none() | st.just("a"),
    st.sampled_from(CAUSES),
    st.sampled_from(KINDS),
)
latency = st.builds(
    lambda at, number, total: Latency(tuple(number if place == at else 0 for place in range(len(EDGES_US) + 1)), total),
    st.integers(0, len(EDGES_US)),
    count,
    count,
)
counters = st.builds(
    Counters,
    decisions=st.dictionaries(label, count, max_size=4),
    events=st.fixed_dictionaries(dict.fromkeys(EVENTS, count)),
    stages=st.fixed_dictionaries(dict.fromkeys((*STAGES, "total"), latency)),
    batch_sizes=st.dictionaries(st.integers(1, 64), count, max_size=4),
    cache=st.builds(CacheCounts, count, count, count, count, count),
    records=st.builds(RecordCounts, count, count, count),
    tasks=st.builds(TaskCounts, count, count),
    bundles=st.dictionaries(st.sampled_from(["a" * 64, "b" * 64]), st.integers(1, 9)),
    **dict.fromkeys(("tokens", "padded_tokens", "queue_depth", "queue_limit", "in_forward", "swaps"), count),
)


@given(counters, counters, counters)
def test_a_sum_does_not_depend_on_the_order_and_nothing_changes_nothing(one, two, three):
    assert one + two == two + one
    assert (one + two) + three == Counters.sum([three, one, two])
    assert one + Counters.sum([]) == one
    assert (one + two).requests == one.requests + two.requests


@given(counters)
def test_json_carries_every_count_over_exactly(one):
    carried = Counters.from_json(json.loads(json.dumps(one.to_json(), allow_nan=False)))
    assert carried == one
    assert carried.to_json() == one.to_json()
    assert sorted(prometheus_text(carried).splitlines()) == sorted(prometheus_text(one).splitlines())
    for stage in one.stages:
        assert str(carried.stages[stage].quantile_us(0.99)) == str(one.stages[stage].quantile_us(0.99))


def ask(engine, prompts, lines):
    with BatchingEngine(engine, cache_entries=4, limits={"max_queue": 7}) as serving:
        to = serving.recorder(lines.append)
        for prompt in prompts:
            serving.route(prompt, tau=0.3)
            to.route(prompt, tau=0.3)
        for bad in ("", 7):
            with pytest.raises(InvalidInputError):
                serving.route(bad, tau=0.3)
        return serving.counters()


def test_a_sum_is_what_one_service_would_have_counted(bundles):
    parts = [ask(queued_engine(bundles[0])[0], prompts, []) for prompts in (PROMPTS[:3], PROMPTS[3:])]
    whole = ask(queued_engine(bundles[0])[0], PROMPTS, [])
    added = Counters.sum(Counters.from_json(json.loads(json.dumps(part.to_json()))) for part in parts)
    assert added.decisions == whole.decisions
    assert added.tokens == whole.tokens
    assert {name: stage.count for name, stage in added.stages.items()} == {
        name: stage.count for name, stage in whole.stages.items()
    }
    assert (added.records, added.events["invalid"]) == (whole.records, 2 * whole.events["invalid"])
    assert (added.queue_limit, added.cache.limit, added.cache.hits) == (14, 8, whole.cache.hits)
    assert (added.bundles, added.bundle_hash) == ({bundles[0].hash: 2}, bundles[0].hash)
    assert added.stages["total"].sum_ns == sum(part.stages["total"].sum_ns for part in parts)


def test_processes_on_several_bundles_have_none_in_common_and_the_exposition_tells_each(bundles):
    one, two, three = (ask(Engine(bundle), PROMPTS[:1], []) for bundle in (bundles[0], bundles[1], bundles[1]))
    both = one + two + three
    assert both.bundle_hash is None
    assert both.to_dict()["bundle"] is None
    assert both.to_dict()["bundles"] == {bundles[0].hash: 1, bundles[1].hash: 2}
    text = prometheus_text(both)
    assert f'ipr_serving_bundle{{bundle="{bundles[1].hash}"}} 2' in text
    assert "ipr_queue_limit 21" in text
    with pytest.raises(TypeError):
        one + 1


def test_what_is_no_snapshot_of_this_release_is_refused(bundles):
    document = ask(Engine(bundles[0]), PROMPTS[:1], []).to_json()
    for wrong in (
        None,
        [],
        {},
        {**document, "version": 1},
        {**document, "tokens": -1},
        {**document, "tokens": 1.0},
        {**document, "tokens": True},
        {**document, "decisions": [["a", "a", "no_cause", "uncalibrated", 1]]},
        {**document, "decisions": [["a", 1]]},
        {**document, "events": {**document["events"], "more": 1}},
        {**document, "events": {}},
        {**document, "stages": {**document["stages"], "queue": [1, 2]}},
        {**document, "cache": [1]},
        {**document, "batch_sizes": {"x": 1}},
        {name: value for name, value in document.items() if name != "swaps"},
        {**document, "more": 1},
    ):
        with pytest.raises(InvalidInputError, match=r"document: expected what Counters\.to_json gave"):
            Counters.from_json(wrong)
    assert Counters.from_json(document).requests == 4


def test_every_metric_has_a_help_line_before_its_type(bundles):
    for one in (Counters.sum([]), ask(Engine(bundles[0]), PROMPTS, [])):
        lines = prometheus_text(one, prefix="router").splitlines()
        for name, metric in METRICS.items():
            at = lines.index(f"# HELP router_{name} {metric.told}")
            assert lines[at + 1] == f"# TYPE router_{name} {metric.kind}"
            assert "\n" not in metric.told
        assert sum(line.startswith("# HELP") for line in lines) == len(METRICS)


def test_records_are_in_the_exposition_and_in_the_dictionary(bundles):
    made = ask(Engine(bundles[0]), PROMPTS, [])
    text = prometheus_text(made)
    assert f"ipr_records_total {len(PROMPTS)}\n" in text
    assert f"ipr_records_not_replayable_total {made.records.not_replayable}\n" in text
    assert 'ipr_unanswered_total{reason="record_failed"} 0\n' in text
    assert made.to_dict()["records"]["written"] == len(PROMPTS)
    failed = replace(made, events={**made.events, "record_failed": 3})
    assert failed.requests == made.requests + 3
    assert math.isnan(Counters.sum([]).routing_coverage)


def test_a_snapshot_of_tasks_adds_to_one_of_threads(bundles):
    async def main():
        async with AsyncEngine(Engine(bundles[0])) as serving:
            await serving.route("why", tau=0.3)
            return serving.counters()

    assert (asyncio.run(main()) + ask(Engine(bundles[0]), PROMPTS[:1], [])).decided == 3
