from __future__ import annotations

import numpy as np
import pytest

from ipr_engine.errors import InvalidInputError
from ipr_engine.training.fitted_heads import fit_platt, fold_platt, sigmoid
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
