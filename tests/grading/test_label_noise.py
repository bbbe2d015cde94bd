"""Repeated samples taken apart: known variances are found, and what more samples or more prompts would buy."""

from __future__ import annotations

import numpy as np
import pytest

from ipr_engine.errors import InvalidInputError
from ipr_engine.grading.label_noise import label_noise, scores_table
from tests.support.seeds import seeded


def made(prompts: int = 4000, models: int = 4, samples: int = 3, *, noise: float = 0.1, interaction: float = 0.1):
    """Scores of known parts: the prompt's 0.05 (standard deviation), an interaction, a noise; the models' means 0.44 to 0.56."""
    rng = seeded("label noise", prompts, noise, interaction)
    cell = 0.5 + rng.normal(0, 0.05, (prompts, 1)) + np.linspace(-0.06, 0.06, models)
    cell = cell + rng.normal(0, interaction, (prompts, models))
    return np.clip(cell[:, :, None] + rng.normal(0, noise, (prompts, models, samples)), 0, 1)


def test_known_variances_are_found():
    found = label_noise(made())
    assert found.within == pytest.approx(0.01, rel=0.05)
    assert found.interaction == pytest.approx(0.01, rel=0.1)
    assert found.means == pytest.approx(np.linspace(0.44, 0.56, 4), abs=0.01)


def test_reliability_is_the_correlation_of_two_samples():
    scores = made()
    one, other = scores[:, :, 0].ravel(), scores[:, :, 1].ravel()
    assert label_noise(scores).reliability() == pytest.approx(np.corrcoef(one, other)[0, 1], abs=0.02)
    assert label_noise(scores).reliability(9) > label_noise(scores).reliability(3)


def test_without_noise_nothing_of_the_oracle_gap_is_noise():
    found = label_noise(made(noise=0.0))
    assert found.within == pytest.approx(0, abs=1e-12)
    assert found.oracle_noise == pytest.approx(0, abs=1e-9)
    assert found.reliability() == pytest.approx(1)


def test_where_models_differ_by_noise_alone_the_whole_gap_is():
    scores = np.clip(0.5 + seeded("alike").normal(0, 0.1, (5000, 3, 3)), 0, 1)
    assert label_noise(scores).oracle_noise > 0.95


def test_the_standard_error_of_a_difference_is_that_of_many_draws():
    scores = made(20_000, models=2)
    parts = scores[:, 0, 0] - scores[:, 1, 0]
    of_100 = parts[: len(parts) // 100 * 100].reshape(-1, 100).mean(axis=1)
    assert label_noise(scores).standard_error(100) == pytest.approx(of_100.std(), rel=0.15)


def test_prompts_for_nothing_make_one_sample_best_and_dear_ones_more():
    found = label_noise(made())
    counts = [found.best_samples(call=1.0, prompt=prompt) for prompt in (0.0, 1.0, 16.0, 100.0)]
    assert counts[0] == 1
    assert counts == sorted(counts)
    assert counts[2] == 4  # noise and interaction alike: the root of what a prompt costs in calls
    with pytest.raises(InvalidInputError, match="call, prompt"):
        found.best_samples(call=0.0)


def test_prompts_with_a_single_sample_of_a_model_are_left_out():
    scores = made(50)
    scores[:10, 0, 1:] = np.nan
    scores[10:20, 1, 2] = np.nan
    assert label_noise(scores).prompts == 40


@pytest.mark.parametrize(
    ("scores", "told"),
    [
        (np.zeros((5, 3)), "expected \\(prompts, models, samples\\)"),
        (np.zeros((5, 1, 3)), "expected samples of two models or more, got those of 1"),
        (np.full((5, 2, 3), 1.5), "expected values in \\[0, 1\\]"),
        (np.zeros((5, 2, 1)), "every model has two samples, got 0"),
    ],
)
def test_wrong_scores_are_told(scores, told):
    with pytest.raises(InvalidInputError, match=told):
        label_noise(scores)


def test_rows_become_a_table_with_gaps():
    rows = [("p", "b", 1.0), ("p", "a", 0.0), ("q", "a", 0.5), ("p", "a", 1.0)]
    prompts, models, table = scores_table(rows)
    assert (prompts, models) == (["p", "q"], ["a", "b"])
    np.testing.assert_array_equal(table, [[[0, 1], [1, np.nan]], [[0.5, np.nan], [np.nan, np.nan]]])


def test_the_number_of_a_sample_says_nothing_of_it():
    scores = made(200, models=2, samples=2)
    apart = np.full((200, 2, 4), np.nan)
    apart[:, 0, :2], apart[:, 1, 2:] = scores[:, 0], scores[:, 1]
    assert label_noise(apart).to_json() == label_noise(scores).to_json()


def test_the_variance_of_a_mean_is_that_of_the_samples_there_are():
    scores = made(20_000, models=2, samples=8, interaction=0.0)
    scores[:, 1, 2:] = np.nan  # of the second candidate two are left
    found = label_noise(scores)
    assert (found.samples, found.within) == (8, pytest.approx(0.01, rel=0.05))
    assert found.within_mean == pytest.approx(0.01 * (1 / 8 + 1 / 2) / 2, rel=0.05)
