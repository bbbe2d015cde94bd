"""A plan that buys a part of its table asks whole rows first, then the candidates that a router would choose."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from ipr_engine.collection.acquisition_plan import AcquisitionPlan
from ipr_engine.collection.collect import collect
from ipr_engine.collection.question import Question
from ipr_engine.data import load_outcomes
from ipr_engine.errors import IprError
from tests.support.collections import candidate, plan_for
from tests.support.skips import GRADE, TRAIN

pytest.importorskip("regex", reason=GRADE)
pytest.importorskip("threadpoolctl", reason=TRAIN)

PART = AcquisitionPlan(first_share=0.3, rounds=3, calls_share=0.6)


def adding(count, text):
    draw = random.Random(11)
    made = []
    for n in range(count):
        a, b = draw.randrange(10 ** draw.randint(1, 6)), draw.randrange(100)
        asked = f"{text} {a} and {b}."
        made.append(
            Question(
                prompt_id=f"a{n:04d}",
                prompt=asked,
                body={"messages": [{"role": "user", "content": asked}]},
                reference=str(a + b),
            )
        )
    return made


def part_plan(folder, server, **more):
    # dear and weak is never worth asking
    weak = candidate("weak", model="adding-0", input_usd_per_1m=50, output_usd_per_1m=50)
    others = candidate("adding-9", input_usd_per_1m=10, output_usd_per_1m=10), candidate("adding-2")
    return plan_for(
        folder, server.base_url, weak, *others, graders={"right": {"kind": "numeric"}}, acquisition=PART, **more
    )


def test_a_part_of_the_table_is_bought_and_the_weak_are_asked_least(tmp_path, server):
    asked = adding(160, "Add")
    plan = part_plan(tmp_path, server)
    made = collect(plan, asked)
    answers = {name: one.answers for name, one in made.candidates.items()}
    assert sum(answers.values()) <= 0.6 * 3 * 160
    assert 40 <= answers["weak"] < min(answers["adding-9"], answers["adding-2"])
    quality = load_outcomes(plan.out_folder).quality
    assert (~np.isnan(quality)).sum() == sum(answers.values())


def test_an_interrupted_part_goes_on_as_one_that_was_not(tmp_path, server):
    asked = adding(120, "Please add")
    whole = part_plan(tmp_path / "whole", server)
    collect(whole, asked)
    stopped = part_plan(tmp_path / "stopped", server)

    def stop(done, budget):
        if done.answered >= 70:
            raise IprError("stop")

    for _ in range(2):
        with pytest.raises(IprError, match="stop"):
            collect(stopped, asked, tell=stop)
    collect(stopped, asked)
    for table in ("prompts.jsonl", "outcomes.jsonl"):
        assert (whole.out_folder / table).read_text() == (stopped.out_folder / table).read_text()


def test_the_same_plan_without_acquisition_buys_the_rest(tmp_path, server):
    asked = adding(80, "Now add")
    plan = part_plan(tmp_path, server)
    some = collect(plan, asked)
    rest = collect(replace(plan, acquisition=None), asked)
    assert some.done.answered + rest.done.answered == 240


def test_a_raised_budget_goes_on_buying(tmp_path, server):
    asked = adding(100, "Raise")
    plan = part_plan(tmp_path, server, budget_usd=0.03)
    first = collect(plan, asked)
    more = collect(replace(plan, budget_usd=1.0), asked)
    assert first.done.answered > 0
    assert more.done.answered > 0


def test_cells_that_cannot_be_asked_are_not_bought(tmp_path, server):
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
    asked = [replace(one, body={**one.body, "tools": [tool]}) for one in adding(60, "Look up")]
    plan = part_plan(tmp_path, server)
    able = [{**one, "features": ["tools"]} if one["name"] == "adding-9" else one for one in plan.candidates]
    made = collect(replace(plan, candidates=tuple(able)), asked)
    assert 20 <= made.candidates["adding-9"].answers <= 36
    assert made.candidates["weak"].answers == 0


def test_a_candidate_that_was_stopped_stays_stopped_in_later_rounds(tmp_path, server):
    plan = part_plan(tmp_path, server)
    locked = tuple({**one, "model": "locked"} if one["name"] == "weak" else one for one in plan.candidates)
    made = collect(replace(plan, candidates=locked), adding(80, "Locked"))
    assert made.done.failed <= 8  # those that were in flight
