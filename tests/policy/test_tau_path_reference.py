"""The compiled half of tau's path equals its definition in numpy, to the bit."""

from __future__ import annotations

import numpy as np
import pytest

from ipr_engine import _C, InvalidInputError
from ipr_engine.decide import reference
from ipr_engine.policy.tau_path import break_points


def table(rng, rows, models, kind):
    """Qualities and costs: distinct, rounded so that many tie, or as stored (float16) at one price for all prompts."""
    quality, cost = rng.random((rows, models)), np.exp(rng.normal(-7, 1.5, (rows, models)))
    if kind == "ties":
        return np.round(quality, 1), np.round(cost, 3)
    if kind == "stored":
        return quality.astype(np.float16).astype(np.float64), np.broadcast_to(cost[0], cost.shape).copy()
    return quality, cost


@pytest.mark.parametrize("kind", ["distinct", "ties", "stored"])
@pytest.mark.parametrize("models", [1, 2, 3, 11, 17])
@pytest.mark.parametrize("rows", [1, 7, 501])
def test_break_points_are_those_of_the_definition_to_the_bit(rng, rows, models, kind):
    quality, cost = table(rng, rows, models, kind)
    tie_rank = rng.permutation(models).astype(np.int32)
    moves, first, last = break_points(quality, cost, tie_rank)
    for ours, wanted in zip((*moves, first, last), reference.break_points(quality, cost, tie_rank), strict=True):
        assert ours.dtype == wanted.dtype
        assert ours.tobytes() == wanted.tobytes()


@pytest.mark.parametrize("kind", ["distinct", "ties"])
def test_a_prompt_follows_its_break_points_as_worth_rises(rng, kind):
    quality, cost = table(rng, 40, 6, kind)
    tie_rank = rng.permutation(6).astype(np.int32)
    moves, first, last = break_points(quality, cost, tie_rank)
    now = first.copy()
    for worth, row, before, after in zip(*moves, strict=True):
        assert now[row] == before
        assert (quality[row, after] > quality[row, before], cost[row, after] >= cost[row, before]) == (True, True)
        least = (cost[row] - worth * quality[row]).min()  # both are best there, up to rounding
        for m in (before, after):
            assert cost[row, m] - worth * quality[row, m] == pytest.approx(least, abs=1e-12 + 1e-12 * worth)
        now[row] = after
    assert (now == last).all()
    assert (quality[np.arange(40), last] == quality.max(axis=1)).all()


@pytest.mark.parametrize("below", [0.0, 0.02, 0.3, np.inf])
@pytest.mark.parametrize("kind", ["distinct", "ties"])
@pytest.mark.parametrize("models", [1, 2, 5, 11])
def test_two_tier_choices_are_those_of_the_definition(rng, models, kind, below):
    rows, worths = 53, np.array([1e-5, 1e-3, 0.01, 0.2, 7.0])
    first, again = table(rng, rows, models, kind), table(rng, rows, models, kind)
    realised, realised_again = rng.random((rows, models)), rng.random((rows, models))
    tie_rank = rng.permutation(models).astype(np.int32)
    by_rank = np.argsort(tie_rank).astype(np.int64)
    reached, spent, count = _C.two_tier_choices(
        *first, realised, *again, realised_again, by_rank, worths, below
    )  # fmt: skip
    every = np.arange(rows)
    for i, worth in enumerate(worths):
        chosen, asked = reference.two_tier_choices(first, again, tie_rank, worth, below)
        cost = np.where(asked, again[1][every, chosen], first[1][every, chosen])
        outcome = np.where(asked, realised_again[every, chosen], realised[every, chosen])
        assert count[i].tolist() == np.bincount(chosen, minlength=models).tolist()
        assert (reached[i], spent[i]) == pytest.approx((outcome.sum(), cost.sum()), rel=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"quality": np.zeros((3, 2), np.float32)}, r"quality: expected \(rows, models\) float64"),
        ({"quality": np.zeros((0, 2))}, "of 1 row and 1 model at least"),
        ({"cost_usd": np.zeros((2, 2))}, r"cost_usd: expected \(rows, models\) = \(3, 2\) float64"),
        ({"by_rank": np.array([0, 0])}, "by_rank: expected each of 0 to models - 1 once, got 0 at 1"),
        ({"by_rank": np.array([0, 2])}, "by_rank: expected each of 0 to models - 1 once, got 2 at 1"),
    ],
)
def test_arrays_that_do_not_fit_are_named(change, message):
    given = {"quality": np.zeros((3, 2)), "cost_usd": np.zeros((3, 2)), "by_rank": np.array([1, 0])} | change
    with pytest.raises(InvalidInputError, match=message):
        _C.break_points(**given)
