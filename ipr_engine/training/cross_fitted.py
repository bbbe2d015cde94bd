"""This file predicts every row by a fit that has not seen its question: by heads, by k-means, and by means that ignore the prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ipr_engine.measures.resampling import Resamples, grouped_folds
from ipr_engine.measures.routing import Axis, WeightedOutcomes, bounded_arqgc, single_curve, sweep_curve
from ipr_engine.measures.sweeps import worth_grid, worth_sweep
from ipr_engine.training.estimators.caps import kmeans, squared_distances
from ipr_engine.training.fitted_heads import HeadRows, fit_heads, predict
from ipr_engine.training.selection import PromptCosts

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

CLUSTERS = (4, 8, 16, 32)
PER_CLUSTER = 8  # rows at least, on average
INNER = 3  # folds that choose how many clusters


class Predicted(NamedTuple):
    """A `Predicted` holds predicted quality and cost in USD, (rows, models) each, and the rows that a fit saw, in the mean."""

    quality: Array
    cost: Array
    fitted_on: float


def heads_cross_fitted(
    rows: HeadRows,
    costs: PromptCosts,
    outer: Indices,
    *,
    estimator: str,
    options: Mapping[str, Any] = MappingProxyType({}),
    parts: int = 1,
    part: int = 0,
) -> Predicted:
    """Fit heads without each fold of `outer` (rows,), on one of as many parts of the other folds' questions, and predict the fold."""
    quality, length = np.empty_like(rows.quality), np.empty_like(rows.quality)
    seen = []
    for fold in np.unique(outer).tolist():
        out = outer == fold
        fitted = rows.take(~out)
        if parts > 1:
            fitted = fitted.take(grouped_folds(fitted.keys, parts, seed=fold) == part)
        heads = fit_heads(fitted, estimator=estimator, options=options)
        quality[out], length[out] = predict(heads.tensors, rows.x[out], heads.activation)
        seen.append(len(fitted.x))
    return Predicted(quality, costs.of_input + costs.output_rate * length, float(np.mean(seen)))


def means_cross_fitted(outcomes: WeightedOutcomes, outer: Indices) -> Predicted:
    """Predict every candidate's mean quality and cost of the other folds: what a sweep chooses is the hull of single candidates."""
    values = np.concatenate([outcomes.quality, outcomes.cost], axis=1)
    made = np.empty_like(values)
    for fold in np.unique(outer).tolist():
        out = outer == fold
        made[out] = values[~out].mean(axis=0)
    return _predicted(made, outcomes, outer)


def kmeans_cross_fitted(
    x: npt.NDArray[np.floating], outcomes: WeightedOutcomes, keys: Sequence[str], outer: Indices
) -> Predicted:
    """Predict the means of the prompt's cluster in the other folds; how many clusters is chosen by area, in folds of these."""
    unit = np.asarray(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-32), np.float64)
    values = np.concatenate([outcomes.quality, outcomes.cost], axis=1)
    made = np.empty_like(values)
    for fold in np.unique(outer).tolist():
        seen = outer != fold
        held = [key for key, kept in zip(keys, seen, strict=True) if kept]
        inner = grouped_folds(held, min(INNER, len(set(held))), seed=fold)
        clusters = _best_clusters(unit[seen], values[seen], outcomes.subset(seen), inner)
        made[~seen] = _cluster_means(unit[seen], values[seen], unit[~seen], clusters)
    return _predicted(made, outcomes, outer)


def _best_clusters(x: Array, values: Array, outcomes: WeightedOutcomes, inner: Indices) -> int:
    """Return how many clusters have the greatest area out of the inner folds; the fewest where areas are undefined."""
    most = max(1, int(len(x) * (1 - 1 / INNER)) // PER_CLUSTER)
    settings = [k for k in CLUSTERS if k <= most] or [1]
    once, axis, worths = Resamples(len(x), draws=0), Axis.of(outcomes), worth_grid(outcomes.cost)
    singles, areas = single_curve(outcomes, once), []
    for k in settings:
        table = np.empty_like(values)
        for fold in np.unique(inner).tolist():
            out = inner == fold
            table[out] = _cluster_means(x[~out], values[~out], x[out], k)
        choices = worth_sweep(table[:, : outcomes.models], table[:, outcomes.models :], worths)
        areas.append(bounded_arqgc(sweep_curve(choices, outcomes, once), axis, singles)[0])
    return settings[int(np.nan_to_num(np.asarray(areas), nan=-np.inf).argmax())]


def _cluster_means(x: Array, values: Array, at: Array, clusters: int) -> Array:
    """Return the means of values (rows, k) over the cluster of each of the rows `at`: (rows at, k)."""
    centroids = kmeans(x, clusters, 0, iterations=30)
    owner = squared_distances(x, centroids).argmin(axis=1)
    member = np.eye(clusters)[owner]  # (rows, clusters)
    sizes = member.sum(axis=0)[:, None]
    means = np.where(sizes > 0, member.T @ values / np.maximum(sizes, 1), values.mean(axis=0))
    return np.asarray(means[squared_distances(at, centroids).argmin(axis=1)])


def _predicted(made: Array, outcomes: WeightedOutcomes, outer: Indices) -> Predicted:
    folds = len(np.unique(outer))
    return Predicted(made[:, : outcomes.models], made[:, outcomes.models :], outcomes.rows * (1 - 1 / folds))
