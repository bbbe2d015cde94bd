from __future__ import annotations

import numpy as np
import pytest

from ipr_engine.errors import InvalidInputError
from ipr_engine.training import platt
from ipr_engine.training.fitted_heads import HeadRows, fit_heads
from ipr_engine.training.platt import fit_platt, fit_platts, fit_pooled_platt, fold_platt, sigmoid
from tests.support.seeds import seeded


@pytest.mark.parametrize(("slope", "offset"), [(1.0, 0.0), (6.5, -2.0), (0.3, 1.5)])
def test_recovers_a_known_map(request, slope, offset):
    rng = seeded(request.node.name)
    rows = 40000
    score = rng.standard_normal(rows) * 0.7 + 0.2
    chance = sigmoid(slope * score + offset)
    a, b = fit_platt(score, (rng.random(rows) < chance).astype(float))
    # four standard errors of the maximum likelihood estimate, from the Fisher information at the truth
    design = np.stack([score, np.ones(rows)], axis=1)
    error = np.sqrt(np.diag(np.linalg.inv((design * (chance * (1 - chance))[:, None]).T @ design)))
    assert abs(a - slope) < 4 * error[0]
    assert abs(b - offset) < 4 * error[1]


def test_stands_at_the_likelihoods_maximum(request):
    rng = seeded(request.node.name)
    score, quality = rng.standard_normal(501), (rng.random(501) < 0.4).astype(float)
    quality[:250] = (score[:250] > 0).astype(float)
    a, b = fit_platt(score, quality)
    high, low = (quality.sum() + 1) / (quality.sum() + 2), 1 / (501 - quality.sum() + 2)
    residual = sigmoid(a * score + b) - (quality * high + (1 - quality) * low)
    assert abs(residual.mean()) < 1e-10
    assert abs((residual * score).mean()) < 1e-10


def test_separable_scores_stay_finite_and_inside_platts_targets():
    score = np.concatenate([np.linspace(-2, -1, 20), np.linspace(1, 2, 30)])
    a, b = fit_platt(score, (score > 0).astype(float))
    assert np.isfinite([a, b]).all()
    assert sigmoid(a * np.array([1.5]) + b)[0] == pytest.approx(31 / 32, abs=0.02)


@pytest.mark.parametrize("kind", ["reversed", "noise", "constant", "all right", "all wrong"])
def test_map_never_falls_with_the_score(request, kind):
    rng = seeded(request.node.name)
    score = np.full(200, 0.3) if kind == "constant" else rng.standard_normal(200)
    quality = {
        "reversed": (score < 0).astype(float),
        "noise": (rng.random(200) < 0.5).astype(float),
        "constant": (rng.random(200) < 0.7).astype(float),
        "all right": np.ones(200),
        "all wrong": np.zeros(200),
    }[kind]
    a, b = fit_platt(score, quality)
    assert a >= 0
    mapped = sigmoid(a * np.sort(score) + b)
    assert (np.diff(mapped) >= 0).all()
    assert mapped.mean() == pytest.approx(quality.mean(), abs=0.01)  # 0.01 > 1 / 202, the pull of the smoothing


def test_folded_head_equals_head_then_map(request):
    rng = seeded(request.node.name)
    x, weights, bias = rng.standard_normal((50, 9)), rng.standard_normal((4, 9)), rng.standard_normal(4)
    slope, offset = rng.random(4) * 6, rng.standard_normal(4)
    folded = fold_platt({"skip": weights, "bias": bias, "out": 2 * weights}, slope, offset)
    score = x @ weights.T + bias
    np.testing.assert_allclose(x @ folded["skip"].T + folded["bias"], slope * score + offset, atol=1e-12)
    np.testing.assert_allclose(folded["out"], 2 * folded["skip"], atol=1e-12)


@pytest.mark.parametrize("quality", [np.array([0.5, 1.2]), np.array([0.5, np.nan]), np.array([0.5])])
def test_unusable_quality_is_refused(quality):
    with pytest.raises(InvalidInputError):
        fit_platt(np.array([0.1, 0.2]), quality)


def test_columns_fitted_at_once_are_fitted_as_alone(request, monkeypatch):
    rng = seeded(request.node.name)
    score = np.concatenate([rng.standard_normal((150, 5)), np.full((150, 1), 0.3)], axis=1)
    quality = (rng.random(score.shape) < sigmoid(2 * score)).astype(float)
    quality[:, 1], quality[:, 2] = (score[:, 1] > 0), (score[:, 2] < 0)  # separable, and reversed
    monkeypatch.setattr(platt, "AT_ONCE", 600)  # four columns, then two
    slope, offset = fit_platts(score, quality)
    for m in range(6):
        assert (slope[m], offset[m]) == pytest.approx(fit_platt(score[:, m], quality[:, m]), rel=1e-9)
    assert (slope[[2, 5]] == 0).all()


def table(name, rows, slope=2.0, offset=-0.5):
    """Return scores and qualities of three candidates, whose true map is the same."""
    rng = seeded(name, rows)
    score = rng.standard_normal((rows, 3))
    return score, (rng.random((rows, 3)) < sigmoid(slope * score + offset)).astype(float)


def test_a_pooled_map_is_near_that_of_all_where_a_candidate_has_few_rows(request):
    score, quality = table(request.node.name, 3000)
    quality[:30, 2] = 0.0  # thirty rows by chance all wrong
    rows = np.ones(quality.shape, bool)
    rows[30:, 2] = False
    slope, offset = fit_pooled_platt(score, quality, rows)
    common = fit_platt(score[rows], quality[rows])
    own = fit_platt(score[:30, 2], quality[:30, 2])
    for pooled, of_all, alone in ((slope[2], common[0], own[0]), (offset[2], common[1], own[1])):
        assert abs(alone - of_all) > 1
        assert abs(pooled - of_all) < 0.2 * abs(alone - of_all)


def test_a_pooled_map_becomes_the_candidates_own_with_many_rows(request):
    score, quality = table(request.node.name, 200_000)
    score[:, 2] += 1.0  # the third needs another offset
    slope, offset = fit_pooled_platt(score, quality, np.ones(quality.shape, bool))
    for m in range(3):
        a, b = fit_platt(score[:, m], quality[:, m])
        assert slope[m] == pytest.approx(a, abs=0.1)
        assert offset[m] == pytest.approx(b, abs=0.1)


def test_a_pooled_map_never_reverses_a_head(request):
    score, quality = table(request.node.name, 2000, slope=-2.0)
    slope, offset = fit_pooled_platt(score, quality, np.ones(quality.shape, bool))
    assert (slope >= 0).all()
    assert np.isfinite(offset).all()


@pytest.mark.parametrize("sparse", [False, True])
def test_maps_are_pooled_where_the_table_is_sparse_unless_asked_otherwise(request, sparse):
    rng = seeded(request.node.name)
    x = rng.standard_normal((200, 6))
    quality = (rng.random((200, 3)) < sigmoid(x[:, :3])).astype(float)
    if sparse:
        quality[60:, 2] = np.nan
    rows = HeadRows(x, quality, rng.integers(5, 90, quality.shape).astype(float), [str(i) for i in range(200)])
    maps = {
        pooled: fit_heads(rows, estimator="plain", pooled=pooled).settings["platt_offset"]
        for pooled in (None, False, True)
    }
    assert maps[None] == maps[sparse]
    assert maps[False] != maps[True]
