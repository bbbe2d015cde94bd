"""Candidates are predicted fold by fold, by heads that were fitted on the other folds of questions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ipr_engine.measures.resampling import grouped_folds, one_thread
from ipr_engine.measures.routing import WeightedOutcomes
from ipr_engine.training.fitted_heads import HeadRows, fit_heads, predict
from studies.trials import NANO

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

FOLDS = 5
ESTIMATOR = "caps"


def folds_of(keys: Sequence[str]) -> npt.NDArray[np.int64]:
    """Return the fold of each row; copies of one question share one."""
    return grouped_folds(keys, FOLDS, 0)


def crossed(x: Array, outcomes: WeightedOutcomes, keys: Sequence[str]) -> tuple[Array, Array]:
    """Predict quality and cost of every row by the other folds, (rows, models) each. x: (rows, dim). keys: (rows,) questions."""
    folds = folds_of(keys)
    quality, cost = np.empty_like(outcomes.quality), np.empty_like(outcomes.cost)
    for fold in range(FOLDS):
        out = folds == fold
        quality[out], cost[out] = predict_others(x, outcomes.quality, outcomes.cost, keys, ~out)
    return quality, cost


def predict_others(
    x: Array,
    quality: Array,
    cost: Array,
    keys: Sequence[str],
    fit: Mask,
    *,
    estimator: str = ESTIMATOR,
    head_dim: int = 0,
) -> tuple[Array, Array]:
    """Fit heads on the rows `fit` and predict the others: quality and cost, (other rows, columns) each. head_dim: as of `HeadRows`."""
    with one_thread():
        rows = HeadRows(x[fit], quality[fit], cost[fit] * NANO, kept(keys, fit), head_dim=head_dim)
        heads = fit_heads(rows, estimator=estimator)
        found, tokens = predict(heads.tensors, x[~fit], heads.activation)
    return found, tokens / NANO


def kept(keys: Sequence[str], rows: Mask) -> list[str]:
    """Return the keys of these rows."""
    return [key for key, keeps in zip(keys, rows, strict=True) if keeps]
