"""The study of checks: a plan costs what it asks, is taken at no expected loss, its checks see no grade of their own; its page is whole."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ipr_engine import InvalidInputError
from ipr_engine.cli import main
from ipr_engine.measures.routing import SHARE, SHARES
from studies import check_cases, crossed
from studies.answer_checks import (
    abstentions,
    graded_abstention,
    known,
    read_abstention,
    read_off,
    scored,
    simulated,
    thresholds,
)
from studies.check_plans import Check, Plan, cross_fit, realised
from studies.checked_answers import SILENCE, SOURCE, agreement, read_checked_answers, shared_words
from studies.equal_cost import EqualCost, holm, two_sided
from studies.views import Views, text_features
from tests.support import skips
from tests.support.checked_answers import MODELS, made_answers, write_checked_source

pytest.importorskip("threadpoolctl", reason=skips.TRAIN)

AT = SHARES.index(SHARE)


def cost_at_98(answers, check):
    measured = EqualCost(answers.outcomes, answers.keys, draws=20)
    options = cross_fit(answers, check)
    return measured.costs(measured.curve(measured.choices(options.quality, options.cost), options.outcomes))[AT]


def test_a_plan_costs_both_calls_where_it_fires_and_the_check_everywhere():
    answers = made_answers(40)
    check = Check("made", (Plan(0, 1), Plan(0, 1, also=1)), lambda of, fit: np.zeros((of.rows, 2)), price=0.5)
    fires = np.zeros((40, 2))
    fires[:10] = 1
    real = realised(answers, check, fires)
    np.testing.assert_allclose(real.cost[:10, 2], 0.001 + 0.01 + 0.5)
    np.testing.assert_allclose(real.cost[10:, 2], 0.001 + 0.5)
    np.testing.assert_allclose(real.cost[10:, 3], 0.001 + 0.01 + 0.5)
    np.testing.assert_array_equal(real.quality[:10, 2], answers.quality[:10, 1])
    np.testing.assert_array_equal(real.quality[10:, 2], answers.quality[10:, 0])
    np.testing.assert_array_equal(real.quality[:, :2], answers.quality)


def test_an_abstention_is_escalated_or_believed():
    answers = made_answers(60)
    plans = abstentions(answers)
    assert [plan.unless for plan in plans] == [False, True]
    fires = graded_abstention(answers).fires(answers, np.ones(60, bool))
    np.testing.assert_array_equal(fires[:, 0], answers.abstained[:, 0])
    np.testing.assert_array_equal(fires[:, 1], 1 - answers.abstained[:, 0])


def test_a_check_that_tells_pays_and_one_that_tells_nothing_does_not():
    answers = made_answers(400)
    alone, told = cost_at_98(answers, None), cost_at_98(answers, graded_abstention(answers))
    assert told[0] < 0.8 * alone[0]
    blind = cost_at_98(answers, simulated(answers, 0.5, price=0.0))
    assert blind[0] > told[0] + 0.1
    priced = cost_at_98(answers, simulated(answers, 0.99, price=0.1))  # ten times the dear candidate
    assert priced[0] == pytest.approx(alone[0], abs=0.1)


def test_no_plan_is_chosen_at_an_expected_loss():
    answers = made_answers(200)
    options = cross_fit(answers, scored(answers))
    measured = EqualCost(answers.outcomes, answers.keys, draws=2)
    rows = np.arange(answers.rows)
    for worth, chosen in zip(measured.worths, measured.choices(options.quality, options.cost), strict=True):
        objective = options.cost - worth * options.quality
        assert (objective[rows, chosen] <= objective[:, :2].min(axis=1) + 1e-12).all()


def test_a_check_of_other_rows_does_not_see_their_grades():
    answers = made_answers(120)
    fit = np.arange(120) < 90
    targets = answers.quality[:, [0]]
    turned = targets.copy()
    turned[~fit] = 1 - turned[~fit]
    np.testing.assert_array_equal(read_off(answers, 0, targets, fit)[~fit], read_off(answers, 0, turned, fit)[~fit])


def test_checks_that_are_fitted_find_what_the_answers_show():
    answers = made_answers(300)
    fit = np.arange(300) < 240
    graded = graded_abstention(answers).fires(answers, fit)
    assert (read_abstention(answers).fires(answers, fit) == graded).mean() > 0.95
    fires = scored(answers).fires(answers, fit)
    for plan, column in zip(thresholds(answers), fires.T, strict=True):
        assert column[fit].mean() == pytest.approx(plan.share, abs=0.05)
    np.testing.assert_array_equal(known(answers).fires(answers, fit)[:, 0], 1 - answers.quality[:, 0])


def test_silence_costs_nothing_and_is_never_asked():
    answers = made_answers(50).valued(0.25).with_silence(0.25)
    assert answers.models[0] == SILENCE
    assert (answers.cost[:, 0] == 0).all()
    assert (answers.quality[:, 0] == 0.25).all()
    assert set(np.unique(answers.quality[answers.abstained > 0])) == {0.25}
    assert {(plan.first, plan.second) for plan in abstentions(answers)} == {(1, 2)}


def test_answers_agree_by_words_that_the_question_does_not_have():
    assert agreement("Who wrote Faust?", "Faust was written by Goethe", "Goethe") == 1.0
    assert agreement("Who wrote Faust?", "Schiller", "Goethe") == 0.0
    assert agreement("Who wrote Faust?", "Faust", "Goethe") == 0.0
    assert shared_words("the same words", "words, the others") == pytest.approx(2 / 3)
    assert shared_words("?", "words") == 0.0


def test_holm_steps_down_and_never_falls():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []
    draws = np.array([-1.0, *[-1.0] * 97, 0.5, 0.5, 0.5])
    assert two_sided(draws) == pytest.approx(2 * 4 / 101)
    assert two_sided(np.zeros(101)) == 1.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    pytest.importorskip("pyarrow", reason=skips.PYARROW)
    made = tmp_path_factory.mktemp("answers")
    return made, write_checked_source(made / SOURCE, 60)


def test_answers_are_read_as_recorded(folder):
    answers = read_checked_answers(folder[0] / SOURCE, lambda texts: np.array([[len(text)] for text in texts], float))
    assert answers.models == MODELS
    assert answers.rows == 60
    np.testing.assert_allclose(answers.cost[:, 0], 40 * (0.15 + 0.6) / 1e6)
    said = np.array([[text.startswith("sorry") for text in column] for column in answers.texts]).T
    np.testing.assert_array_equal(answers.abstained > 0, said)
    assert not answers.quality[said].any()
    assert answers.columns(MODELS[1:3]).texts == answers.texts[1:3]


def test_a_missing_answer_is_named(folder, tmp_path):
    from pyarrow import parquet

    (tmp_path / SOURCE).mkdir()
    for path in (folder[0] / SOURCE).iterdir():
        (tmp_path / SOURCE / path.name).write_bytes(path.read_bytes())
    responses = tmp_path / SOURCE / "responses.parquet"
    parquet.write_table(parquet.read_table(responses).slice(1), responses)
    with pytest.raises(InvalidInputError, match=r"lacks its grade or its tokens in responses\.parquet"):
        read_checked_answers(tmp_path / SOURCE, lambda texts: np.ones((len(texts), 1)))


def test_the_page_tells_every_check_beside_the_router_alone(folder, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib", reason=skips.EVAL)
    monkeypatch.setattr(check_cases, "ABSTENTIONS", (0.0, 0.25))
    monkeypatch.setattr(crossed, "ESTIMATOR", "plain")
    monkeypatch.setattr(Views, "see", lambda self, view, texts: text_features(texts))
    out = tmp_path / "out"
    arguments = ["study", "check_then_escalate", "--outcomes", str(folder[0]), "--out", str(out)]
    assert main([*arguments, "--draws", "20", "--source", SOURCE]) == 0
    assert (out / "check_then_escalate.png").stat().st_size > 10_000
    written = (out / "check_then_escalate.json").read_text()
    page = (out / "check_then_escalate.md").read_text()
    cases = {name: part for name, part in json.loads(written).items() if isinstance(part, dict) and "lines" in part}
    assert len(cases) == 6
    for part in cases.values():
        lines = part["lines"]
        assert all(0 < line["cost"]["0.98"]["value"] <= 1 for line in lines.values())
        assert lines["router alone"]["minus_alone"]["0.98"]["value"] == 0
        assert lines["router alone"]["p_holm"] is None
        assert 0 < lines["abstention, as graded"]["p_holm"] <= 1
    assert "bound: knows whether it is right" in page
    assert "ipr study check_then_escalate --outcomes DIR" in page
    assert not any(prompt in page + written for prompt in folder[1])
    assert str(tmp_path) not in page
