"""Support: how near a prompt lies to the prompts the heads were fitted on (docs/formats.md).

k-means centroids of the fitting embeddings, and the percentiles of the distance to the nearest centroid over prompts
that were held out when centroids were fitted: a prompt's own centroid would flatter it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ipr_engine.errors import InvalidInputError

Array = npt.NDArray[np.float64]

PROMPTS_PER_CENTROID = 32  # on average: of few prompts a centroid tells the words (docs/privacy.md)
FEWEST = 10  # different prompts that a centroid is the mean of


def nearest_distance(x: Array, centroids: Array) -> Array:
    """Euclidean distance of each row of (rows, dim) to the nearest of (k, dim), shape (rows,)."""
    return np.asarray(np.sqrt(squared_distances(x, centroids).min(axis=1)))


def squared_distances(x: Array, centroids: Array) -> Array:
    cross = np.square(x).sum(axis=1)[:, None] + np.square(centroids).sum(axis=1) - 2.0 * (x @ centroids.T)
    return np.asarray(np.maximum(cross, 0.0))


def kmeans(x: Array, k: int, seed: int, *, iterations: int = 100) -> Array:
    """Lloyd's algorithm from a k-means++ start; an emptied centroid moves to the worst-served row. Returns (k, dim)."""
    if not 1 <= k <= len(x):
        raise InvalidInputError(f"k: expected 1 to {len(x)} (the rows), got {k}")
    random = np.random.default_rng(seed)
    centroids: Array = x[[random.integers(len(x))]]  # a copy: x is the caller's
    while len(centroids) < k:
        nearest = squared_distances(x, centroids).min(axis=1)
        total = nearest.sum()
        chance = nearest / total if total > 0 else None  # fewer distinct rows than k: any row will do
        centroids = np.vstack([centroids, x[random.choice(len(x), p=chance)]])
    owner = np.full(len(x), -1)
    for _ in range(iterations):
        squared = squared_distances(x, centroids)
        previous, owner = owner, squared.argmin(axis=1)
        if (owner == previous).all():
            break
        served = squared.min(axis=1)
        for j in range(k):
            mine = owner == j
            if mine.any():
                centroids[j] = x[mine].mean(axis=0)
            else:
                worst = int(served.argmax())
                centroids[j], served[worst] = x[worst], 0.0
    return centroids


def without_few(x: Array, centroids: Array) -> Array:
    """The centroids (k, dim) nearest to at least `FEWEST` different rows of x; the mean of x where there is none.

    A centroid of one prompt is that prompt's embedding, from which most of its words can be read (docs/privacy.md).
    """
    owner = squared_distances(x, centroids).argmin(axis=1)
    different = np.array([len(np.unique(x[owner == j], axis=0)) for j in range(len(centroids))])
    kept = different >= FEWEST
    return centroids[kept] if kept.any() else x.mean(axis=0, keepdims=True)


def fit_support(x: Array, folds: npt.NDArray[np.int64], k: int, seed: int) -> dict[str, npt.NDArray[np.float32]]:
    """The bundle's support tensors: `centroids` (at most k, dim) of all rows, `distances` (101,) of the held-out ones."""
    held_out = np.empty(len(x))
    for fold in np.unique(folds):
        rows = folds == fold
        held_out[rows] = nearest_distance(x[rows], without_few(x[~rows], kmeans(x[~rows], k, seed)))
    return {
        "centroids": without_few(x, kmeans(x, k, seed)).astype(np.float32),
        "distances": np.percentile(held_out, np.arange(101)).astype(np.float32),
    }
