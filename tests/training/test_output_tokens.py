from __future__ import annotations

import numpy as np
import pytest

from ipr_engine.errors import InvalidInputError
from ipr_engine.measures.resampling import grouped_folds
from ipr_engine.training.fitted_heads import CAP_PERCENTILE, fit_tokens, smearing_factor
from tests.support.seeds import seeded
from tests.support.training_data import make_world


def test_smearing_turns_a_log_median_into_the_mean(request):
    rng = seeded(request.node.name)
    sigma, rows = np.array([0.2, 0.8]), 200000
    tokens = np.exp(5 + sigma * rng.standard_normal((rows, 2)))
    log = np.log(tokens)
    corrected = np.exp(np.median(log, axis=0)) * smearing_factor(log - np.median(log, axis=0))
    np.testing.assert_allclose(corrected, tokens.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(smearing_factor(log - 5), np.exp(sigma**2 / 2), rtol=0.01)


def test_predicted_tokens_are_right_on_average(request):
    world = make_world(request.node.name, rows=4000)
    fit = fit_tokens(world.x, world.tokens, grouped_folds(world.keys, 5, seed=0))
    predicted = np.minimum(np.exp(world.x @ fit.skip.T + fit.bias), fit.cap)
    np.testing.assert_allclose(predicted.mean(axis=0), world.tokens.mean(axis=0), rtol=0.05)
    assert (np.exp(np.log(world.tokens).mean(axis=0)) < 0.9 * world.tokens.mean(axis=0)).all()  # what it corrects


def test_no_prediction_exceeds_the_cap(request):
    world = make_world(request.node.name)
    fit = fit_tokens(world.x, world.tokens, grouped_folds(world.keys, 5, seed=0))
    np.testing.assert_allclose(fit.cap, np.percentile(world.tokens, CAP_PERCENTILE, axis=0))
    assert (fit.out_of_fold <= fit.cap).all()


def test_an_empty_answer_counts_as_one_token(request):
    world = make_world(request.node.name, rows=100)
    folds = grouped_folds(world.keys, 5, seed=0)
    empty, one = world.tokens.copy(), world.tokens.copy()
    empty[7, 2], one[7, 2] = 0, 1
    np.testing.assert_array_equal(fit_tokens(world.x, empty, folds).skip, fit_tokens(world.x, one, folds).skip)


@pytest.mark.parametrize("bad", [-1.0, np.inf])
def test_impossible_counts_are_refused(bad):
    tokens = np.full((10, 2), 50.0)
    tokens[3, 1] = bad
    with pytest.raises(InvalidInputError, match="tokens"):
        fit_tokens(np.eye(10), tokens, np.arange(10) % 2)


def test_unknown_counts_have_no_part(request):
    rng = seeded(request.node.name)
    x = rng.standard_normal((90, 6))
    tokens = np.exp(4 + x @ rng.standard_normal((6, 2)))
    folds = np.arange(90) % 3
    tokens[60:, 1] = np.nan
    fit, alone = fit_tokens(x, tokens, folds), fit_tokens(x[:60], tokens[:60, 1:], folds[:60])
    np.testing.assert_allclose(fit.skip[1], alone.skip[0], atol=1e-10)
    np.testing.assert_allclose(fit.cap[1], alone.cap[0])
