"""Many rows: float32 embeddings fit what float64 does, some are drawn to compare estimators and to place centroids, none are copied."""

import json
import tracemalloc
from hashlib import sha256

import numpy as np
import pytest

from ipr_engine.errors import InvalidInputError
from ipr_engine.measures.resampling import grouped_folds
from ipr_engine.training import fitted_parts, selection
from ipr_engine.training.estimators import ridge
from ipr_engine.training.estimators.advantage import fit_form
from ipr_engine.training.estimators.ridge import PENALTIES, Grams, fit_ridge
from ipr_engine.training.fitted_heads import FitRows, HeadRows, fit_heads
from ipr_engine.training.fitted_parts import drawn_order, fit_support
from ipr_engine.training.selection import PromptCosts, compare_estimators
from tests.support.seeds import seeded
from tests.support.training_data import make_world


def test_ridge_in_blocks_is_ridge(request, monkeypatch):
    world = make_world(request.node.name, rows=300)
    folds = grouped_folds(world.keys, 5, seed=0)
    whole = fit_ridge(world.x, world.quality, folds)
    monkeypatch.setattr(ridge, "BLOCK", 17)
    parts = fit_ridge(world.x, world.quality, folds)
    np.testing.assert_allclose(parts.weights, whole.weights, atol=1e-10)
    np.testing.assert_allclose(parts.out_of_fold, whole.out_of_fold, atol=1e-10)
    assert parts.penalties == whole.penalties


def test_errors_from_sums_are_errors_of_rows(request):
    world = make_world(request.node.name, rows=300)
    y = np.where(seeded(request.node.name, 1).random(world.quality.shape) < 0.3, np.nan, world.quality)
    folds = grouped_folds(world.keys, 5, seed=0)
    held = [fit_ridge(world.x, y, folds, penalties=np.array([p])).out_of_fold for p in PENALTIES]
    errors = np.nanmean(np.square(np.stack(held) - y), axis=1)  # (penalties, models)
    assert fit_ridge(world.x, y, folds).penalties["each"] == [float(PENALTIES[i]) for i in errors.argmin(axis=0)]


@pytest.mark.parametrize("estimator", ["plain", "advantage_rank2", "caps"])
def test_float32_embeddings_fit_what_their_float64_does(request, estimator):
    world = make_world(request.node.name, rows=300)
    narrow = world.x.astype(np.float32)
    one, two = (
        fit_heads(HeadRows(x, world.quality, world.tokens, world.keys), estimator=estimator)
        for x in (narrow, narrow.astype(np.float64))
    )
    np.testing.assert_allclose(one.out_of_fold_quality, two.out_of_fold_quality, atol=1e-9)
    np.testing.assert_allclose(one.out_of_fold_tokens, two.out_of_fold_tokens, rtol=1e-9)


def test_rows_made_ready_once_fit_what_rows_do(request):
    world = make_world(request.node.name, rows=200)
    rows = HeadRows(world.x, world.quality, world.tokens, world.keys)
    ready = FitRows(rows, 5, 3)
    for estimator in ("plain", "advantage_each", "caps"):
        shared, alone = fit_heads(ready, estimator=estimator), fit_heads(rows, estimator=estimator, seed=3)
        np.testing.assert_array_equal(shared.out_of_fold_quality, alone.out_of_fold_quality)
        assert shared.settings == alone.settings


def test_sums_need_finite_rows():
    x = np.ones((10, 2), np.float32)
    x[7, 1] = np.inf
    with pytest.raises(InvalidInputError, match="x, y: expected finite values"):
        Grams(x, np.arange(10) % 2)


def test_a_fit_copies_no_rows(request):
    rng = seeded(request.node.name)
    x, quality = rng.standard_normal((40_000, 32)).astype(np.float32), rng.random((40_000, 1))
    folds = np.arange(len(x)) % 5
    tracemalloc.start()
    try:
        fit_form("plain", x, quality, folds)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < x.nbytes  # the five folds' rows in float64 would be eight times as much


def test_estimators_of_many_rows_are_compared_on_some_of_whole_questions(request, monkeypatch):
    world = make_world(request.node.name, rows=400)
    cost = world.tokens * np.geomspace(1e-5, 1e-6, 5)
    costs = PromptCosts(cost, np.zeros_like(cost), np.geomspace(1e-5, 1e-6, 5))
    monkeypatch.setattr(selection, "MOST_COMPARED", 150)
    seen, told = [], []
    real = selection.fit_heads
    monkeypatch.setattr(
        selection, "fit_heads", lambda ready, **options: (seen.append(len(ready.rows.x)), real(ready, **options))[1]
    )
    rows = HeadRows(world.x, world.quality, world.tokens, world.keys)
    scores = compare_estimators(rows, costs, estimators=("plain",), repeats=1, folds=3, progress=told.append)
    assert max(seen) < 150
    assert [score.estimator for score in scores] == ["plain"]
    assert "of 400 prompts, whole questions drawn by chance" in told[0]


def test_support_of_many_rows_is_that_of_some(request, monkeypatch):
    world = make_world(request.node.name, rows=600)
    folds = grouped_folds(world.keys, 5, seed=0)
    whole = fit_support(world.x, folds, 4, seed=0)
    monkeypatch.setattr(fitted_parts, "SUPPORT_ROWS", 300)
    some = fit_support(world.x.astype(np.float32), folds, 4, seed=0)
    assert some["centroids"].shape == whole["centroids"].shape
    np.testing.assert_allclose(some["distances"], whole["distances"], atol=0.25)


@pytest.mark.parametrize("ids", [["b", "a", "d", "c"], ["b", "a", "b", "c"]])
def test_the_order_of_path_rows_is_seeded_by_a_hash_over_all_prompts(ids):
    prompts, outcome = ["two", 'ön"e', "four", "three"], np.array([[0.5], [1.0], [0.0], [np.nan]])
    named = sorted((ids[i], prompts[i], outcome[i].tobytes(), i) for i in range(3))
    text = json.dumps([[id, prompt] for id, prompt, _, _ in named])
    digest = np.frombuffer(sha256(text.encode()).digest(), dtype="<u4")
    order = np.random.default_rng([9, *digest.tolist()]).permutation(3)
    assert drawn_order(ids, prompts, outcome, 9).tolist() == [named[place][3] for place in order]
