"""`Grams` hold sums over the rows of each fold, from which ridge is fitted and judged: rows are read in blocks, and never copied whole.

Ridge needs no rows, only sums over them: of x, of x x', and of x y, y and y^2 for each target. Sums of folds add up, so a fit with one fold
left out is that of the sums of the others. Its squared error on the fold left out is a form in the sums of that fold:

    sum of (y - w.x - b)^2  =  sum y^2 - 2 w.(sum x y) - 2 b (sum y) + w'(sum x x')w + 2 b w.(sum x) + rows b^2
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
    error = targets.yy - 2 * linear - 2 * bias * targets.y + square + 2 * bias * (weights @ gram.x) + gram.rows * bias**2
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
            if not np.isfinite(x[rows[0] : rows[-1] + 1]).all():
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
            total += Gram(float(len(part) if weight is None else weight[part].sum()), weighted.sum(axis=0), x.T @ weighted)
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
