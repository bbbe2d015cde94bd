"""This file fits ridge regression in closed form; cross-validation chooses the penalty.

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

BLOCK = 4096  # rows that are in float64 at once
MOST_KEPT = 1 << 25  # numbers of the bases that are kept: 256 MB
SPANNED = 1e-13  # of the greatest eigenvalue: below it a direction that the rows span is rounding


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
    """A `Gram` holds weighted sums over rows: of 1, of x (dim,) and of x x' (dim, dim).

    Attributes:
        xx: None where `few` are kept, of which `square` makes it.
        few: the rows themselves where they are no more than dim, (rows, 1 + dim), the root of the weight before x, both times that
            root; None where they are more.
    """

    rows: float
    x: Array
    xx: Array | None
    few: Array | None

    def __add__(self, other: Gram) -> Gram:
        rows, x = self.rows + other.rows, self.x + other.x
        if self.few is not None and other.few is not None and len(self.few) + len(other.few) <= len(x):
            return Gram(rows, x, None, np.concatenate([self.few, other.few]))
        return Gram(rows, x, self.square + other.square, None)

    @property
    def square(self) -> Array:
        """The sum of x x', (dim, dim)."""
        if self.few is not None:
            return np.asarray(self.few[:, 1:].T @ self.few[:, 1:])
        assert self.xx is not None
        return self.xx


@dataclass(frozen=True, eq=False)
class Targets:
    """A `Targets` holds weighted sums over rows: of y (targets,), of y^2 (targets,) and of x y (dim, targets)."""

    y: Array
    yy: Array
    xy: Array

    def __add__(self, other: Targets) -> Targets:
        return Targets(self.y + other.y, self.yy + other.yy, self.xy + other.xy)


class Basis:
    """A `Basis` is the eigenbasis of the centred rows that a fit sees; it serves every penalty and every target.

    Attributes:
        rows, x_mean: the weight of the rows and their mean, (dim,). values, vectors: (k,) and (dim, k), the eigenvalues and
            eigenvectors of the centred rows' Gram matrix; where rows are fewer than dim those that the rows span.
        held: the sums of the rows that the fit is judged on, None for none.
    """

    def __init__(self, seen: Gram, held: Gram | None) -> None:
        self.rows, self.x_mean, self.held = seen.rows, seen.x / seen.rows, held
        # One decomposition serves every penalty: (G + p I)^-1 = V (E + p)^-1 V'. Eigenvalues below 0 are rounding.
        if seen.few is None:
            values, self.vectors = np.linalg.eigh(seen.square - np.outer(seen.x, self.x_mean))
            self.values = np.maximum(values, 0.0)
            return
        # The smaller matrix of products of rows has the same eigenvalues above 0.
        centred = seen.few[:, 1:] - seen.few[:, :1] * self.x_mean
        values, vectors = np.linalg.eigh(centred @ centred.T)
        kept = values > SPANNED * max(values[-1], 0.0)
        self.values = values[kept]
        self.vectors = centred.T @ (vectors[:, kept] / np.sqrt(self.values))

    @cached_property
    def held_square(self) -> Array:
        """A matrix whose product with coordinates (k,) has the square of the held rows' scores as its own: (rows, k) or (k, k)."""
        assert self.held is not None
        if self.held.few is not None:
            return np.asarray(self.held.few[:, 1:] @ self.vectors)
        return np.asarray(self.vectors.T @ self.held.square @ self.vectors)

    def project(self, targets: Targets) -> tuple[Array, Array]:
        """Return targets in the basis, (k, targets), and their means, (targets,), from their sums over the rows seen."""
        y_mean = targets.y / self.rows
        return self.vectors.T @ (targets.xy - np.outer(self.rows * self.x_mean, y_mean)), y_mean

    def fit(self, projected: Array, y_mean: Array, penalties: Array) -> tuple[Array, Array]:
        """Return weights (targets, dim) and bias (targets,) of least squared error, each target at its penalty > 0 (targets,)."""
        weights = (self.vectors @ (projected / (self.values[:, None] + penalties))).T
        return weights, y_mean - weights @ self.x_mean

    def squared_error(self, projected: Array, y_mean: Array, penalties: Array, held: Targets) -> Array:
        """Return the weighted sum of squared errors on the held rows at every penalty, (penalties, targets)."""
        assert self.held is not None
        at = projected / (self.values[:, None] + penalties[:, None, None])  # (penalties, k, targets)
        bias = y_mean - (self.x_mean @ self.vectors) @ at
        square = self.held_square @ at
        square = np.square(square).sum(axis=1) if self.held.few is not None else (at * square).sum(axis=1)
        # sum of w'(x y) and of b w'x, at twice their weight
        crossed = (at * (self.vectors.T @ held.xy)).sum(axis=1) - bias * ((self.held.x @ self.vectors) @ at)
        error = held.yy - 2 * crossed - 2 * bias * held.y + square + self.held.rows * bias**2
        return np.asarray(np.maximum(error, 0.0))


class Grams:
    """`Grams` give the sums of rows x (rows, dim), a fold each, and the bases of fits without each fold.

    They are kept, and so are fits: many on the same rows share them.

    Attributes:
        x, folds: (rows, dim) and (rows,) fold numbers. numbers: the distinct ones.
        fits: the fits made on these rows, by a digest of what they are fitted to (`fit_ridge`).
    """

    def __init__(self, x: Rows, folds: Indices) -> None:
        """Take the rows.

        Raises:
            InvalidInputError: x is not finite.
        """
        self.x, self.folds = x, folds
        self.numbers: Indices = np.unique(folds)
        self.fits: dict[bytes, RidgeFit] = {}
        self._kept: dict[bytes, tuple[Gram, ...]] = {}
        self._bases: dict[bytes, tuple[Basis, ...]] = {}
        for rows in _blocks(np.arange(len(x))):
            if not np.isfinite(x[slice(rows[0], rows[-1] + 1)]).all():
                raise InvalidInputError("x, y: expected finite values, in y also NaN where unknown")

    def rows_of(self, number: int, known: Mask | None = None) -> Indices:
        """Return the rows of a fold, by rising place; of these only the `known` ones (rows,) where they are named."""
        inside = self.folds == number
        return np.flatnonzero(inside if known is None else inside & known)

    def of(self, known: Mask, weight: Array | None) -> tuple[Gram, ...]:
        """Return the sums of x over the `known` rows (rows,) of every fold, each row `weight`ed (rows,), None for 1 each."""
        digest = _digest(np.packbits(known), weight)
        if digest not in self._kept:
            self._kept[digest] = tuple(self._gram(self.rows_of(n, known), weight) for n in self.numbers.tolist())
        return self._kept[digest]

    def bases(self, known: Mask, weight: Array | None) -> tuple[Basis, ...]:
        """Return the basis of the `known` rows without each fold, judged on that fold, and last that of all of them.

        Raises:
            InvalidInputError: only one fold has known rows.
        """
        digest = _digest(np.packbits(known), weight)
        if digest in self._bases:
            return self._bases[digest]
        sums = self.of(known, weight)
        seen = [others(sums, part) for part in range(len(sums) + 1)]
        if not all(part.rows for part in seen):
            raise InvalidInputError("y: expected known values of every target in two folds at least, got one")
        made = tuple(Basis(part, held) for part, held in zip(seen, (*sums, None), strict=True))
        # Every candidate of a sparse table has a pattern of its own: those beyond the bound are made anew for each fit.
        if (1 + len(self._bases)) * len(made) * 2 * self.x.shape[1] ** 2 <= MOST_KEPT:
            self._bases[digest] = made
        return made

    def _gram(self, rows: Indices, weight: Array | None) -> Gram:
        dim = self.x.shape[1]
        total = Gram(0.0, np.zeros(dim), None, np.empty((0, 1 + dim)))
        for part in _blocks(rows):
            x, w = block(self.x, part), np.ones(len(part)) if weight is None else weight[part]
            if len(rows) <= dim:
                root = np.sqrt(w)[:, None]
                total += Gram(float(w.sum()), w @ x, None, np.concatenate([root, x * root], axis=1))
            else:
                weighted = x if weight is None else x * w[:, None]
                total += Gram(float(w.sum()), weighted.sum(axis=0), x.T @ weighted, None)
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
    """Return the sum of all parts but one, of all where none has that place.

    None is subtracted: nothing of the one left out, rounding included, is in it.
    """
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
    for rows, targets in alike(~np.isnan(y)):
        basis = Basis(grams.of(rows, weight)[0], None)
        projected, y_mean = basis.project(grams.targets(y, targets, rows, weight)[0])
        for p, penalty in enumerate(penalties):
            weights[p, targets], bias[p, targets] = basis.fit(projected, y_mean, np.full(len(targets), penalty))
    return weights, bias


def _digest(*parts: npt.NDArray[Any] | None) -> bytes:
    """Return a digest of arrays, for what is kept of them."""
    digest = blake2b()
    for part in parts:
        digest.update(b"none" if part is None else np.ascontiguousarray(part).tobytes())
    return digest.digest()


def alike(known: Mask) -> Iterator[tuple[Mask, npt.NDArray[np.int64]]]:
    """Group the targets that are known on the same rows: ((rows,) mask, their columns)."""
    # Targets of one pattern of known rows share one decomposition.
    patterns: dict[bytes, list[int]] = {}
    for target, rows in enumerate(known.T):
        patterns.setdefault(np.packbits(rows).tobytes(), []).append(target)
    for targets in patterns.values():
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
    key = _digest(y, weight, penalties, np.array(shared))
    if key not in grams.fits:
        grams.fits[key] = _fit(grams, y, penalties, weight, shared)
    return grams.fits[key]


def _fit(grams: Grams, y: Array, penalties: Array, weight: Array | None, shared: bool) -> RidgeFit:
    """Fit every target as `fit_ridge` says, from checked arguments."""
    error = np.zeros((len(penalties), y.shape[1]))
    projected: list[tuple[Mask, Indices, list[tuple[Array, Array]]]] = []
    for known, targets in alike(~np.isnan(y)):
        bases, held = grams.bases(known, weight), grams.targets(y, targets, known, weight)
        seen = [others(held, part) for part in range(len(bases))]
        in_basis = [basis.project(sums) for basis, sums in zip(bases, seen, strict=True)]
        for basis, part, sums in zip(bases, in_basis, held, strict=False):
            error[:, targets] += basis.squared_error(*part, penalties, sums)
        projected.append((known, targets, in_basis))
    # A target's error is divided by its own known rows, so that `shared` weighs targets of any coverage alike.
    error = error / (~np.isnan(y)).sum(axis=0)  # (penalties, targets)
    best = np.full(y.shape[1], error.mean(axis=1).argmin()) if shared else error.argmin(axis=0)
    fits = len(grams.numbers) + 1  # one without each fold, and last the one on all
    weights, bias = np.empty((fits, y.shape[1], grams.x.shape[1])), np.empty((fits, y.shape[1]))
    for known, targets, in_basis in projected:
        for at, (basis, part) in enumerate(zip(grams.bases(known, weight), in_basis, strict=True)):
            weights[at, targets], bias[at, targets] = basis.fit(*part, penalties[best[targets]])
    out_of_fold = np.empty(y.shape)
    for at, number in enumerate(grams.numbers.tolist()):
        held_out = grams.rows_of(number)
        out_of_fold[held_out] = scored(grams.x, held_out, weights[at], bias[at])
    chosen = best[:1] if shared else best
    return RidgeFit(weights[-1], bias[-1], out_of_fold, {"each": penalties[chosen].tolist()})
