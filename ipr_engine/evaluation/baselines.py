"""A router has to beat these baselines: simple estimators of quality and cost fitted on training outcomes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine._extras import need
from ipr_engine.measures.resampling import Resamples
from ipr_engine.measures.routing import Axis, WeightedOutcomes, bounded_arqgc, single_curve, sweep_curve
from ipr_engine.measures.sweeps import worth_grid, worth_sweep
from ipr_engine.training.estimators.ridge import fit_ridge

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

NEIGHBOURS = (5, 10, 20, 40, 80, 160, 320)
CLUSTERS = (2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class Predictions:
    """`Predictions` are an estimator's, for test rows, and for training rows out of fold; and what tuning chose.

    Attributes:
        quality, cost: (test rows, models). train_quality, train_cost: (train rows, models), out of fold.
    """

    quality: Array
    cost: Array
    train_quality: Array
    train_cost: Array
    setting: str


def knn(
    x: Array, train: WeightedOutcomes, folds: Indices, test_x: Array, neighbours: Sequence[int] = NEIGHBOURS
) -> Predictions:
    """Predict mean quality and cost of the k nearest training prompts by cosine; k has the greatest out-of-fold area on train."""
    from_sklearn = need("sklearn.neighbors", "the kNN baseline", "eval")
    unit = _unit(x)
    values = np.concatenate([train.quality, train.cost], axis=1)

    def averages(near: Any, of: Array, at: Array, ks: Sequence[int]) -> list[Array]:
        running = np.cumsum(of[near.kneighbors(_unit(at), return_distance=False)], axis=1)  # (rows, k, 2 models)
        return [running[:, min(k, len(of)) - 1] / min(k, len(of)) for k in ks]

    # Blocks of 512 rows bound the memory of (rows, neighbours, 2 models).
    def in_blocks(fit: Array, of: Array, at: Array, ks: Sequence[int]) -> list[Array]:
        near = from_sklearn.NearestNeighbors(n_neighbors=min(max(ks), len(fit)), algorithm="brute").fit(fit)
        blocks = [averages(near, of, part, ks) for part in np.array_split(at, max(1, len(at) // 512))]
        return [np.concatenate(parts) for parts in zip(*blocks, strict=True)]

    ks = sorted({k for k in neighbours if k <= len(x) // 2} or {1})
    held = [np.empty_like(values) for _ in ks]
    for fold in np.unique(folds):
        out = folds == fold
        for table, part in zip(held, in_blocks(unit[~out], values[~out], x[out], ks), strict=True):
            table[out] = part
    # k is chosen on rows that each table has not seen, then all training rows are neighbours.
    k, table = _best(ks, held, train)
    final = in_blocks(unit, values, test_x, [k])[0]
    return _split(final, table, train.models, f"k = {k}")


def kmeans(
    x: Array, train: WeightedOutcomes, folds: Indices, test_x: Array, clusters: Sequence[int] = CLUSTERS, seed: int = 0
) -> Predictions:
    """Predict mean quality and cost of the prompt's k-means cluster; k has the greatest out-of-fold area on train."""
    from_sklearn = need("sklearn.cluster", "the k-means baseline", "eval")
    unit, test_unit = _unit(x), _unit(test_x)
    values = np.concatenate([train.quality, train.cost], axis=1)

    def averages(fit: Array, of: Array, at: Array, k: int) -> Array:
        model = from_sklearn.KMeans(n_clusters=k, n_init=3, random_state=seed).fit(fit)
        means = np.stack([of[model.labels_ == c].mean(axis=0) for c in range(k)])
        return np.asarray(means[model.predict(at)])

    # At most half as many clusters as different prompts: a cluster of one prompt is that prompt.
    ks = [k for k in clusters if k <= len(np.unique(unit, axis=0)) // 2] or [1]
    held = [np.empty_like(values) for _ in ks]
    for fold in np.unique(folds):
        out = folds == fold
        for table, k in zip(held, ks, strict=True):
            table[out] = averages(unit[~out], values[~out], unit[out], k)
    k, table = _best(ks, held, train)
    return _split(averages(unit, values, test_unit, k), table, train.models, f"k = {k}")


def ridge(x: Array, train: WeightedOutcomes, folds: Indices, test_x: Array) -> Predictions:
    """Predict every quality and every cost by plain ridge, a penalty each of least squared error out of fold; clipped."""
    values = np.concatenate([train.quality, train.cost], axis=1)
    fit = fit_ridge(x, values, folds)
    low = np.concatenate([np.zeros(train.models), train.cost.min(axis=0)])
    high = np.concatenate([np.ones(train.models), train.cost.max(axis=0)])
    final = np.clip(test_x @ fit.weights.T + fit.bias, low, high)
    return _split(final, np.clip(fit.out_of_fold, low, high), train.models, "a penalty a target")


def training_means(x: Array, train: WeightedOutcomes, folds: Indices, test_x: Array) -> Predictions:
    """Predict the training means for every row, of the training rows too: what ignoring the prompt gives."""
    quality, cost = np.nanmean(train.quality, axis=0), np.nanmean(train.cost, axis=0)
    here, there = (len(test_x), 1), (len(x), 1)
    return Predictions(np.tile(quality, here), np.tile(cost, here), np.tile(quality, there), np.tile(cost, there), "")


def _best(settings: Sequence[int], tables: Sequence[Array], train: WeightedOutcomes) -> tuple[int, Array]:
    """Return the setting whose out-of-fold `worth` sweep has the greatest area; ties and undefined areas go to the largest."""
    once, axis, worths = Resamples(train.rows, draws=0), Axis.of(train), worth_grid(train.cost)
    singles = single_curve(train, once)
    areas = []
    for table in tables:
        choices = worth_sweep(table[:, : train.models], table[:, train.models :], worths)
        areas.append(bounded_arqgc(sweep_curve(choices, train, once), axis, singles)[0])
    order = np.nan_to_num(np.asarray(areas), nan=-np.inf)
    best = len(order) - 1 - int(order[::-1].argmax())  # argmax from the end: ties go to the largest setting
    return settings[best], tables[best]


def _split(final: Array, held: Array, models: int, setting: str) -> Predictions:
    return Predictions(final[:, :models], final[:, models:], held[:, :models], held[:, models:], setting)


def _unit(x: Array) -> Array:
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-32))


def crossed(fit: Fitting, x: Array, outcomes: WeightedOutcomes, folds: Indices) -> Predictions:
    """Predict each fold by a fit on the others, tuned within them: no row is predicted by what has seen its question."""
    quality, cost = np.empty_like(outcomes.quality), np.empty_like(outcomes.cost)
    settings = []
    for fold in np.unique(folds):
        out = folds == fold
        found = fit(x[~out], outcomes.subset(~out), folds[~out], x[out])
        quality[out], cost[out] = found.quality, found.cost
        settings.append(found.setting)
    return Predictions(quality, cost, quality, cost, "; ".join(dict.fromkeys(settings)))


Fitting = Callable[[Array, WeightedOutcomes, Indices, Array], Predictions]
ESTIMATORS: dict[str, Fitting] = {
    "kNN": knn,
    "k-means": kmeans,
    "ridge": ridge,
}
