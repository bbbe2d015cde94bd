"""This file fits ridge as difficulty + advantage: the mean of a row and each target's deviation from it, each at a penalty of its own."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ipr_engine.errors import InvalidInputError
from ipr_engine.training.estimators.ridge import PENALTIES, Grams, RidgeFit, Rows, fit_ridge

Array = npt.NDArray[np.float64]

RANKS = (1, 2, 3, 4)

FORMS = ("plain", "advantage_shared", "advantage_each", *(f"advantage_rank{rank}" for rank in RANKS))

ROUNDS = 50  # of alternating means; the additive fit of a sparse table converges much sooner


def row_difficulty(y: Array) -> tuple[Array, Array]:
    """Return the mean of each row, (rows,), and the share of the row that it rests on, (rows,) in (0, 1].

    Where targets are missing it is the row's part of the additive fit y = row + column (so that a row judged on strong
    candidates only is not taken for an easy one), at the level of the mean column.
    """
    known = ~np.isnan(y)
    if known.all():
        return y.mean(axis=1), np.ones(len(y))
    row, column = np.zeros(len(y)), np.nanmean(y, axis=0)
    # Alternating means: the least squares of y = row + column on the known entries.
    for _ in range(ROUNDS):
        row = np.nanmean(y - column, axis=1)
        before, column = column, np.nanmean(y - row[:, None], axis=0)
        if np.abs(column - before).max() < 1e-9:
            break
    return row + column.mean(), known.mean(axis=1)


def fit_difficulty_advantage(
    x: Rows,
    y: Array,
    folds: npt.NDArray[np.int64],
    *,
    shared: bool = True,
    rank: int | None = None,
    penalties: Array = PENALTIES,
    grams: Grams | None = None,
) -> RidgeFit:
    """Fit the row's mean (its difficulty) and each target's deviation from it (its advantage) apart, then add them up.

    The difficulty is easy to predict and decides nothing; the advantages decide and are hard to predict. Apart, each
    gets the penalty it needs. The sum is again one linear score per target, so it costs nothing at run time.

    With a `rank`, the advantages keep only the directions over targets in which their out-of-fold scores vary most
    (reduced-rank regression): candidates differ in a few skills, the rest of what ridge finds is noise.
    """
    mean, weight = row_difficulty(y)
    deviation = y - mean[:, None]
    # Rows that were judged on few targets have an uncertain mean: they weigh by how much of the row is known.
    grams = Grams(x, folds) if grams is None else grams
    certain = (weight == 1).all()
    difficulty = fit_ridge(
        x, mean[:, None], folds, weight=None if certain else weight, penalties=penalties, grams=grams
    )
    advantage = fit_ridge(x, deviation, folds, shared=shared, penalties=penalties, grams=grams)
    if rank is not None:
        advantage = _of_rank(advantage, np.nanmean(deviation, axis=0), rank)
    return RidgeFit(
        difficulty.weights + advantage.weights,
        difficulty.bias + advantage.bias,
        difficulty.out_of_fold + advantage.out_of_fold,
        {"difficulty": difficulty.penalties["each"], "advantage": advantage.penalties["each"]},
    )


def _of_rank(fit: RidgeFit, level: Array, rank: int) -> RidgeFit:
    """Project scores around `level` (targets,) onto the leading `rank` principal directions of those out of fold."""
    # Directions of the scores out of fold: on its own rows a fit's noise looks like skill.
    centred = fit.out_of_fold - fit.out_of_fold.mean(axis=0)
    leading = np.linalg.eigh(centred.T @ centred)[1][:, -rank:]  # eigh sorts by rising eigenvalue
    projector = leading @ leading.T  # (targets, targets), symmetric
    return RidgeFit(
        projector @ fit.weights,
        level + projector @ (fit.bias - level),
        level + (fit.out_of_fold - level) @ projector,
        fit.penalties,
    )


def fit_form(form: str, x: Rows, y: Array, folds: npt.NDArray[np.int64], grams: Grams | None = None) -> RidgeFit:
    """Fit the form of this name, one of FORMS. grams: of x and folds, where several fits share them."""
    if form == "plain":
        return fit_ridge(x, y, folds, grams=grams)
    if form in FORMS:
        rank = int(form.removeprefix("advantage_rank")) if "rank" in form else None
        return fit_difficulty_advantage(x, y, folds, shared=form == "advantage_shared", rank=rank, grams=grams)
    raise InvalidInputError(f"form: expected one of {', '.join(FORMS)}, got {form!r}")
