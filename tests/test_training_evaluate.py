from __future__ import annotations

import numpy as np
import pytest
from training_data import make_world

from ipr_engine.training.evaluate import (
    area,
    bootstrap_weights,
    calibration_error,
    choose,
    hull,
    realised,
    saving_at,
    sweep_tau,
    sweep_worth,
    token_error,
)

CORNERS = np.array([1.0, 5.0]), np.array([0.4, 0.8])


def test_tau_zero_takes_the_best_and_tau_one_the_cheapest(request):
    world = make_world(request.node.name)
    cost = world.tokens * 1e-6
    np.testing.assert_array_equal(choose(world.chance, cost, tau=0.0), world.chance.argmax(axis=1))
    np.testing.assert_array_equal(choose(world.chance, cost, tau=1.0), cost.argmin(axis=1))


@pytest.mark.parametrize("sweep", [sweep_tau, sweep_worth])
def test_predicted_cost_never_falls_along_a_sweep(request, sweep):
    world = make_world(request.node.name)
    cost = world.tokens * 1e-6
    assert (np.diff(realised(sweep(world.chance, cost), cost).mean(axis=1)) >= 0).all()


def test_area_is_zero_at_the_cheapest_one_at_the_best_half_between():
    assert area(np.array([1.0, 5.0]), np.array([0.4, 0.4]), *CORNERS) == pytest.approx(0)
    assert area(np.array([1.0]), np.array([0.8]), *CORNERS) == pytest.approx(1)
    assert area(*CORNERS, *CORNERS) == pytest.approx(0.5)
    assert area(np.array([0.0, 6.0]), np.array([0.3, 0.9]), *CORNERS) == pytest.approx(0.5)


def test_hull_keeps_the_upper_concave_envelope():
    cost = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    quality = np.array([0.1, 0.5, 0.55, 0.4, 0.8, 0.7])
    np.testing.assert_array_equal(hull(cost, quality), [0, 1, 4])


def test_saving_is_read_where_the_curve_first_reaches_the_quality():
    cost, quality = np.array([4.0, 1.0, 2.0]), np.array([0.9, 0.4, 0.8])
    assert saving_at(cost, quality, 0.6, 4.0) == pytest.approx(1 - 1.5 / 4)
    assert saving_at(cost, quality, 0.3, 4.0) == pytest.approx(0.75)
    assert np.isnan(saving_at(cost, quality, 0.95, 4.0))


def test_calibration_error_is_the_shift_of_shifted_predictions(request):
    world = make_world(request.node.name, rows=1000)
    assert calibration_error(world.quality, world.quality).max() == 0
    assert calibration_error(0.5 * world.quality + 0.5, np.ones_like(world.quality)) == pytest.approx(
        0.5 * (1 - world.quality.mean(axis=0))
    )


def test_token_error_is_the_median_relative_one():
    assert token_error(np.array([[110.0], [50.0], [300.0]]), np.array([[100.0], [100.0], [100.0]]))[0] == 0.5


def test_bootstrap_weights_resample_rows(request):
    weights = bootstrap_weights(37, 500, seed=1)
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    values = np.arange(37.0)
    assert (weights @ values).std() == pytest.approx(values.std() / np.sqrt(37), rel=0.15)
