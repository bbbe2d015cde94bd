"""Promises along a path: which need no test, in which order the others are tested, and what is never certified."""

import numpy as np
import pytest

from ipr_engine.bundle.calibration import CERTAIN, CERTIFIED, INSUFFICIENT
from ipr_engine.calibration.bounds import lower_bounds, target
from ipr_engine.calibration.promises import NONE, ExcessDraws, Promises, certified_points, knots_of, monotone


def draws_of(promises, routed, best, cheapest, n, samples, rng):
    order = rng.integers(0, len(best), (n, samples))
    return ExcessDraws(promises, routed, best, cheapest, order)


def world(rng, rows=4000):
    """A path of the best single, three routed points and the cheapest single, with falling quality."""
    difficulty = rng.random(rows)
    columns = [(difficulty < level).astype(float) for level in (0.80, 0.79, 0.74, 0.68, 0.50)]
    return np.stack(columns, axis=1), columns[0], columns[-1]


def test_excess_is_what_is_routed_less_what_is_owed():
    promises = Promises.of([0.0, 0.25], [0.9])
    found = promises.excess(np.array([[1.0, 0.5]]), np.array([0.8]), np.array([0.4]))
    np.testing.assert_allclose(found, [[[0.2, -0.3], [1 - 0.7, 0.5 - 0.7], [1 - 0.72, 0.5 - 0.72]]])


def test_no_excess_lies_below_its_floor(rng):
    promises = Promises.of([0.0, 0.3, 1.0], [1.0, 0.9])
    best, cheapest, middle = (rng.integers(0, 2, 500).astype(float) for _ in range(3))
    excess = promises.excess(np.stack([best, middle, cheapest], axis=1), best, cheapest)
    assert (excess >= -promises.floors(3) - 1e-12).all()


def test_single_candidates_keep_tau_0_every_share_and_tau_1_on_any_data(rng):
    promises = Promises.of([0.0, 0.5, 1.0], [1.0, 0.9])
    routed, best, cheapest = world(rng)
    excess = promises.excess(routed, best, cheapest).mean(axis=0)
    certain = promises.certain(routed.shape[1])
    assert certain.sum() == 4
    assert (excess[certain] >= 0).all()


def test_with_one_draw_only_what_is_certain_runs(rng):
    promises = Promises.of([0.0, 0.2, 1.0], [1.0])
    routed, best, cheapest = world(rng)
    draws = draws_of(promises, routed, best, cheapest, 1, 1, rng)
    last = certified_points(draws, target, second_moment=np.ones((4, 5)), risk=0.1)[0]
    assert last.tolist() == [0, NONE, 4, 0]


def test_where_the_cheapest_is_the_better_one_nothing_between_0_and_1_is_certified_too_often(rng):
    promises = Promises.of([0.0, 0.2, 1.0], [])
    cheapest = (rng.random(3000) < 0.6).astype(float)
    best = (rng.random(3000) < 0.5).astype(float)
    routed = np.stack([best, best, cheapest], axis=1)
    draws = draws_of(promises, routed, best, cheapest, 200, 500, rng)
    last = certified_points(draws, target, second_moment=np.full((3, 3), 0.3), risk=0.1)
    assert (last[:, 1] != NONE).mean() <= 0.1


@pytest.mark.parametrize("n", [100, 1000])
def test_a_certified_point_breaks_its_promise_at_most_at_the_risk(n, rng):
    promises = Promises.of([0.0, 0.05, 0.2, 0.4, 1.0], [0.95, 0.9])
    routed, best, cheapest = world(rng)
    truth = promises.excess(routed, best, cheapest).mean(axis=0)
    moment = (promises.excess(routed, best, cheapest) ** 2).mean(axis=0)
    last = certified_points(
        draws_of(promises, routed, best, cheapest, n, 400, rng), target, second_moment=moment, risk=0.1
    )
    kept = np.where(last == NONE, 0.0, np.take_along_axis(truth.T, np.maximum(last, 0), axis=0))
    assert ((kept < -1e-12).mean(axis=0) <= 0.1 + 3 * np.sqrt(0.09 / 400)).all()
    assert (last[:, 2] > 0).mean() > (0.9 if n == 1000 else 0.3)


def test_a_point_behind_a_failed_one_is_not_certified(rng):
    promises = Promises.of([0.0], [])
    best = np.ones(1000)
    routed = np.stack([best, np.zeros(1000), best, best], axis=1)  # the second point is bad, those behind it are good
    draws = ExcessDraws(promises, routed, best, best, np.arange(1000)[:, None])
    assert certified_points(draws, target, second_moment=np.ones((1, 4)), risk=0.1)[0].tolist() == [0]


def test_monotone_never_goes_back_and_never_runs_an_uncertified_point():
    last = np.array([0, 5, NONE, 3, 7, 6])
    assert monotone(last).tolist() == [0, 3, NONE, 3, 6, 6]


def knots(last, costs, certain_at=((0, 0), (3, 7))):
    certain = np.zeros((4, 8), bool)
    for promise, point in certain_at:
        certain[promise, point] = True
    return [(k.point, k.status) for k in knots_of([0.0, 0.1, 0.2, 1.0], np.array(last), certain, np.array(costs))]


FALLING = [8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0]


def test_a_knot_without_evidence_runs_the_nearest_safer_one():
    assert knots([0, 2, NONE, 7], FALLING) == [(0, CERTAIN), (2, CERTIFIED), (2, INSUFFICIENT), (7, CERTAIN)]


def test_of_certified_points_the_cheapest_on_the_sample_runs():
    bumpy = [8.0, 9.0, 6.0, 7.0, 5.0, 3.0, 2.0, 2.5]
    assert knots([1, 3, 6, 7], bumpy) == [(0, CERTAIN), (2, CERTIFIED), (6, CERTIFIED), (6, CERTIFIED)]


def test_lower_bounds_lie_below_the_mean_and_cover_it(rng):
    values = (rng.random((200, 300)) < 0.7).astype(float)
    lower = lower_bounds(values, target, risk=0.1)
    assert (lower > 0.7).mean() <= 0.1 + 3 * np.sqrt(0.09 / 300)
    assert (lower <= values.mean(axis=0) + 1e-9).all()
    assert lower.mean() > 0.62
