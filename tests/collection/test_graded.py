"""Answers are graded by the graders of the plan, once each; judges are asked within the same cap."""

from __future__ import annotations

import json
import random
import sqlite3
from dataclasses import replace

import numpy as np
import pytest

from ipr_engine.collection.collect import CollectOptions, collect
from ipr_engine.collection.ledger import LEDGER
from ipr_engine.collection.question import Question
from ipr_engine.data import load_outcomes
from ipr_engine.data.repeated_scores import read_repeated_scores
from ipr_engine.errors import InvalidInputError
from ipr_engine.grading.label_noise import label_noise
from tests.support.collections import candidate, plan_for
from tests.support.skips import GRADE

pytest.importorskip("regex", reason=GRADE)
pytest.importorskip("sklearn", reason=GRADE)

JUDGE = {
    "name": "judge",
    "model": "judging",
    "provider": "paid",
    "input_usd_per_1m": 1,
    "output_usd_per_1m": 2,
    "max_tokens": 99,
}
BY_JUDGE = {"judged": {"kind": "judge", "rubric": "correctness", "judge": JUDGE}}


def sums(count, text="What is {} + {}?"):
    draw = random.Random(3)
    made = []
    for n in range(count):
        a, b = draw.randrange(10 ** draw.randint(1, 4)), draw.randrange(10)
        asked = f"{text.format(a, b)} ({n})"
        made.append(
            Question(
                prompt_id=f"s{n:04d}",
                prompt=asked,
                body={"messages": [{"role": "user", "content": asked.rpartition(" (")[0]}]},
                reference=str(a + b),
            )
        )
    return made


def right(questions, digits):
    numbers = [[int(word.strip("?")) for word in one.prompt.split() if word.strip("?").isdigit()] for one in questions]
    return [float(all(len(str(number)) <= digits for number in pair)) for pair in numbers]


def test_a_verifier_s_grades_are_the_outcomes(tmp_path, server):
    asked = sums(40)
    plan = plan_for(
        tmp_path, server.base_url, candidate("adding-2"), candidate("adding-9"), graders={"right": {"kind": "numeric"}}
    )
    made = collect(plan, asked)
    loaded = load_outcomes(plan.out_folder)
    assert loaded.quality[:, 0].tolist() == right(asked, 2)
    assert loaded.quality[:, 1].tolist() == [1.0] * 40
    assert made.graders["right"].counts.graded == 80
    assert 0 < made.candidates["adding-2"].mean_quality < 1


def test_grades_are_made_once_and_anew_where_the_grader_or_the_reference_changes(tmp_path, server):
    asked = sums(10, "Once {} + {}?")
    plan = plan_for(tmp_path, server.base_url, candidate("adding-9"), graders={"right": {"kind": "numeric"}})
    assert collect(plan, asked).graders["right"].counts.graded == 10
    assert collect(plan, asked).graders["right"].counts.graded == 0
    other = replace(plan, graders={"right": {"kind": "contains"}})
    assert collect(other, asked, CollectOptions(ask=False)).graders["right"].counts.graded == 10
    asked[0] = replace(asked[0], reference="-1")
    again = collect(plan, asked, CollectOptions(ask=False))
    assert again.graders["right"].counts.graded == 1
    assert load_outcomes(plan.out_folder).quality[0, 0] == 0.0


def test_a_prompt_s_own_grader_grades_it(tmp_path, server):
    asked = sums(4, "Own {} + {}?")
    asked[1] = replace(asked[1], grader="is_text")
    graders = {"right": {"kind": "numeric"}, "is_text": {"kind": "regex", "pattern": "answer"}}
    plan = plan_for(tmp_path, server.base_url, candidate("adding-0"), graders=graders)
    collect(plan, asked)
    assert load_outcomes(plan.out_folder).quality[:, 0].tolist() == [0.0, 1.0, 0.0, 0.0]


def test_cut_answers_have_no_outcome_unless_the_plan_grades_them(tmp_path, server):
    asked = [replace(one, reference="x") for one in sums(3, "Cut {} + {}?")]
    plan = plan_for(tmp_path, server.base_url, candidate("cut"), graders={"right": {"kind": "contains"}})
    assert collect(plan, asked).candidates["cut"].outcomes == 0
    assert collect(replace(plan, truncated="graded"), asked).candidates["cut"].outcomes == 3


def test_a_judge_is_asked_once_and_paid_within_the_cap(tmp_path, server):
    asked = sums(12, "Judge {} + {}?")
    plan = plan_for(tmp_path, server.base_url, candidate("adding-2"), graders=BY_JUDGE)
    made = collect(plan, asked)
    assert load_outcomes(plan.out_folder).quality[:, 0].tolist() == right(asked, 2)
    with sqlite3.connect(plan.out_folder / LEDGER) as ledger:
        spent = dict(ledger.execute("SELECT candidate, nanousd FROM spent").fetchall())
    assert set(spent) == {"adding-2", "judge"}
    assert made.spent_usd == pytest.approx(sum(spent.values()) / 1e9)
    before = server.calls()
    collect(plan, asked)
    assert server.calls() == before


def test_a_judge_whose_cap_is_spent_leaves_the_rest_ungraded(tmp_path, server):
    graders = {"judged": {**BY_JUDGE["judged"], "judge": {**JUDGE, "budget_usd": 0.003}}}
    plan = plan_for(tmp_path, server.base_url, candidate("adding-9"), graders=graders)
    made = collect(plan, sums(30, "Few {} + {}?"))
    assert made.done.stopped == {"judge": "its budget_usd is spent"}
    graded = made.graders["judged"].counts
    assert 0 < graded.graded < 30
    assert sum(graded.reasons.values()) == 30 - graded.graded


def test_raw_scores_become_qualities_by_labels(tmp_path, server):
    asked = sums(120, "Label {} + {}?")
    good = right(asked, 2)
    labelled = [
        replace(one, labels={"adding-2": label}, question_key=one.prompt_id) if n % 2 else one
        for n, (one, label) in enumerate(zip(asked, good, strict=True))
    ]
    plan = plan_for(tmp_path, server.base_url, candidate("adding-2"), graders={"near": {"kind": "overlap"}})
    collect(plan, asked)  # no labels: no qualities
    assert load_outcomes(plan.out_folder).coverage(["quality"])["adding-2"] == 0
    made = collect(plan, labelled)
    report = made.graders["near"].calibration.report
    assert report.rows == 60
    written = json.loads((plan.out_folder / "grader-near.json").read_text())
    assert written["report"]["rows"] == 60
    assert load_outcomes(plan.out_folder).coverage(["quality"])["adding-2"] == 1


@pytest.mark.parametrize(
    ("graders", "told"),
    [
        ({"right": {}}, r"graders.right.kind: expected one of exact"),
        ({"right": {"kind": "numeric", "tolerance": -1}}, r"graders.right.tolerance"),
        ({"right": {"kind": "numeric", "tolerence": 1}}, r"graders.right.tolerence: is no key here"),
        ({"right": {"kind": "numeric", "judge": JUDGE}}, r"graders.right.judge: is of graders of the kind judge"),
        ({"j": {"kind": "judge"}}, r"graders.j.judge: expected who is asked"),
        (
            {"j": {"kind": "judge", "judge": {**JUDGE, "name": "plain"}}},
            r"graders.j.judge.name: a candidate is called so",
        ),
        ({"j": {"kind": "judge", "judge": {**JUDGE, "max_tokens": 0}}}, r"graders.j.judge.max_tokens"),
        ({"j": {"kind": "judge", "mode": "pairwise", "judge": JUDGE}}, r"graders.j.baseline: expected the candidate"),
        ({"a": BY_JUDGE["judged"], "b": BY_JUDGE["judged"]}, r"graders: expected a name of its own for each judge"),
    ],
)
def test_a_wrong_grader_is_told_by_its_key(tmp_path, server, graders, told):
    with pytest.raises(InvalidInputError, match=told):
        plan_for(tmp_path, server.base_url, graders=graders)


def test_repeated_samples_are_kept_and_their_luck_is_told(tmp_path, server):
    asked = sums(60, "Luck {} + {}?")
    plan = plan_for(
        tmp_path,
        server.base_url,
        candidate("lucky-70"),
        candidate("lucky-40"),
        graders={"right": {"kind": "numeric"}},
        samples=3,
    )
    made = collect(plan, asked)
    repeated = read_repeated_scores(plan.out_folder)
    assert repeated.scores.shape == (60, 2, 3)
    assert not np.isnan(repeated.scores).any()
    np.testing.assert_allclose(repeated.scores.mean(axis=2), load_outcomes(plan.out_folder).quality)
    found = label_noise(repeated.scores)
    assert made.noise is not None
    assert made.noise.to_json() == pytest.approx(found.to_json())
    assert found.within == pytest.approx((0.7 * 0.3 + 0.4 * 0.6) / 2, abs=0.06)  # of a coin
    assert collect(replace(plan, samples=1), asked).noise is None
    assert not (plan.out_folder / "samples.jsonl").exists()


def test_a_label_is_no_sample(tmp_path, server):
    asked = [replace(one, labels={"lucky-50": 1.0}) for one in sums(4, "Said {} + {}?")]
    graders = {"right": {"kind": "numeric"}}
    plan = plan_for(tmp_path, server.base_url, candidate("lucky-50"), graders=graders, samples=2)
    assert collect(plan, asked).noise is None
    assert (plan.out_folder / "samples.jsonl").read_text() == ""
