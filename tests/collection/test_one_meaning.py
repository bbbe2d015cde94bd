"""What a prompt or a log says of a name is of one candidate; what was bought once is not bought again however it is spelt."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from ipr_engine.collection.answers_file import write_answers
from ipr_engine.collection.collect import CollectOptions, collect
from ipr_engine.collection.provider import Provider
from ipr_engine.collection.question import LoggedAnswer
from ipr_engine.data import load_outcomes
from ipr_engine.errors import InvalidInputError
from tests.support.collections import FAST, candidate, plan_for, questions
from tests.support.skips import GRADE

COLD = candidate("plain-cold", model="plain", parameters={"temperature": 0})
JUDGE = {
    "name": "judge",
    "model": "judging",
    "provider": "paid",
    "input_usd_per_1m": 1,
    "output_usd_per_1m": 2,
    "max_tokens": 99,
}


def test_a_label_is_of_the_candidate_it_names_and_not_of_another_with_its_model(tmp_path, server):
    asked = [replace(one, labels={"plain": 0.5}) for one in questions(2, "Whose {}?")]
    plan = plan_for(tmp_path, server.base_url, candidate("plain"), COLD)
    collect(plan, asked)
    loaded = load_outcomes(plan.out_folder, models=["plain", "plain-cold"])
    assert loaded.quality[:, 0].tolist() == [0.5, 0.5]
    assert (loaded.quality[:, 1] != loaded.quality[:, 1]).all()


def test_a_logged_answer_is_of_the_candidate_it_names(tmp_path, server):
    asked = [replace(one, answers={"plain": LoggedAnswer(text="logged")}) for one in questions(2, "Log {}?")]
    plan = plan_for(tmp_path, server.base_url, candidate("plain"), COLD)
    assert collect(plan, asked).candidates["plain"].answers == 2
    assert collect(plan, asked).done.answered == 0


def test_a_model_names_its_candidate_where_it_is_the_only_one(tmp_path, server):
    asked = [replace(one, labels={"plain": 0.5}) for one in questions(1, "Model {}?")]
    plan = plan_for(tmp_path, server.base_url, COLD)
    collect(plan, asked)
    assert load_outcomes(plan.out_folder).quality[0, 0] == 0.5
    both = plan_for(tmp_path / "two", server.base_url, COLD, candidate("other", model="plain"))
    assert collect(both, asked).taken.strange_labels == {"plain": 1}


def test_a_logged_answer_with_tokens_is_priced(tmp_path, server):
    answer = LoggedAnswer(text="logged", input_tokens=1_000_000, output_tokens=1_000_000)
    plan = plan_for(tmp_path, server.base_url, candidate("plain"))
    collect(plan, [replace(one, answers={"plain": answer}) for one in questions(1, "Price {}?")])
    assert load_outcomes(plan.out_folder).cost_usd[0, 0] == pytest.approx(3.0)


def test_an_address_with_a_slash_more_is_the_same_provider(tmp_path, server):
    plan = plan_for(tmp_path, server.base_url)
    collect(plan, questions(3, "Slash {}?"))
    slashed = {"paid": Provider(base_url=f"{server.base_url}/", limits=FAST)}
    assert collect(replace(plan, providers=slashed), questions(3, "Slash {}?")).done.answered == 0


def test_what_a_filter_refused_in_a_200_without_usage_is_charged(tmp_path, server):
    plan = plan_for(tmp_path, server.base_url, candidate("refusing-silent"))
    assert collect(plan, questions(2, "Refused {}?")).spent_usd > 0
    free = plan_for(tmp_path / "free", server.base_url, candidate("filtered"))
    assert collect(free, questions(2, "Refused {}?")).spent_usd == 0


@pytest.mark.parametrize("name", ["service_tier", "fallbacks", "extra_body"])
def test_a_field_that_makes_a_call_dearer_cannot_stand_in_a_plan(tmp_path, server, name):
    with pytest.raises(InvalidInputError, match=rf"parameters.{name}: cannot stand here: a call may then cost"):
        plan_for(tmp_path, server.base_url, candidate("plain", parameters={name: "x"}))


def test_prompts_of_a_folder_that_holds_the_tables_are_refused(tmp_path, server):
    with pytest.raises(InvalidInputError, match="out: lies in"):
        plan_for(tmp_path, server.base_url, prompts=".")


def test_judges_keep_up_with_what_is_bought(tmp_path, server):
    pytest.importorskip("regex", reason=GRADE)
    graders = {"judged": {"kind": "judge", "rubric": "correctness", "judge": JUDGE}}
    plan = plan_for(tmp_path, server.base_url, candidate("plain"), graders=graders, budget_usd=0.04)
    asked = [replace(one, reference="5") for one in questions(900, "Keep up {}?")]
    made = collect(plan, asked)
    assert made.done.budget_spent
    assert made.candidates["plain"].answers < 900
    assert made.candidates["plain"].outcomes >= 256


def test_a_pairwise_judge_compares_nobody_with_itself(tmp_path, server):
    pytest.importorskip("regex", reason=GRADE)
    graders = {"judged": {"kind": "judge", "mode": "pairwise", "baseline": "plain", "judge": JUDGE}}
    plan = plan_for(tmp_path, server.base_url, candidate("plain"), candidate("slow-0"), graders=graders)
    asked = questions(3, "Pair {}?")
    dry = collect(plan, asked, CollectOptions(dry_run=True))
    assert dry.estimates["judge"].calls == 6
    collect(plan, asked)
    assert load_outcomes(plan.out_folder, models=["plain"]).quality[:, 0].tolist() == [0.5] * 3
    assert collect(plan, asked, CollectOptions(dry_run=True)).estimates["judge"].calls == 0


def test_answers_stand_beside_the_quality_of_the_grader_that_the_plan_has_now(tmp_path, server):
    pytest.importorskip("regex", reason=GRADE)
    asked = [replace(one, reference="answer") for one in questions(2, "Now {}?")]
    plan = plan_for(tmp_path, server.base_url, graders={"right": {"kind": "contains"}})
    collect(plan, asked)
    exact = replace(plan, graders={"right": {"kind": "exact"}})
    made = collect(exact, asked, CollectOptions(ask=False))
    write_answers(exact, made.filed, tmp_path / "answers.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert [row["quality"] for row in rows] == [0.0, 0.0]
