from __future__ import annotations

import numpy as np
import pytest

from ipr_engine.errors import InvalidInputError
from ipr_engine.measures.resampling import grouped_folds
from ipr_engine.training.estimators.caps import kmeans
from ipr_engine.training.fitted_parts import FEWEST_NEAR, fit_support, nearest_distance, without_few
from tests.support.seeds import seeded
from tests.support.training_data import make_world


def support_of(x, support):
    """docs/formats.md, counted on the percentiles."""
    return (nearest_distance(x, support["centroids"].astype(float))[:, None] < support["distances"]).mean(axis=1)


def test_kmeans_finds_separate_clusters(request):
    rng = seeded(request.node.name)
    centres = rng.standard_normal((7, 5)) * 20
    x = np.repeat(centres, 31, axis=0) + 0.01 * rng.standard_normal((217, 5))
    found = kmeans(x, 7, seed=0)
    assert nearest_distance(centres, found).max() < 0.05


@pytest.mark.parametrize("k", [1, 3, 11])
def test_kmeans_centroids_are_means_of_their_rows(request, k):
    x = make_world(request.node.name, rows=200).x
    centroids = kmeans(x, k, seed=1)
    owner = np.square(x[:, None] - centroids).sum(axis=2).argmin(axis=1)
    for j in range(k):
        np.testing.assert_allclose(centroids[j], x[owner == j].mean(axis=0), atol=1e-9)


def test_kmeans_leaves_its_input_alone(request):
    x = make_world(request.node.name, rows=50).x
    before = x.copy()
    kmeans(x, 1, seed=0)
    np.testing.assert_array_equal(x, before)


def test_kmeans_takes_more_centroids_than_distinct_rows():
    x = np.repeat(np.eye(2), 5, axis=0)
    assert np.isfinite(kmeans(x, 4, seed=0)).all()
    with pytest.raises(InvalidInputError, match="k"):
        kmeans(x, 11, seed=0)


def test_percentiles_are_those_of_held_out_rows(request):
    world = make_world(request.node.name, rows=150)
    folds = grouped_folds(world.keys, 5, seed=0)
    support = fit_support(world.x, folds, 6, seed=2)
    assert support["centroids"].shape == (6, 13)
    assert support["centroids"].dtype == support["distances"].dtype == np.float32
    held_out = np.concatenate(
        [
            nearest_distance(x, without_few(rest, kmeans(rest, 6, seed=2)))
            for x, rest in ((world.x[folds == f], world.x[folds != f]) for f in range(5))
        ]
    )
    np.testing.assert_allclose(support["distances"], np.percentile(held_out, range(101)), rtol=1e-6)
    assert (np.diff(support["distances"]) >= 0).all()


def test_no_centroid_is_of_few_prompts(request):
    rng = seeded(request.node.name)
    many, few = rng.standard_normal((60, 5)), 50 + rng.standard_normal((FEWEST_NEAR - 1, 5))
    x = np.concatenate([many, few, np.repeat(90 + np.ones((1, 5)), 40, axis=0)])  # the last: one prompt many times
    centroids = without_few(x, kmeans(x, 3, seed=0))
    assert len(centroids) == 1
    assert np.abs(centroids).max() < 10
    alone = without_few(few, kmeans(few, 3, seed=0))
    np.testing.assert_allclose(alone, few.mean(axis=0, keepdims=True))


def test_support_is_half_on_fresh_prompts_and_zero_far_away(request):
    rng = seeded(request.node.name)
    x = rng.standard_normal((3000, 8))
    folds = grouped_folds([str(i) for i in range(2000)], 5, seed=0)
    support = fit_support(x[:2000], folds, 16, seed=0)
    assert support_of(x[2000:], support).mean() == pytest.approx(0.5, abs=0.05)
    assert (support_of(x[2000:] + 100, support) == 0).all()


def test_same_seed_same_bytes(request):
    world = make_world(request.node.name)
    folds = grouped_folds(world.keys, 5, seed=0)
    one, two = (fit_support(world.x, folds, 9, seed=5) for _ in range(2))
    assert {name: value.tobytes() for name, value in one.items()} == {
        name: value.tobytes() for name, value in two.items()
    }
