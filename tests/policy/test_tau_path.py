"""tau's path: what holds of it for any predictions, and that it keeps what it promises where predictions are right."""

from __future__ import annotations

import numpy as np
import pytest

from ipr_engine.measures.sweeps import choose
from ipr_engine.policy.tau_path import KNOTS, TauPath, break_points
from tests.support.seeds import seeded

TAUS = np.linspace(0.02, 0.98, 49)


def made(*seed: object, rows: int = 400, models: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Qualities that are right, outcomes drawn from them, costs by prompt: the dearer the better, each prompt in its own way."""
    rng = seeded("tau path", rows, models, *seed)
    quality = np.clip(np.linspace(0.35, 0.8, models) + 0.25 * rng.standard_normal((rows, models)), 0.01, 0.99)
    cost = 1e-4 * np.geomspace(1, 30, models) * rng.uniform(0.5, 2.0, (rows, 1)) * rng.uniform(0.9, 1.1, (rows, models))
    return quality, (rng.random(quality.shape) < quality).astype(float), cost


def fitted(quality: np.ndarray, outcome: np.ndarray, cost: np.ndarray) -> TauPath:
    return TauPath.fit(quality, outcome, cost, np.arange(quality.shape[1]))


def taken(quality: np.ndarray, cost: np.ndarray, worth: float) -> np.ndarray:
    return choose(quality, cost, tau=1.0, worth=worth)


@pytest.mark.parametrize("models", [2, 3, 7])
@pytest.mark.parametrize("rows", [1, 2, 53, 400])
def test_worth_and_the_cost_of_every_prompt_never_rise_with_tau(models: int, rows: int) -> None:
    quality, outcome, cost = made("monotone", rows=rows, models=models)
    path = fitted(quality, outcome, cost)
    worths = [path.worth_at(path.promise(tau)) for tau in TAUS]
    if path.best_quality > path.cheapest_quality:
        assert (np.diff(worths) <= 0).all()
        paid = np.stack([cost[np.arange(rows), taken(quality, cost, worth)] for worth in worths])
        assert (np.diff(paid, axis=0) <= 0).all()
    assert (np.diff(path.level) > 0).all()
    assert (np.diff(path.log_worth) > 0).all()
    assert (np.diff(path.worth) > 0).all()
    assert (np.diff(path.cost_usd) >= -1e-18).all()
    assert len(path.worth) <= KNOTS


@pytest.mark.parametrize("models", [2, 3, 5])
def test_path_says_what_is_chosen_at_its_worths(models: int) -> None:
    quality, outcome, cost = made("choices", models=models)
    path = fitted(quality, outcome, cost)
    for knot in (0, len(path.worth) // 2, len(path.worth) - 1):
        chosen = taken(quality, cost, path.worth[knot] * (1 + 1e-12))  # a move belongs to its own break point
        assert path.cost_usd[knot] == pytest.approx(cost[np.arange(len(cost)), chosen].mean(), rel=1e-9)
        np.testing.assert_allclose(path.shares[knot], np.bincount(chosen, minlength=models) / len(cost), atol=1e-12)
    highest = quality.argmax(axis=1)
    assert path.dearest_choice_usd == pytest.approx(cost[np.arange(len(cost)), highest].mean())
    assert path.cheapest_choice_usd == pytest.approx(cost.min(axis=1).mean())


@pytest.mark.parametrize("models", [2, 3, 6])
def test_promises_are_kept_on_other_prompts_where_predictions_are_right(models: int) -> None:
    quality, _, cost = made("kept, fitting", rows=4000, models=models)
    path = fitted(quality, quality, cost)  # outcomes as predicted: no noise but the draw of the prompts
    other, _, price = made("kept, others", rows=4000, models=models)
    best, cheapest = other[:, path.best].mean(), other[:, path.cheapest].mean()
    slack = 4 * quality.std(axis=0).max() * np.sqrt(2 / 4000)  # four standard errors of a difference of two means
    for tau in (0.1, 0.3, 0.5, 0.7, 0.9):
        chosen = taken(other, price, path.worth_at(path.promise(tau)))
        kept = other[np.arange(len(other)), chosen].mean()
        assert path.level[0] - slack < path.promise(tau) < path.level[-1]
        assert abs(kept - ((1 - tau) * best + tau * cheapest)) < slack


def test_share_of_the_cheap_one_moves_with_tau_for_two_candidates() -> None:
    quality, outcome, cost = made("two", rows=2000, models=2)
    path = fitted(quality, outcome, cost)
    worths = [np.inf, *(path.worth_at(path.promise(tau)) for tau in (0.1, 0.2, 0.3, 0.5, 0.7, 0.9)), 0.0]
    chosen = [quality.argmax(axis=1) if np.isinf(w) else taken(quality, cost, w) for w in worths]
    shares = [(choice == path.cheapest).mean() for choice in chosen]
    assert len(set(np.round(shares, 3))) >= 6
    assert (np.diff(shares) >= 0).all()


def test_cheap_end_has_knots_where_many_moves_cost_next_to_nothing() -> None:
    """Three cheap candidates share a hundredth of the cost range and most of the quality range."""
    rng = seeded("cheap end")
    level, price = np.array([0.1, 0.4, 0.6, 0.7]), np.array([1.0, 2.0, 4.0, 400.0])
    quality = np.clip(level + 0.15 * rng.standard_normal((3000, 4)), 0.01, 0.99)
    path = fitted(quality, quality, np.tile(1e-6 * price, (3000, 1)))
    kept = quality[np.arange(3000), taken(quality, np.tile(1e-6 * price, (3000, 1)), path.worth_at(path.promise(0.9)))]
    assert kept.mean() == pytest.approx(path.promise(0.9), abs=0.01)


def test_missing_outcomes_count_as_predicted() -> None:
    quality, outcome, cost = made("missing")
    gone = seeded("gone").random(outcome.shape) < 0.3
    holed, filled = np.where(gone, np.nan, outcome), np.where(gone, quality, outcome)
    one, other = fitted(quality, holed, cost), fitted(quality, filled, cost)
    np.testing.assert_array_equal(one.level, other.level)
    assert (one.best_quality, one.cheapest_quality) == (other.best_quality, other.cheapest_quality)


def test_one_candidate_never_moves() -> None:
    quality, outcome, cost = made("one", models=1)
    path = fitted(quality, outcome, cost)
    assert path.best == path.cheapest == 0
    assert path.standard_error == 0
    assert not len(path.worth)
    assert not len(path.level)
    assert path.shares.shape == (0, 1)
    assert path.worth_at(path.promise(0.5)) == 0.0
    assert path.dearest_choice_usd == path.cheapest_choice_usd == pytest.approx(cost.mean())


def test_cheapest_that_is_also_the_best() -> None:
    quality, outcome, cost = made("reversed", models=3)
    path = fitted(quality, outcome, cost[:, ::-1])
    assert path.best == path.cheapest == 2
    assert path.promise(0.1) == path.promise(0.9)


def test_heads_that_never_prefer_the_dearer_one_make_no_move() -> None:
    quality, outcome, cost = made("blind", models=2)
    path = fitted(np.tile([0.6, 0.5], (len(quality), 1)), outcome, cost)
    assert not len(path.worth)
    assert path.worth_at(path.promise(0.1)) == 0.0


def test_a_level_outside_the_path_takes_its_nearest_end() -> None:
    path = fitted(*made("ends"))
    assert path.worth_at(2.0) == path.worth[-1]
    assert path.worth_at(-1.0) == path.worth[0]


def test_equal_candidates_are_told_by_rank() -> None:
    quality, cost = np.full((5, 3), 0.5), np.full((5, 3), 0.001)
    path = TauPath.fit(quality, quality, cost, np.array([2, 0, 1]))
    assert path.best == path.cheapest == 1
    moves, first, last = break_points(quality, cost, np.array([2, 0, 1]))
    assert not len(moves.worth)
    assert (first == 1).all()
    assert (last == 1).all()


def test_ties_of_the_best_go_to_the_cheaper_and_of_the_cheapest_to_the_better() -> None:
    outcome = np.tile([0.8, 0.8, 0.3, 0.2], (6, 1))
    cost = np.tile([3.0, 2.0, 1.0, 1.0], (6, 1))
    path = fitted(outcome, outcome, cost)
    assert (path.best, path.cheapest) == (1, 2)


def test_falling_means_are_pooled_and_not_picked_from() -> None:
    """The dear one is predicted better on every prompt, by less and less; it really is better on every second one."""
    rows = 400
    step = np.linspace(0.5, 0.01, rows)
    quality = np.stack([np.full(rows, 0.4), 0.4 + step], axis=1)
    outcome = np.stack([np.zeros(rows), np.arange(rows) % 2.0], axis=1)
    outcome[: rows // 4] = [1.0, 0.0]  # the first to move lose
    path = fitted(quality, outcome, np.tile([1e-4, 1e-3], (rows, 1)))
    assert (np.diff(path.level) > 0).all()
    assert path.level[0] < 0.25
    assert path.level[-1] <= path.best_quality + 1e-12
