"""Many prompts are drawn in groups: the same value, intervals of the same width, and running sums to the same places."""

import numpy as np
import pytest

from ipr_engine.evaluation.prediction_lines import apgr, pair_curve
from ipr_engine.measures import resampling
from ipr_engine.measures.resampling import Resamples, drawn_questions, estimate
from ipr_engine.measures.routing import WeightedOutcomes, sweep_curve

ROWS, GROUPS = 6000, 1000


def grouped(monkeypatch, make):
    monkeypatch.setattr(resampling, "MOST_APART", GROUPS)
    return make()


def test_groups_have_the_value_of_the_sample_and_intervals_as_wide(monkeypatch, rng):
    values = np.stack([rng.random(ROWS) < 0.3, rng.exponential(size=ROWS)], axis=1).astype(float)
    apart = Resamples(ROWS, draws=1500, seed=3).means(values)
    together = grouped(monkeypatch, lambda: Resamples(ROWS, draws=1500, seed=3).means(values))
    for column in range(2):
        one, other = estimate(apart[:, column]), estimate(together[:, column])
        assert other.value == pytest.approx(values[:, column].mean(), rel=1e-12)
        assert other.high - other.low == pytest.approx(one.high - one.low, rel=0.12)
        assert abs(other.low - one.low) < 0.15 * (one.high - one.low)


def test_groups_differ_by_one_prompt_at_most_and_resamples_count_what_is_in_them(monkeypatch):
    made = grouped(monkeypatch, lambda: Resamples(GROUPS + 7, draws=20))
    assert made.counts.shape == (21, GROUPS)
    assert made.totals[0] == GROUPS + 7
    np.testing.assert_allclose(made.sums(np.ones(GROUPS + 7)), made.totals)
    np.testing.assert_allclose(made.means(np.full((GROUPS + 7, 2), 0.5)), 0.5)


@pytest.mark.parametrize("questions", [GROUPS // 2, 3 * GROUPS])
def test_many_questions_are_drawn_whole(monkeypatch, rng, questions):
    """Fewer questions than groups are drawn each by itself, more are dealt into groups; an interval is as wide as one by one."""
    question = rng.integers(questions, size=ROWS)
    keys, values = [f"question {q}" for q in question], rng.random(questions)[question]
    apart = Resamples.of_questions(keys, draws=1500, seed=3).means(values)
    made = grouped(monkeypatch, lambda: Resamples.of_questions(keys, draws=1500, seed=3))
    assert made.counts.shape[1] == min(questions, GROUPS)
    np.testing.assert_allclose(made.sums(np.ones(ROWS)), made.totals)
    one, other = estimate(apart), estimate(made.means(values))
    assert other.value == pytest.approx(values.mean(), rel=1e-12)
    assert other.high - other.low == pytest.approx(one.high - one.low, rel=0.12)
    by_prompt = estimate(Resamples(ROWS, draws=1500, seed=3).means(values))
    assert other.high - other.low > 1.1 * (by_prompt.high - by_prompt.low)


def test_weights_count_in_groups(monkeypatch, rng):
    values, weights = rng.random((ROWS, 2)), rng.random((ROWS, 2))
    made = grouped(monkeypatch, lambda: Resamples(ROWS, draws=3).means(values, weights))
    np.testing.assert_allclose(made[0], (values * weights).sum(axis=0) / weights.sum(axis=0))


def test_running_sums_end_at_the_whole(monkeypatch, rng):
    values, order = rng.random(ROWS), rng.permutation(ROWS)
    ends = np.array([0, 99, 2500, ROWS - 1])
    apart = Resamples(ROWS, draws=0).running(values, order, ends)
    monkeypatch.setattr(resampling, "MOST_APART", GROUPS)
    made = Resamples(ROWS, draws=5)
    running = made.running(values, order, ends)
    np.testing.assert_allclose(running[:1], apart)
    np.testing.assert_allclose(running[:, -1], made.sums(values))
    assert len(made.steps(np.arange(ROWS))) == resampling.MOST_STEPS
    assert made.steps(np.arange(ROWS))[-1] == ROWS - 1


def test_a_pair_curve_in_steps_has_the_same_area(monkeypatch, rng):
    score = rng.random(ROWS)
    weak, strong = (rng.random(ROWS) < 0.4).astype(float), (rng.random(ROWS) < 0.4 + 0.4 * score).astype(float)
    apart = apgr(*pair_curve(score, weak, strong, Resamples(ROWS, draws=0)))
    together = grouped(monkeypatch, lambda: apgr(*pair_curve(score, weak, strong, Resamples(ROWS, draws=200))))
    assert together[0] == pytest.approx(apart[0], abs=1e-3)
    assert np.isfinite(together).all()


def test_a_sweep_in_parts_is_the_sweep(monkeypatch, rng):
    from ipr_engine.measures import routing

    outcomes = WeightedOutcomes.complete(rng.random((50, 4)), rng.random((50, 4)))
    choices, once = rng.integers(4, size=(30, 50)), Resamples(50, draws=7)
    whole = sweep_curve(choices, outcomes, once)
    monkeypatch.setattr(routing, "MOST_PICKED", 100)
    parts = sweep_curve(choices, outcomes, once)
    np.testing.assert_allclose(parts.cost, whole.cost, rtol=1e-12)
    np.testing.assert_allclose(parts.quality, whole.quality, rtol=1e-12)


def test_whole_questions_are_drawn():
    keys = [f"k{i // 3}" for i in range(300)]
    drawn = drawn_questions(keys, 100, seed=1)
    assert drawn.sum() == 99
    assert all(len({bool(d) for d in drawn[3 * q : 3 * q + 3]}) == 1 for q in range(100))
    assert (drawn != drawn_questions(keys, 100, seed=2)).any()
    assert drawn_questions(["a"] * 5, 2, seed=0).all()  # one question at least
