"""Prediction figures against hand-computed examples, and what must not change them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipr_engine.errors import InvalidInputError
from ipr_engine.measures import prediction as p
from tests.support import skips

NAN = float("nan")


def test_mae_and_brier_are_means_over_known_pairs():
    predicted, quality = np.array([[0.5, 0.0], [1.0, 0.7]]), np.array([[1.0, 0.0], [0.0, NAN]])
    assert p.mae(predicted, quality) == pytest.approx((0.5 + 0 + 1) / 3)
    assert p.brier(predicted, quality) == pytest.approx((0.25 + 0 + 1) / 3)


def test_calibration_error_by_hand():
    predicted = np.array([0.1, 0.2, 0.8, 0.9])
    quality = np.array([0.0, 1.0, 1.0, 1.0])
    assert p.expected_calibration_error(predicted, quality, bins=2) == pytest.approx(0.5 * 0.35 + 0.5 * 0.15)


def test_perfect_prediction_has_no_error(rng):
    quality = rng.random((57, 3))
    assert p.expected_calibration_error(quality, quality) == 0
    assert p.mae(quality, quality) == p.brier(quality, quality) == 0


def test_equal_predictions_share_a_bin_whatever_the_order_of_rows(rng):
    predicted = rng.integers(0, 4, 100) / 4
    quality = rng.integers(0, 2, 100).astype(float)
    shuffle = rng.permutation(100)
    bins = p.reliability(predicted, quality)
    assert len(bins) <= 4
    assert p.expected_calibration_error(predicted[shuffle], quality[shuffle]) == pytest.approx(
        p.expected_calibration_error(predicted, quality)
    )


def test_a_constant_prediction_is_one_bin():
    bins = p.reliability(np.full(20, 0.3), np.arange(20) / 19)
    assert len(bins) == 1
    assert bins[0].realised == pytest.approx(0.5)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_hits_do_not_change_under_a_rising_map_of_predictions(seed):
    rng = np.random.default_rng(seed)
    predicted, quality = rng.random((23, 5)), rng.integers(0, 3, (23, 5)) / 2
    for k in (1, 2, 5):
        np.testing.assert_array_equal(p.hits(predicted, quality, k), p.hits(np.exp(3 * predicted), quality, k))


def test_hits_grow_with_k_and_are_certain_with_every_candidate(rng):
    predicted, quality = rng.random((40, 5)), rng.integers(0, 2, (40, 5)).astype(float)
    shares = [p.hits(predicted, quality, k).mean() for k in range(1, 6)]
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_a_hit_is_to_attain_the_maximum_and_gaps_are_not_candidates():
    predicted = np.array([[0.9, 0.5, 0.1], [0.9, 0.5, 0.1], [0.9, 0.5, 0.1]])
    quality = np.array([[1.0, 1.0, 0.0], [0.0, 1.0, 0.0], [NAN, 0.0, 0.0]])
    assert p.hits(predicted, quality).tolist() == [True, False, True]
    assert p.differing(quality).tolist() == [True, True, False]


def test_the_cheapest_best_is_the_cheapest_of_those_that_attain_the_maximum():
    quality = np.array([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.0, NAN, 1.0]])
    cost = np.array([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [1.0, 0.0, 9.0]])
    assert p.cheapest_best(quality, cost).tolist() == [1, 2, 2]


def test_macro_f1_by_hand():
    assert p.macro_f1(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 1])) == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    assert p.macro_f1(np.array([4, 1, 4]), np.array([4, 1, 4])) == 1


def test_macro_f1_equals_scikit_learn(rng):
    metrics = pytest.importorskip("sklearn.metrics", reason=skips.EVAL)
    choice, label = rng.integers(0, 5, 200), rng.integers(0, 5, 200)
    assert p.macro_f1(choice, label) == pytest.approx(metrics.f1_score(label, choice, average="macro"))


def test_amount_error_by_hand():
    error = p.amount_error(np.array([[110.0, 50.0], [300.0, 7.0]]), np.array([[100.0, 100.0], [100.0, NAN]]))
    assert error == (pytest.approx(260 / 3), pytest.approx(0.5), pytest.approx(460 / 300))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: p.mae(np.zeros((2, 2)), np.zeros((2, 3))), "equal shapes"),
        (lambda: p.brier(np.zeros(2), np.full(2, NAN)), "at least one outcome"),
        (lambda: p.brier(np.array([NAN, 0.0]), np.zeros(2)), "finite"),
        (lambda: p.hits(np.zeros((1, 2)), np.full((1, 2), NAN)), "every row"),
        (lambda: p.cheapest_best(np.full((1, 2), NAN), np.zeros((1, 2))), "every row"),
    ],
)
def test_what_cannot_be_measured_is_refused(call, message):
    with pytest.raises(InvalidInputError, match=message):
        call()
