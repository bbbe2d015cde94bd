"""Baselines: fitted on training outcomes alone, tuned out of fold, and what each must find in a world made for it."""

import numpy as np
import pytest

from ipr_engine.evaluation import baselines as b
from ipr_engine.measures import sweeps
from ipr_engine.measures.resampling import Resamples, grouped_folds
from ipr_engine.measures.routing import Axis, WeightedOutcomes, bounded_arqgc, single_curve, sweep_curve
from tests.support import skips
from tests.support.evaluation_data import make_outcomes


def sklearn():
    pytest.importorskip("sklearn", reason=skips.EVAL)


def world(seed, rows=400):
    """Two far groups of prompts: the cheap candidate is right on one, the dear one on both."""
    rng = np.random.default_rng(seed)
    easy = rng.random(rows) < 0.5
    x = rng.standard_normal((rows, 5)) * 0.1 + np.where(easy, 1.0, -1.0)[:, None] * np.array([1.0, 0, 0, 0, 0])
    quality = np.stack([easy.astype(float), np.ones(rows)], axis=1)
    cost = np.tile([0.001, 0.01], (rows, 1))
    return WeightedOutcomes.complete(quality, cost), x


@pytest.mark.parametrize("name", list(b.ESTIMATORS))
def test_every_estimator_finds_which_prompts_need_the_dear_candidate(name):
    if name != "ridge":
        sklearn()
    train, x = world(1)
    test, test_x = world(2)
    found = b.ESTIMATORS[name](x, train, grouped_folds([str(i) for i in range(400)], 5, 0), test_x)
    once, axis = Resamples(test.rows, draws=0), Axis.of(train)
    curve = sweep_curve(sweeps.worth_sweep(found.quality, found.cost), test, once)
    area = bounded_arqgc(curve, axis, single_curve(test, once))[0]
    assert area > 0.7  # half the prompts at full quality gain all: 0.75
    assert found.quality.shape == test.quality.shape
    assert found.train_quality.shape == train.quality.shape
    assert ((found.quality >= 0) & (found.quality <= 1)).all()
    assert (found.cost >= 0).all()


@pytest.mark.parametrize("name", list(b.ESTIMATORS))
def test_training_predictions_are_out_of_fold(name, rng):
    """Outcomes that no embedding explains: in-sample a fit would know them, out of fold it cannot."""
    if name != "ridge":
        sklearn()
    x = rng.standard_normal((200, 4))
    quality = rng.integers(0, 2, (200, 2)).astype(float)
    train = WeightedOutcomes.complete(quality, np.tile([0.001, 0.01], (200, 1)))
    found = b.ESTIMATORS[name](x, train, grouped_folds([str(i) for i in range(200)], 5, 0), x[:3])
    assert abs(np.corrcoef(found.train_quality.ravel(), quality.ravel())[0, 1]) < 0.2


@pytest.mark.parametrize("name", list(b.ESTIMATORS))
@pytest.mark.parametrize("case", ["one candidate", "constant columns", "equal costs", "zero embeddings"])
def test_degenerate_outcomes_give_predictions_not_errors(name, case, rng):
    if name != "ridge":
        sklearn()
    models = 1 if case == "one candidate" else 3
    quality = np.full((40, models), 0.5) if case == "constant columns" else rng.random((40, models))
    cost = np.full((40, models), 0.01) if case == "equal costs" else rng.random((40, models))
    x = np.zeros((40, 4)) if case == "zero embeddings" else rng.standard_normal((40, 4))
    found = b.ESTIMATORS[name](
        x, WeightedOutcomes.complete(quality, cost), grouped_folds([str(i) for i in range(40)], 5, 0), x[:7]
    )
    assert np.isfinite(found.quality).all()
    assert np.isfinite(found.cost).all()
    assert found.quality.shape == (7, models)


def test_a_sweep_goes_from_the_cheapest_to_the_best(request):
    outcomes, _ = make_outcomes(request.node.name)
    cost = outcomes.cost
    predicted = np.random.default_rng(0).random(outcomes.quality.shape)
    for choices in (sweeps.rule_sweep(predicted, cost, "minmax"), sweeps.rule_sweep(predicted, cost, "max")):
        np.testing.assert_array_equal(choices[0], cost.argmin(axis=1))
        np.testing.assert_array_equal(choices[-1], predicted.argmax(axis=1))
    np.testing.assert_array_equal(sweeps.worth_sweep(predicted, cost)[0], cost.argmin(axis=1))


def test_the_oracle_of_one_candidate_is_that_candidate():
    outcomes = WeightedOutcomes.complete(np.array([[0.0], [1.0]]), np.array([[0.1], [0.2]]))
    assert (sweeps.oracle_sweep(outcomes) == 0).all()


def test_the_oracle_is_thinned_to_the_points_asked_for_and_keeps_its_ends(request):
    outcomes, _ = make_outcomes(request.node.name)
    thin, full = sweeps.oracle_sweep(outcomes, points=10), sweeps.oracle_sweep(outcomes, points=10**6)
    assert len(thin) <= 11 < len(full)
    np.testing.assert_array_equal(thin[[0, -1]], full[[0, -1]])
