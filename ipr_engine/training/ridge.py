"""Ridge regression in closed form, with the penalty chosen by cross-validation, plain or as difficulty + advantage.

    minimise  sum over rows of (y - w.x - b)^2  +  penalty * |w|^2          (b is not penalised)

One eigendecomposition of the centred Gram matrix serves every penalty and every target.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ipr_engine.errors import InvalidInputError

Array = npt.NDArray[np.float64]

# Rows have norm 1, so the Gram's eigenvalues sum to the number of rows; this spans "no shrinkage" to "only the mean".
PENALTIES: Array = np.geomspace(1e-2, 1e4, 25)

RANKS = (1, 2, 3, 4)

FORMS = ("plain", "advantage_shared", "advantage_each", *(f"advantage_rank{rank}" for rank in RANKS))


@dataclass(frozen=True)
class RidgeFit:
    """Linear scores `x @ weights.T + bias` of several targets, and what was learned about them out of fold.

    Attributes:
        weights: (targets, dim).
        bias: (targets,).
        out_of_fold: (rows, targets), each row scored by weights that have not seen its fold, at the penalties (and, for
            the rank forms, the projection) chosen on all rows.
        penalties: what was chosen, by part: {"each": [...]} or {"difficulty": .., "advantage": [...]}.
    """

    weights: Array
    bias: Array
    out_of_fold: Array
    penalties: dict[str, list[float]]


def ridge_path(x: Array, y: Array, penalties: Array) -> tuple[Array, Array]:
    """Weights (penalties, targets, dim) and bias (penalties, targets) of every target at every penalty > 0."""
    x_mean, y_mean = x.mean(axis=0), y.mean(axis=0)
    centred = x - x_mean
    eigenvalues, vectors = np.linalg.eigh(centred.T @ centred)  # (dim,), (dim, dim)
    projected = vectors.T @ (centred.T @ (y - y_mean))  # (dim, targets)
    shrunk = projected[None] / (np.maximum(eigenvalues, 0.0)[None, :, None] + penalties[:, None, None])
    weights = np.swapaxes(vectors @ shrunk, 1, 2)
    return weights, y_mean - weights @ x_mean


def out_of_fold_path(x: Array, y: Array, folds: npt.NDArray[np.int64], penalties: Array) -> Array:
    """Scores (penalties, rows, targets), each row scored by the fit on all the other folds."""
    scores = np.full((len(penalties), *y.shape), np.nan)
    for fold in np.unique(folds):
        held_out = folds == fold
        weights, bias = ridge_path(x[~held_out], y[~held_out], penalties)
        scores[:, held_out] = x[held_out] @ np.swapaxes(weights, 1, 2) + bias[:, None]
    return scores


def fit_ridge(
    x: Array, y: Array, folds: npt.NDArray[np.int64], *, shared: bool = False, penalties: Array = PENALTIES
) -> RidgeFit:
    """Fit every target; the penalty is the one of least squared error out of fold, per target or `shared` by all.

    Args:
        x: (rows, dim). y: (rows, targets). folds: (rows,) fold numbers, see `folds.grouped_folds`.

    Raises:
        InvalidInputError: shapes disagree, a value is not finite, or a penalty is not positive.
    """
    if x.ndim != 2 or y.ndim != 2 or not len(x) == len(y) == len(folds):
        raise InvalidInputError(f"x, y, folds: expected equal rows, got {x.shape}, {y.shape}, {folds.shape}")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise InvalidInputError("x, y: expected finite values; drop incomplete rows first")
    if not (penalties > 0).all():
        raise InvalidInputError(f"penalties: expected values > 0, got {penalties.min()}")
    scores = out_of_fold_path(x, y, folds, penalties)
    error = np.square(scores - y).mean(axis=1)  # (penalties, targets)
    targets = np.arange(y.shape[1])
    best = np.full(len(targets), error.mean(axis=1).argmin()) if shared else error.argmin(axis=0)
    weights, bias = ridge_path(x, y, penalties)
    return RidgeFit(
        weights[best, targets],
        bias[best, targets],
        scores[best, :, targets].T,
        {"each": [float(penalties[i]) for i in (best[:1] if shared else best)]},
    )


def fit_difficulty_advantage(
    x: Array,
    y: Array,
    folds: npt.NDArray[np.int64],
    *,
    shared: bool = True,
    rank: int | None = None,
    penalties: Array = PENALTIES,
) -> RidgeFit:
    """Fit the row's mean (its difficulty) and each target's deviation from it (its advantage) apart, then add them up.

    The difficulty is easy to predict and decides nothing; the advantages decide and are hard to predict. Apart, each
    gets the penalty it needs. The sum is again one linear score per target, so it costs nothing at run time.

    With a `rank`, the advantages keep only the directions over targets in which their out-of-fold scores vary most
    (reduced-rank regression): candidates differ in a few skills, the rest of what ridge finds is noise.
    """
    mean = y.mean(axis=1, keepdims=True)
    difficulty = fit_ridge(x, mean, folds, penalties=penalties)
    advantage = fit_ridge(x, y - mean, folds, shared=shared, penalties=penalties)
    if rank is not None:
        advantage = _of_rank(advantage, (y - mean).mean(axis=0), rank)
    return RidgeFit(
        difficulty.weights + advantage.weights,
        difficulty.bias + advantage.bias,
        difficulty.out_of_fold + advantage.out_of_fold,
        {"difficulty": difficulty.penalties["each"], "advantage": advantage.penalties["each"]},
    )


def _of_rank(fit: RidgeFit, level: Array, rank: int) -> RidgeFit:
    """Project scores around `level` (targets,) onto the leading `rank` principal directions of those out of fold."""
    centred = fit.out_of_fold - fit.out_of_fold.mean(axis=0)
    leading = np.linalg.eigh(centred.T @ centred)[1][:, -rank:]
    projector = leading @ leading.T  # (targets, targets), symmetric
    return RidgeFit(
        projector @ fit.weights,
        level + projector @ (fit.bias - level),
        level + (fit.out_of_fold - level) @ projector,
        fit.penalties,
    )


def fit_form(form: str, x: Array, y: Array, folds: npt.NDArray[np.int64]) -> RidgeFit:
    """Fit by name: one of FORMS."""
    if form == "plain":
        return fit_ridge(x, y, folds)
    if form in FORMS:
        rank = int(form.removeprefix("advantage_rank")) if "rank" in form else None
        return fit_difficulty_advantage(x, y, folds, shared=form == "advantage_shared", rank=rank)
    raise InvalidInputError(f"form: expected one of {', '.join(FORMS)}, got {form!r}")
