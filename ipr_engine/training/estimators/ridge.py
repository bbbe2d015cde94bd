"""This file fits ridge regression in closed form, plain or as difficulty + advantage; cross-validation chooses the penalty.

    minimise  sum over rows of weight * (y - w.x - b)^2  +  penalty * |w|^2          (b is not penalised)

One eigendecomposition of the centred Gram matrix serves every penalty and every target that is known on the same rows. Targets may be
missing (NaN): each is fitted on the rows where it is known.

Ridge needs no rows, only sums over them (`Grams`): of x, of x x', and of x y, y and y^2 for each target. Sums of folds add up, so a fit
with one fold left out is that of the sums of the others, and its squared error on that fold a form in the sums of the fold:

    sum of (y - w.x - b)^2  =  sum y^2 - 2 w.(sum x y) - 2 b (sum y) + w'(sum x x')w + 2 b w.(sum x) + rows b^2

So cross-validation reads rows in blocks, once for all folds and penalties, and copies none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ipr_engine.errors import InvalidInputError

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.int64]

# Rows have norm 1, so the Gram's eigenvalues sum to the number of rows; this spans "no shrinkage" to "only the mean".
PENALTIES: Array = np.geomspace(1e-2, 1e4, 25)

RANKS = (1, 2, 3, 4)

FORMS = ("plain", "advantage_shared", "advantage_each", *(f"advantage_rank{rank}" for rank in RANKS))

ROUNDS = 50  # of alternating means; the additive fit of a sparse table converges much sooner
BLOCK = 4096  # rows that are in float64 at once


class Rows(Protocol):
    """`Rows` are (rows, dim) numbers of any float type, or what makes some of them when they are asked for."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    def __len__(self) -> int: ...
    def __getitem__(self, rows: Any, /) -> npt.NDArray[Any]: ...


def block(x: Rows, rows: Any) -> Array:
    """Return some rows in float64."""
    return np.asarray(x[rows], np.float64)


def scored(x: Rows, rows: Indices, weights: Array, bias: Array) -> Array:
    """Return x @ weights.T + bias of some rows: (rows, targets)."""
    parts = [block(x, part) @ weights.T + bias for part in _blocks(rows)]
    return np.concatenate(parts) if parts else np.empty((0, len(bias)))


def _blocks(rows: Indices) -> Iterator[Indices]:
    for begin in range(0, len(rows), BLOCK):
        yield rows[begin : begin + BLOCK]


@dataclass(frozen=True, eq=False)
class Gram:
    """A `Gram` holds weighted sums over rows: of 1, of x (dim,) and of x x' (dim, dim)."""

    rows: float
    x: Array
    xx: Array

    def __add__(self, other: Gram) -> Gram:
        return Gram(self.rows + other.rows, self.x + other.x, self.xx + other.xx)

    @cached_property
    def eigen(self) -> tuple[Array, Array]:
        """The eigenvalues (dim,) and eigenvectors (dim, dim) of the Gram matrix of centred rows."""
        # One decomposition serves every penalty: (G + p I)^-1 = V (E + p)^-1 V'. Eigenvalues below 0 are rounding.
        values, vectors = np.linalg.eigh(self.xx - np.outer(self.x, self.x) / self.rows)
        return np.maximum(values, 0.0), vectors


@dataclass(frozen=True, eq=False)
class Targets:
    """A `Targets` holds weighted sums over rows: of y (targets,), of y^2 (targets,) and of x y (dim, targets)."""

    y: Array
    yy: Array
    xy: Array

    def __add__(self, other: Targets) -> Targets:
        return Targets(self.y + other.y, self.yy + other.yy, self.xy + other.xy)


def path(gram: Gram, targets: Targets, penalties: Array) -> tuple[Array, Array]:
    """Fit weights (penalties, targets, dim) and bias (penalties, targets) of least squared error at every penalty > 0."""
    values, vectors = gram.eigen
    x_mean, y_mean = gram.x / gram.rows, targets.y / gram.rows
    projected = vectors.T @ (targets.xy - np.outer(gram.x, y_mean))  # (dim, targets)
    shrunk = projected[None] / (values[None, :, None] + penalties[:, None, None])
    weights = np.swapaxes(vectors @ shrunk, 1, 2)  # (penalties, targets, dim)
    return weights, y_mean - weights @ x_mean


def squared_error(gram: Gram, targets: Targets, weights: Array, bias: Array) -> Array:
    """Return the weighted sum of squared errors on the rows of these sums, (penalties, targets)."""
    linear = np.einsum("ptd,dt->pt", weights, targets.xy)
    square = np.einsum("ptd,ptd->pt", weights @ gram.xx, weights)
    error = (
        targets.yy - 2 * linear - 2 * bias * targets.y + square + 2 * bias * (weights @ gram.x) + gram.rows * bias**2
    )
    return np.asarray(np.maximum(error, 0.0))


class Grams:
    """`Grams` give the sums of rows x (rows, dim), a fold each. Those of x are kept, so that many fits on the same rows share them.

    Attributes:
        x, folds: (rows, dim) and (rows,) fold numbers. numbers: the distinct ones.
    """

    def __init__(self, x: Rows, folds: Indices) -> None:
        """Take the rows.

        Raises:
            InvalidInputError: x is not finite.
        """
        self.x, self.folds = x, folds
        self.numbers: Indices = np.unique(folds)
        self._kept: dict[bytes, tuple[Gram, ...]] = {}
        for rows in _blocks(np.arange(len(x))):
            if not np.isfinite(x[slice(rows[0], rows[-1] + 1)]).all():
                raise InvalidInputError("x, y: expected finite values, in y also NaN where unknown")

    def rows_of(self, number: int, known: Mask | None = None) -> Indices:
        """Return the rows of a fold, by rising place; of these only the `known` ones (rows,) where they are named."""
        inside = self.folds == number
        return np.flatnonzero(inside if known is None else inside & known)

    def of(self, known: Mask, weight: Array | None) -> tuple[Gram, ...]:
        """Return the sums of x over the `known` rows (rows,) of every fold, each row `weight`ed (rows,), None for 1 each."""
        digest = blake2b(np.packbits(known).tobytes() + (b"" if weight is None else weight.tobytes())).digest()
        if digest not in self._kept:
            self._kept[digest] = tuple(self._gram(self.rows_of(n, known), weight) for n in self.numbers.tolist())
        return self._kept[digest]

    def _gram(self, rows: Indices, weight: Array | None) -> Gram:
        dim = self.x.shape[1]
        total = Gram(0.0, np.zeros(dim), np.zeros((dim, dim)))
        for part in _blocks(rows):
            x = block(self.x, part)
            weighted = x if weight is None else x * weight[part, None]
            total += Gram(
                float(len(part) if weight is None else weight[part].sum()), weighted.sum(axis=0), x.T @ weighted
            )
        return total

    def targets(self, y: Array, columns: Indices, known: Mask, weight: Array | None) -> tuple[Targets, ...]:
        """Return the sums of some columns of y (rows, targets) over the `known` rows of every fold."""
        return tuple(self._targets(y, columns, self.rows_of(n, known), weight) for n in self.numbers.tolist())

    def _targets(self, y: Array, columns: Indices, rows: Indices, weight: Array | None) -> Targets:
        width = len(columns)
        total = Targets(np.zeros(width), np.zeros(width), np.zeros((self.x.shape[1], width)))
        for part in _blocks(rows):
            of_part = y[np.ix_(part, columns)]
            weighted = of_part if weight is None else of_part * weight[part, None]
            total += Targets(weighted.sum(axis=0), (weighted * of_part).sum(axis=0), block(self.x, part).T @ weighted)
        return total


def others(parts: tuple[Any, ...], left_out: int) -> Any:
    """Return the sum of all parts but one. None is subtracted: nothing of the one left out, rounding included, is in it."""
    rest = [part for i, part in enumerate(parts) if i != left_out]
    total = rest[0]
    for part in rest[1:]:
        total += part
    return total


@dataclass(frozen=True)
class RidgeFit:
    """A `RidgeFit` holds linear scores `x @ weights.T + bias` of several targets, and what is known of them out of fold.

    Attributes:
        weights: (targets, dim).
        bias: (targets,).
        out_of_fold: (rows, targets), each row scored by weights that have not seen its fold, at the penalties (and, for
            the rank forms, the projection) chosen on all rows; known for every row, judged there or not.
        penalties: what was chosen, by part: {"each": [...]} or {"difficulty": .., "advantage": [...]}.
    """

    weights: Array
    bias: Array
    out_of_fold: Array
    penalties: dict[str, list[float]]


def ridge_path(x: Array, y: Array, penalties: Array, weight: Array | None = None) -> tuple[Array, Array]:
    """Fit weights (penalties, targets, dim) and bias (penalties, targets) of every target at every penalty > 0.

    Args:
        x: (rows, dim). y: (rows, targets), NaN where unknown. weight: (rows,) > 0, None for 1 each.
    """
    grams = Grams(x, np.zeros(len(x), np.int64))
    shape = (len(penalties), y.shape[1])
    weights, bias = np.empty((*shape, x.shape[1])), np.empty(shape)
    for rows, targets in _alike(~np.isnan(y)):
        sums = grams.of(rows, weight)[0], grams.targets(y, targets, rows, weight)[0]
        weights[:, targets], bias[:, targets] = path(*sums, penalties)
    return weights, bias


def _alike(known: Mask) -> Iterator[tuple[Mask, npt.NDArray[np.int64]]]:
    """Group the targets that are known on the same rows: ((rows,) mask, their columns)."""
    # Targets of one pattern of known rows share one decomposition.
    alike: dict[bytes, list[int]] = {}
    for target, rows in enumerate(known.T):
        alike.setdefault(np.packbits(rows).tobytes(), []).append(target)
    for targets in alike.values():
        if not known[:, targets[0]].any():
            raise InvalidInputError(f"y: expected some known value of target {targets[0]} in every part, got none")
        yield known[:, targets[0]], np.array(targets)


def fit_ridge(
    x: Rows,
    y: Array,
    folds: npt.NDArray[np.int64],
    *,
    shared: bool = False,
    weight: Array | None = None,
    penalties: Array = PENALTIES,
    grams: Grams | None = None,
) -> RidgeFit:
    """Fit every target; the penalty is the one of least squared error out of fold, per target or `shared` by all.

    Args:
        x: (rows, dim) of any float type. y: (rows, targets), NaN where unknown.
        folds: (rows,) fold numbers, see `resampling.grouped_folds`.
        weight: (rows,) > 0 of each row's squared error, None for 1 each.
        grams: of x and folds, where several fits share them.

    Raises:
        InvalidInputError: shapes disagree, x is not finite, y is infinite or known in one fold only, or a penalty is not positive.
    """
    if len(x.shape) != 2 or y.ndim != 2 or not len(x) == len(y) == len(folds):
        raise InvalidInputError(f"x, y, folds: expected equal rows, got {x.shape}, {y.shape}, {folds.shape}")
    if np.isinf(y).any():
        raise InvalidInputError("x, y: expected finite values, in y also NaN where unknown")
    if not (penalties > 0).all():
        raise InvalidInputError(f"penalties: expected values > 0, got {penalties.min()}")
    grams = Grams(x, folds) if grams is None else grams
    shape = (len(penalties), y.shape[1])
    error, all_rows = np.zeros(shape), (np.empty((*shape, x.shape[1])), np.empty(shape))
    left_out = [(np.empty((*shape, x.shape[1])), np.empty(shape)) for _ in grams.numbers]
    for known, targets in _alike(~np.isnan(y)):
        sums, of_targets = grams.of(known, weight), grams.targets(y, targets, known, weight)
        for fold, (weights, bias) in enumerate(left_out):
            rest = others(sums, fold), others(of_targets, fold)
            if not rest[0].rows:
                raise InvalidInputError(f"y: expected some known value of target {targets[0]} in every part, got none")
            weights[:, targets], bias[:, targets] = fitted = path(*rest, penalties)
            error[:, targets] += squared_error(sums[fold], of_targets[fold], *fitted)
        for table, part in zip(all_rows, path(_sum(sums), _sum(of_targets), penalties), strict=True):
            table[:, targets] = part
    # A target's error is divided by its own known rows, so that `shared` weighs targets of any coverage alike.
    error = error / (~np.isnan(y)).sum(axis=0)  # (penalties, targets)
    at = np.arange(y.shape[1])
    best = np.full(len(at), error.mean(axis=1).argmin()) if shared else error.argmin(axis=0)
    out_of_fold = np.empty(y.shape)
    for number, (weights, bias) in zip(grams.numbers.tolist(), left_out, strict=True):
        held_out = grams.rows_of(number)
        out_of_fold[held_out] = scored(x, held_out, weights[best, at], bias[best, at])
    return RidgeFit(
        all_rows[0][best, at],
        all_rows[1][best, at],
        out_of_fold,
        {"each": [float(penalties[i]) for i in (best[:1] if shared else best)]},
    )


def _sum(parts: tuple[Any, ...]) -> Any:
    return others(parts, -1)


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
