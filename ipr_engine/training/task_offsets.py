"""This file fits what a task adds to heads that were fitted without tasks: a number a candidate, on the logit and on the log of tokens.

    logit       = logit of the heads + b[task, candidate]          b ~ N(0, WIDTH^2), the most probable value
    log tokens  = log of the heads' tokens + r[task, candidate]    r the mean residual, shrunk by SHRINK rows of 0

Both are fitted to predictions out of fold. So a prompt of no task, or of one that no fit has seen, is predicted as by heads without
tasks: one-hot columns beside the embedding gain more where a task is named, and lose where it is not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ipr_engine.training.platt import sigmoid

Array = npt.NDArray[np.float64]

WIDTH = 1.0  # prior standard deviation of b, in logits
SHRINK = 4.0  # rows without a residual that every task is taken to have as well
STEPS, ENOUGH = 50, 1e-8  # Newton's: the most, and the greatest change that ends them
LONGEST = 2.0  # step, so that none goes astray


def quality_offsets(logit: Array, quality: Array, tasks: Array) -> Array:
    """Return b, (tasks, models).

    Args:
        logit: (rows, models), out of fold. quality: (rows, models) in [0, 1], NaN where not judged.
        tasks: (rows, tasks), 1 in the column of each row's task, else 0.
    """
    known = ~np.isnan(quality)
    target, judged = np.where(known, quality, 0.0), known.astype(np.float64)
    offsets = np.zeros((tasks.shape[1], quality.shape[1]))
    for _ in range(STEPS):
        chance = sigmoid(logit + tasks @ offsets)
        gradient = tasks.T @ (target - judged * chance) - offsets / WIDTH**2
        curvature = tasks.T @ (judged * chance * (1 - chance)) + 1 / WIDTH**2
        step = np.clip(gradient / curvature, -LONGEST, LONGEST)
        offsets += step
        if np.abs(step).max() < ENOUGH:
            break
    return offsets


def token_offsets(predicted: Array, tokens: Array, tasks: Array) -> Array:
    """Return r, (tasks, models).

    predicted, tokens: (rows, models), out of fold, and as they were, NaN where unknown. tasks: as for `quality_offsets`.
    """
    residual = np.log(np.maximum(tokens, 1.0)) - np.log(predicted)
    known = ~np.isnan(residual)
    total = tasks.T @ np.where(known, residual, 0.0)
    return np.asarray(total / (tasks.T @ known.astype(np.float64) + SHRINK))


def held_out(fit: Callable[[npt.NDArray[np.bool_]], Array], tasks: Array, folds: npt.NDArray[np.int64]) -> Array:
    """Return (rows, models) what each row's task adds by a fit that has not seen its fold. fit: a mask of rows -> offsets."""
    made = [(out, tasks[out] @ fit(~out)) for out in (folds == fold for fold in np.unique(folds))]
    added = np.empty((len(tasks), made[0][1].shape[1]))
    for out, values in made:
        added[out] = values
    return added


class WithTasks(NamedTuple):
    """A `WithTasks` holds heads that read tasks too: their tensors, and quality and tokens, (rows, models), predicted out of fold."""

    tensors: dict[str, Array]
    quality: Array
    tokens: Array


def add_tasks(
    tensors: Mapping[str, Array],
    logit: Array,
    predicted: Array,
    quality: Array,
    tokens: Array,
    tasks: Array,
    folds: npt.NDArray[np.int64],
) -> WithTasks:
    """Add what tasks add to heads on the embedding, and surface features behind it; their columns come between the two.

    Args:
        tensors: of the heads, as docs/formats.md names them; the products take the embedding alone.
        logit, predicted: (rows, models), of quality and of output tokens, out of fold.
        quality, tokens: (rows, models), as they were, NaN where unknown. tasks: as for `quality_offsets`. folds: (rows,).
    """

    def of_quality(rows: npt.NDArray[np.bool_]) -> Array:
        return quality_offsets(logit[rows], quality[rows], tasks[rows])

    def of_tokens(rows: npt.NDArray[np.bool_]) -> Array:
        return token_offsets(predicted[rows], tokens[rows], tasks[rows])

    every, count = np.ones(len(tasks), np.bool_), tasks.shape[1]
    models, dim = tensors["len_skip"].shape
    made = {"skip": np.zeros((models, dim)), **tensors}
    for name in ("trunk", "down"):  # no region of x is one of tasks
        if name in made:
            made[name] = np.pad(made[name], [(0, 0)] * (made[name].ndim - 1) + [(0, count)])
    made["skip"] = np.concatenate([made["skip"], of_quality(every).T], axis=1)
    made["len_skip"] = np.concatenate([made["len_skip"], of_tokens(every).T], axis=1)
    if "tree_column" in made:  # surface features have moved
        made["tree_column"] = np.where(made["tree_column"] < dim, made["tree_column"], made["tree_column"] + count)
    length = predicted * np.exp(held_out(of_tokens, tasks, folds))
    return WithTasks(made, sigmoid(logit + held_out(of_quality, tasks, folds)), np.minimum(length, tensors["len_cap"]))
