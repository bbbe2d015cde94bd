"""Tasks under many callers: the engine's own answers, inline, queued and kept; counted by whether the heads know them."""

from __future__ import annotations

import asyncio

import pytest

from ipr_engine import AsyncEngine, Engine, InvalidInputError
from ipr_engine.audit.record import Record
from ipr_engine.bundle import Bundle
from ipr_engine.serving import BatchingEngine
from ipr_engine.serving.exposition import prometheus_text
from ipr_engine.serving.metrics import Counters
from tests.support.decisions import same_row
from tests.support.serving_encoders import queued_engine
from tests.support.task_bundles import TASKS, make_task_bundle
from tests.support.two_tier_bundles import make_prompts

PROMPTS = make_prompts(9, "serving tasks")
ASKED = [*TASKS, None, "unheard of", None, "sql", "sql", TASKS[1]]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return Bundle.load(make_task_bundle(tmp_path_factory.mktemp("tasks")))


@pytest.mark.parametrize("queued", [False, True])
def test_each_prompt_is_decided_for_its_task(bundle, queued):
    engine = queued_engine(bundle)[0] if queued else Engine(bundle)
    expected = Engine(bundle).route_many(PROMPTS, tau=0.2, task=ASKED)

    async def run():
        async with AsyncEngine(engine) as serving:
            asked = [serving.route(p, tau=0.2, task=task) for p, task in zip(PROMPTS, ASKED, strict=True)]
            return await asyncio.gather(*asked), serving.counters()

    made, counters = asyncio.run(run())
    for decision, own in zip(made, expected, strict=True):
        assert same_row(decision, own)
        assert (decision.task, decision.task_known) == (own.task, own.task_known)
    assert counters.by_task == {"known": 6, "unknown": 1, "none": 2}


def test_counts_add_up_and_are_told_without_a_name(bundle):
    with BatchingEngine(Engine(bundle)) as serving:
        for prompt, task in zip(PROMPTS, ASKED, strict=True):
            serving.route(prompt, tau=0.2, task=task)
        counters = serving.counters()
    text = prometheus_text(Counters.from_json(counters.to_json()) + counters)
    for said, count in (("known", 12), ("unknown", 2), ("none", 4)):
        assert f'ipr_tasks_total{{task="{said}"}} {count}\n' in text
    assert "sql" not in text
    assert counters.to_dict()["tasks"] == counters.by_task


def test_a_kept_decision_is_one_of_its_task(bundle):
    with BatchingEngine(Engine(bundle), cache_entries=20) as serving:
        for _ in range(2):
            for task in (None, *TASKS, "unheard of"):
                kept = serving.route(PROMPTS[0], tau=0.2, task=task)
                assert same_row(kept, serving.engine.route(PROMPTS[0], tau=0.2, task=task))
                assert kept.task == task
        counts = serving.counters()
    assert (counts.cache.hits, counts.cache.misses) == (5, 5)
    assert counts.by_task == {"known": 6, "unknown": 2, "none": 2}


@pytest.mark.parametrize("queued", [False, True])
def test_what_is_no_task_is_refused_at_once(bundle, queued):
    engine = queued_engine(bundle)[0] if queued else Engine(bundle)
    with BatchingEngine(engine) as serving:
        with pytest.raises(InvalidInputError, match="task: expected"):
            serving.route(PROMPTS[0], tau=0.2, task="")
        assert serving.counters().events["invalid"] == 1


@pytest.mark.parametrize("queued", [False, True])
def test_records_tell_the_task(bundle, queued):
    engine = queued_engine(bundle)[0] if queued else Engine(bundle)
    lines: list[bytes] = []
    with BatchingEngine(engine) as serving, serving.recorder(lines.append, min_words=0) as recorder:
        for prompt, task in zip(PROMPTS, ASKED, strict=True):
            recorder.route(prompt, tau=0.2, task=task)
    told = [Record.from_line(line).task for line in lines]
    assert [None if task is None else task.name for task in told] == ASKED


def test_a_fallback_past_the_deadline_tells_the_task(bundle):
    engine, _ = queued_engine(bundle)
    for fallback, kind in ((Engine(bundle), "static"), (bundle.names[0], "candidate")):
        with BatchingEngine(engine, fallback=fallback) as serving:
            made = serving.route(PROMPTS[0], tau=0.2, task="sql", budget_us=0.001)
            assert (made.degraded, made.task, made.task_known) == (kind, "sql", True)
            assert serving.counters().by_task["known"] == 1
