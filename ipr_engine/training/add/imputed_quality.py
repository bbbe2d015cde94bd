"""`impute_quality` says how well a new candidate would have done on prompts that it was not asked, from how others did there.

Candidates fail on much the same prompts. Some answers locate the newcomer among the others:

    logit = b + s * (mean quality of the others) + sum over k of d[k] * (quality k - mean) + w . z

where z are the leading directions of the embeddings, and the prior is Gaussian: s ~ N(4, 1), d ~ N(0, 0.5^2), w ~ N(0, 0.15^2), b
free. The others' outcomes on the rest of the table then say what the newcomer would have scored there, and its row is fitted on the
whole table in place of a few prompts (docs/studies/chosen_prompts.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ipr_engine.errors import InvalidInputError
from ipr_engine.training.add.most_probable import most_probable, platt_targets
from ipr_engine.training.fitted_heads import sigmoid

Array = npt.NDArray[np.float64]

LEVEL_SHARE, LEVEL_WIDTH = 4.0, 1.0  # prior mean and standard deviation of s
OTHERS_WIDTH = 0.5  # of each d
MOST_PROMPTS = 1000  # of a table, those judged first: more tell little more of a newcomer, and a fit takes longer
DIRECTIONS, DIRECTION_WIDTH = 16, 0.15  # of z, each scaled to a standard deviation of about 1


@dataclass(frozen=True)
class ImputedQuality:
    """An `ImputedQuality` holds a candidate's quality on every prompt of a table.

    Attributes:
        judged: (rows,) whether the quality is its own outcome.
        quality: (rows,) in [0, 1], elsewhere imputed.
        unseen: (folds, rows) the same without the outcomes of one fold: there it is imputed by answers of the other folds alone.
    """

    judged: npt.NDArray[np.bool_]
    quality: Array
    unseen: Array


def impute_quality(x: Array, quality: Array, others: Array, folds: npt.NDArray[np.int64]) -> ImputedQuality:
    """Impute the quality of a candidate where it is not judged.

    Args:
        x: (rows, dim) embeddings. quality: (rows,) in [0, 1], NaN where not judged.
        others: (rows, K) realised quality of other candidates, in [0, 1]. folds: (rows,) fold numbers.
    Raises:
        InvalidInputError: shapes disagree, a value is out of range, or a fold holds every judged row.
    """
    if x.ndim != 2 or others.ndim != 2 or not others.size or not len(x) == len(quality) == len(others) == len(folds):
        raise InvalidInputError(
            f"x, quality, others, folds: expected equal rows and some others, got {x.shape}, {quality.shape}, {others.shape} and "
            f"{folds.shape}"
        )
    if not np.isfinite(x).all() or not ((others >= 0) & (others <= 1)).all() or ((quality < 0) | (quality > 1)).any():
        raise InvalidInputError("x, quality, others: expected finite x, and qualities in [0, 1]")
    judged = ~np.isnan(quality)
    level = others.mean(axis=1, keepdims=True)
    columns = np.concatenate([level, others - level, _directions(x)], axis=1)
    directions = columns.shape[1] - 1 - others.shape[1]
    prior = np.zeros(columns.shape[1])
    prior[0] = LEVEL_SHARE
    widths = np.repeat([LEVEL_WIDTH, OTHERS_WIDTH, DIRECTION_WIDTH], [1, others.shape[1], directions])

    def imputed(rows: npt.NDArray[np.bool_]) -> Array:
        if not rows.any():
            raise InvalidInputError("folds: expected judged rows in more than one fold")
        weights, bias = most_probable(
            columns[rows], platt_targets(quality[rows]), prior, 1 / np.square(widths), None, prior, 0.0
        )
        return np.where(rows, quality, sigmoid(columns @ weights + bias))

    unseen = np.stack([imputed(judged & (folds != fold)) for fold in range(int(folds.max()) + 1)])
    return ImputedQuality(judged, imputed(judged), unseen)


def rows_to_impute(quality: Array, *, seed: int = 0) -> npt.NDArray[np.int64]:
    """Return rising rows of a table to impute on: where `quality` (rows,) is judged, and others, `MOST_PROMPTS` in all if there are."""
    judged = ~np.isnan(quality)
    rest = np.random.default_rng(seed).permutation(np.flatnonzero(~judged))
    return np.sort(np.concatenate([np.flatnonzero(judged), rest[: max(0, MOST_PROMPTS - int(judged.sum()))]]))


def _directions(x: Array) -> Array:
    """Return x (rows, dim) along its leading directions, scaled by the root mean square of all of them."""
    centred = x - x.mean(axis=0)
    vectors = np.linalg.eigh(centred.T @ centred)[1][:, ::-1][:, :DIRECTIONS]  # eigh sorts by rising eigenvalue
    along = centred @ vectors
    return np.asarray(along / max(float(along.std()), 1e-12))
