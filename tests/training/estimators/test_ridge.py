from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ipr_engine.errors import InvalidInputError
from ipr_engine.measures.resampling import grouped_folds
from ipr_engine.training.estimators import ridge
from ipr_engine.training.estimators.advantage import FORMS, fit_difficulty_advantage, fit_form, row_difficulty
from ipr_engine.training.estimators.ridge import PENALTIES, fit_ridge, ridge_path
from tests.support.seeds import seeded
from tests.support.training_data import make_world


@pytest.mark.parametrize(("rows", "dim", "targets"), [(40, 7, 1), (101, 33, 4), (20, 63, 3)])
def test_ridge_equals_least_squares_on_the_augmented_system(request, rows, dim, targets):
    rng = seeded(request.node.name)
    x, y = rng.standard_normal((rows, dim)) + 1, rng.standard_normal((rows, targets)) + 2
    penalties = np.array([0.1, 3.0, 200.0])
    weights, bias = ridge_path(x, y, penalties)
    for p, penalty in enumerate(penalties):
        # (x, 1) w = y with sqrt(penalty) I below it, but nothing below the constant
        a = np.block([[x, np.ones((rows, 1))], [np.sqrt(penalty) * np.eye(dim), np.zeros((dim, 1))]])
        expected = np.linalg.lstsq(a, np.vstack([y, np.zeros((dim, targets))]), rcond=None)[0]
        np.testing.assert_allclose(weights[p], expected[:-1].T, atol=1e-9)
        np.testing.assert_allclose(bias[p], expected[-1], atol=1e-9)


@pytest.mark.parametrize("rows", [30, 60])
def test_a_basis_of_few_rows_fits_what_their_sums_do(request, rows):
    rng = seeded(request.node.name)
    x, y, weight = rng.standard_normal((rows, 40)), rng.random((rows, 3)), rng.random(rows) + 0.5
    x[7] = x[2]  # a prompt that stands there twice
    grams, known = ridge.Grams(x, np.arange(rows) % 5), np.arange(rows) % 7 > 0
    held, *seen = grams.of(known, weight)
    held_targets, *targets = grams.targets(y, np.arange(3), known, weight)
    of_rows, of_targets = ridge.others(tuple(seen), -1), ridge.others(tuple(targets), -1)
    assert of_rows.few is not None or rows == 60
    few = ridge.Basis(of_rows, held)
    sums = ridge.Basis(*(replace(gram, few=None, xx=gram.square) for gram in (of_rows, held)))
    for penalty in (0.01, 1.0, 100.0):
        at = np.full(3, penalty)
        for one, other in zip(*(basis.fit(*basis.project(of_targets), at) for basis in (few, sums)), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-9)
    errors = [basis.squared_error(*basis.project(of_targets), PENALTIES, held_targets) for basis in (few, sums)]
    np.testing.assert_allclose(*errors, rtol=1e-7)


def test_bases_beyond_the_bound_are_made_anew_and_fit_the_same(request, monkeypatch):
    world = make_world(request.node.name, rows=80)
    y = np.where(seeded(request.node.name, 1).random(world.quality.shape) < 0.3, np.nan, world.quality)
    folds = grouped_folds(world.keys, 4, seed=0)
    kept = fit_ridge(world.x, y, folds)
    monkeypatch.setattr(ridge, "MOST_KEPT", 0)
    anew = fit_ridge(world.x, y, folds)
    np.testing.assert_array_equal(kept.weights, anew.weights)
    np.testing.assert_array_equal(kept.out_of_fold, anew.out_of_fold)


def test_fits_that_share_sums_are_fitted_once(request):
    world = make_world(request.node.name, rows=80)
    folds = grouped_folds(world.keys, 4, seed=0)
    grams = ridge.Grams(world.x, folds)
    for form in FORMS:
        shared, alone = (fit_form(form, world.x, world.quality, folds, given) for given in (grams, None))
        np.testing.assert_array_equal(shared.weights, alone.weights)
    assert len(grams.fits) == 4  # plain, the difficulty, and advantages at one penalty and at one each


def test_out_of_fold_scores_come_from_fits_without_the_row(request):
    world = make_world(request.node.name, rows=60)
    folds, only = grouped_folds(world.keys, 4, seed=0), np.array([2.0])
    scores = fit_ridge(world.x, world.quality, folds, penalties=only).out_of_fold
    held_out = folds == 1
    weights, bias = ridge_path(world.x[~held_out], world.quality[~held_out], only)
    np.testing.assert_allclose(scores[held_out], world.x[held_out] @ weights[0].T + bias[0], atol=1e-12)
    changed = world.quality.copy()
    changed[held_out] = 1 - changed[held_out]
    again = fit_ridge(world.x, changed, folds, penalties=only).out_of_fold
    np.testing.assert_array_equal(scores[held_out], again[held_out])


def test_chosen_penalty_has_the_least_error_out_of_fold(request):
    world = make_world(request.node.name)
    folds = grouped_folds(world.keys, 5, seed=0)
    fit = fit_ridge(world.x, world.quality, folds)
    held = [fit_ridge(world.x, world.quality, folds, penalties=np.array([p])).out_of_fold for p in PENALTIES]
    errors = np.square(np.stack(held) - world.quality).mean(axis=1)  # (penalties, models)
    assert fit.penalties["each"] == [float(PENALTIES[i]) for i in errors.argmin(axis=0)]


def test_noise_gets_a_stronger_penalty_than_signal(request):
    rng = seeded(request.node.name)
    x = rng.standard_normal((300, 20))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    y = np.stack([x @ rng.standard_normal(20), rng.standard_normal(300)], axis=1)
    fit = fit_ridge(x, y, grouped_folds([str(i) for i in range(300)], 5, seed=0))
    assert fit.penalties["each"][0] < fit.penalties["each"][1]


@pytest.mark.parametrize("shared", [True, False])
def test_difficulty_and_advantage_fold_exactly_into_one_head(request, shared):
    world = make_world(request.node.name)
    folds = grouped_folds(world.keys, 5, seed=0)
    mean = world.quality.mean(axis=1, keepdims=True)
    one = fit_ridge(world.x, mean, folds)
    other = fit_ridge(world.x, world.quality - mean, folds, shared=shared)
    apart = (world.x @ one.weights.T + one.bias) + (world.x @ other.weights.T + other.bias)
    fit = fit_difficulty_advantage(world.x, world.quality, folds, shared=shared)
    np.testing.assert_allclose(world.x @ fit.weights.T + fit.bias, apart, atol=1e-12)


def test_difficulty_and_advantage_with_one_penalty_is_plain_ridge(request):
    world = make_world(request.node.name)
    folds = grouped_folds(world.keys, 5, seed=0)
    only = np.array([7.0])
    plain = fit_ridge(world.x, world.quality, folds, penalties=only)
    apart = fit_difficulty_advantage(world.x, world.quality, folds, penalties=only)
    np.testing.assert_allclose(apart.weights, plain.weights, atol=1e-12)
    np.testing.assert_allclose(apart.bias, plain.bias, atol=1e-12)
    np.testing.assert_allclose(apart.out_of_fold, plain.out_of_fold, atol=1e-12)


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_advantages_of_a_rank_fold_exactly_and_have_that_rank(request, rank):
    world = make_world(request.node.name, models=6)
    folds = grouped_folds(world.keys, 5, seed=0)
    mean = world.quality.mean(axis=1, keepdims=True)
    fit = fit_difficulty_advantage(world.x, world.quality, folds, rank=rank)
    difficulty = fit_ridge(world.x, mean, folds)
    assert np.linalg.matrix_rank(fit.weights - difficulty.weights, tol=1e-9) == rank
    # the deviations of six models sum to zero, so rank five leaves out nothing
    full = fit_difficulty_advantage(world.x, world.quality, folds)
    assert np.allclose(fit.weights, full.weights) == (rank == 5)
    np.testing.assert_allclose((world.x @ fit.weights.T + fit.bias).mean(axis=0), world.quality.mean(axis=0), atol=1e-9)


def test_a_missing_target_is_fitted_on_the_rows_where_it_is_known(request):
    world = make_world(request.node.name, rows=80)
    y = world.quality.copy()
    y[10:30, 2] = np.nan
    weights, bias = ridge_path(world.x, y, np.array([3.0]))
    known = ~np.isnan(y[:, 2])
    alone, level = ridge_path(world.x[known], y[known][:, [2]], np.array([3.0]))
    np.testing.assert_allclose(weights[0, 2], alone[0, 0], atol=1e-12)
    np.testing.assert_allclose(bias[0, 2], level[0, 0], atol=1e-12)
    full, _ = ridge_path(world.x, world.quality, np.array([3.0]))
    np.testing.assert_array_equal(weights[0, 0], full[0, 0])


def test_weights_count_like_repeated_rows(request):
    world = make_world(request.node.name, rows=60)
    twice = np.concatenate([np.arange(60), np.arange(20)])
    weighted, level = ridge_path(world.x, world.quality, np.array([2.0]), np.where(np.arange(60) < 20, 2.0, 1.0))
    repeated, again = ridge_path(world.x[twice], world.quality[twice], np.array([2.0]))
    np.testing.assert_allclose(weighted, repeated, atol=1e-10)
    np.testing.assert_allclose(level, again, atol=1e-10)


def test_difficulty_of_a_sparse_row_allows_for_who_was_judged():
    row, column = np.linspace(-0.3, 0.3, 40), np.array([0.2, 0.5, 0.8])
    full = row[:, None] + column
    sparse = full.copy()
    sparse[::2, 2], sparse[1::2, 0] = np.nan, np.nan  # even rows lack the best candidate, odd ones the worst
    difficulty, weight = row_difficulty(sparse)
    np.testing.assert_allclose(difficulty, full.mean(axis=1), atol=1e-6)
    np.testing.assert_allclose(weight, 2 / 3)
    np.testing.assert_array_equal(row_difficulty(full)[0], full.mean(axis=1))


@pytest.mark.parametrize("broken", ["infinite", "unknown", "rows", "penalty"])
def test_unusable_input_is_refused(broken):
    x, y, folds = np.ones((6, 2)), np.ones((6, 3)), np.arange(6) % 2
    if broken == "infinite":
        y[2, 1] = np.inf
    if broken == "unknown":
        y[:, 1] = np.nan
    if broken == "rows":
        x = x[:5]
    penalties = np.array([0.0 if broken == "penalty" else 1.0])
    with pytest.raises(InvalidInputError):
        fit_ridge(x, y, folds, penalties=penalties)


def test_unknown_form_is_refused():
    with pytest.raises(InvalidInputError, match="lasso"):
        fit_form("lasso", np.ones((6, 2)), np.ones((6, 3)), np.arange(6) % 2)
