"""Losses of quality heads: their formulas, their gradients, and that what was not judged has no influence."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.seeds import seeded

torch = pytest.importorskip("torch", reason="needs extra [train]: torch, for networks")

from ipr_engine.training.estimators.network_fit import mixed_loss  # noqa: E402

CASES = [
    ("squared", "identity"),
    ("squared", "sigmoid"),
    ("cross_entropy", "sigmoid"),
    ("pairwise", "sigmoid"),
    ("pairwise", "identity"),
]


def draw(*seed, rows=7, models=4, missing=0.3):
    """Scores, and qualities of three grades of which about `missing` are not judged."""
    rng = seeded("losses", *seed)
    score = rng.standard_normal((rows, models)) * 2
    quality = rng.choice([0.0, 0.4, 1.0], (rows, models))
    quality[rng.random(quality.shape) < missing] = np.nan
    return score, quality


def loss(score, quality, mix, link="sigmoid"):
    return float(mixed_loss(torch.tensor(score), torch.tensor(quality), mix, link))


def by_hand(name, score, quality, link):
    """The formulas of the module, pair by pair."""
    total = weight = 0.0
    for s, q in zip(score, quality, strict=True):
        judged = np.flatnonzero(~np.isnan(q))
        if name == "pairwise":
            for i in judged:
                for j in judged:
                    if q[i] > q[j]:
                        total += (q[i] - q[j]) * np.log1p(np.exp(s[j] - s[i]))
                        weight += q[i] - q[j]
            continue
        for m in judged:
            p = 1 / (1 + np.exp(-s[m]))
            if name == "squared":
                total += ((s[m] if link == "identity" else p) - q[m]) ** 2
            else:
                total -= q[m] * np.log(p) + (1 - q[m]) * np.log(1 - p)
            weight += 1
    return total / weight


@pytest.mark.parametrize(("name", "link"), CASES)
def test_a_loss_is_its_formula(name, link):
    score, quality = draw(name, link)
    assert loss(score, quality, {name: 1.0}, link) == pytest.approx(by_hand(name, score, quality, link), rel=1e-12)


@pytest.mark.parametrize(("name", "link"), CASES)
def test_gradients_are_those_of_finite_differences(name, link):
    score, quality = draw("gradient", name, link)
    leaf = torch.tensor(score, requires_grad=True)
    mixed_loss(leaf, torch.tensor(quality), {name: 1.0}, link).backward()
    step = 1e-5  # central differences: error about step^2
    for r, m in np.ndindex(*score.shape):
        ahead, behind = score.copy(), score.copy()
        ahead[r, m] += step
        behind[r, m] -= step
        slope = (loss(ahead, quality, {name: 1.0}, link) - loss(behind, quality, {name: 1.0}, link)) / (2 * step)
        assert float(leaf.grad[r, m]) == pytest.approx(slope, abs=1e-8)


@pytest.mark.parametrize(("name", "link"), CASES)
def test_the_score_of_an_unjudged_candidate_has_no_influence(name, link):
    score, quality = draw("mask", name, link)
    other = np.where(np.isnan(quality), 50.0, score)
    assert loss(score, quality, {name: 1.0}, link) == loss(other, quality, {name: 1.0}, link)
    leaf = torch.tensor(score, requires_grad=True)
    mixed_loss(leaf, torch.tensor(quality), {name: 1.0}, link).backward()
    assert (leaf.grad.numpy()[np.isnan(quality)] == 0).all()


@pytest.mark.parametrize(("name", "link"), CASES)
def test_a_candidate_nobody_judged_might_as_well_not_be_there(name, link):
    score, quality = draw("column", name, link)
    quality[:, 1] = np.nan
    without = loss(np.delete(score, 1, axis=1), np.delete(quality, 1, axis=1), {name: 1.0}, link)
    assert loss(score, quality, {name: 1.0}, link) == pytest.approx(without, rel=1e-14)


@pytest.mark.parametrize("name", ["squared", "cross_entropy", "pairwise"])
def test_rows_without_a_judgement_give_zero_and_no_gradient(name):
    leaf = torch.zeros(3, 2, requires_grad=True)
    value = mixed_loss(leaf, torch.full((3, 2), torch.nan), {name: 1.0}, "sigmoid")
    value.backward()
    assert float(value.detach()) == 0
    assert (leaf.grad == 0).all()


def test_a_mix_is_the_weighted_sum():
    score, quality = draw("mix")
    mix = {"squared": 1.0, "cross_entropy": 0.5, "pairwise": 0.25}
    parts = sum(weight * loss(score, quality, {name: 1.0}) for name, weight in mix.items())
    assert loss(score, quality, mix) == pytest.approx(parts, rel=1e-14)


def test_extreme_scores_stay_finite():
    score = np.array([[800.0, -800.0]])
    for name in ("squared", "cross_entropy", "pairwise"):
        assert np.isfinite(loss(score, np.array([[0.0, 1.0]]), {name: 1.0}))
