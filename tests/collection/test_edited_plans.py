"""A plan that is edited between runs: the tables are what the plan says now."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from ipr_engine.collection.collect import CollectOptions, collect
from ipr_engine.errors import InvalidInputError
from tests.support.collections import candidate, plan_for, questions

JUDGE = {"name": "judge", "model": "judging", "provider": "paid", "input_usd_per_1m": 1, "output_usd_per_1m": 1}


def outcomes(plan):
    return [json.loads(line) for line in (plan.out_folder / "outcomes.jsonl").read_text().splitlines()]


def test_answers_of_an_earlier_limit_are_in_no_table_where_the_money_ends_early(tmp_path, server):
    asked = questions(600, "Limit {}?")
    plan = plan_for(tmp_path, server.base_url)
    spent = collect(plan, asked).spent_usd
    longer = replace(plan, candidates=(candidate(max_tokens=17),), budget_usd=spent + 0.002)
    made = collect(longer, asked)
    assert made.done.budget_spent
    assert len(outcomes(plan)) == made.done.answered < 100


def test_answers_of_earlier_samples_are_no_outcome(tmp_path, server):
    plan = plan_for(tmp_path, server.base_url, samples=2)
    asked = questions(4, "Fewer {}?")
    collect(plan, asked)
    assert collect(replace(plan, samples=1), asked, CollectOptions(ask=False)).candidates["plain"].answers == 4


def test_a_candidate_that_lost_a_feature_has_no_answers_that_need_it(tmp_path, server):
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
    asked = [replace(one, body={**one.body, "tools": [tool]}) for one in questions(3, "Tools {}?")]
    plan = plan_for(tmp_path, server.base_url, candidate(features=["tools"]))
    assert collect(plan, asked).candidates["plain"].answers == 3
    assert collect(replace(plan, candidates=(candidate(),)), asked).candidates["plain"].answers == 0


def test_a_run_without_money_still_has_what_was_answered_before(tmp_path, server):
    asked = questions(300, "Poor {}?")
    plan = plan_for(tmp_path, server.base_url)
    collect(plan, asked)
    made = collect(replace(plan, budget_usd=0.0), asked)
    assert made.candidates["plain"].answers == 300


def test_a_judge_that_is_asked_otherwise_judges_anew(tmp_path, server):
    judged = {"kind": "judge", "judge": {**JUDGE, "max_tokens": 64}}
    asked = [replace(one, reference="4") for one in questions(6, "Judged {}?")]
    plan = plan_for(tmp_path, server.base_url, graders={"j": judged})
    assert collect(plan, asked).graders["j"].counts.graded == 6
    other = {**judged, "judge": {**judged["judge"], "parameters": {"temperature": 0.5}}}
    made = collect(replace(plan, graders={"j": other}), asked)
    assert made.done.answered == made.graders["j"].counts.graded == 6


def test_a_budget_beyond_what_the_ledger_holds_is_refused(tmp_path, server):
    with pytest.raises(InvalidInputError, match="budget_usd: expected USD, a number from 0 to 1e"):
        plan_for(tmp_path, server.base_url, budget_usd=1e12)


def test_a_price_without_measure_is_no_call(tmp_path, server):
    plan = plan_for(tmp_path, server.base_url, candidate(input_usd_per_1m=1e300))
    made = collect(plan, questions(2, "Dear {}?"))
    assert made.done.budget_spent
    assert made.spent_usd == 0
    assert not outcomes(plan)


def test_tables_of_another_format_are_not_left_beside_new_ones(tmp_path, server):
    plan = plan_for(tmp_path, server.base_url)
    collect(plan, questions(2, "Format {}?"))
    with pytest.raises(InvalidInputError, match=r"format: .*prompts.jsonl is there"):
        collect(replace(plan, format="csv"), questions(2, "Format {}?"))


def test_costs_of_the_tables_are_at_the_prices_of_the_plan_and_what_was_paid_stays(tmp_path, server):
    asked = questions(3, "Prices {}?")
    plan = plan_for(tmp_path, server.base_url)
    paid = collect(plan, asked)
    dearer = replace(plan, candidates=(candidate(input_usd_per_1m=10.0, output_usd_per_1m=20.0),))
    made = collect(dearer, asked)
    assert made.spent_usd == paid.spent_usd
    assert made.candidates["plain"].mean_cost_usd == pytest.approx(10 * paid.candidates["plain"].mean_cost_usd)


def test_candidates_that_share_a_call_are_told_each_its_own_price(tmp_path, server):
    cheap, dear = candidate("cheap", model="plain"), candidate("dear", model="plain", input_usd_per_1m=100.0)
    made = collect(plan_for(tmp_path, server.base_url, cheap, dear), questions(2, "Shared {}?"))
    assert made.done.answered == 2
    assert made.candidates["dear"].mean_cost_usd > 2 * made.candidates["cheap"].mean_cost_usd
