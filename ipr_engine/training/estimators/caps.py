"""This file fits "caps": ridge on the embedding and on hinges around k-means centroids of the training embeddings:

    hinge j of x = max(0, c_j . x - t_j)        c_j a centroid, t_j such that a share of the prompts lies above it

On unit vectors a hinge is zero outside a spherical cap around its centroid, and grows towards the middle. Linear heads see
directions, clusters see regions; this sees both, in closed form. It is exactly the one hidden layer of the op: trunk = the
centroids, identity = the thresholds (the same for every candidate), out = the ridge weights of the hinges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine.errors import InvalidInputError
from ipr_engine.training.estimators.advantage import FORMS, fit_form
from ipr_engine.training.estimators.ridge import Grams, RidgeFit, block, scored
from ipr_engine.training.estimators.scores import FoldedRows, Scores

Array = npt.NDArray[np.float64]

CAPS_OPTIONS = ("caps", "inside", "spread", "forms")

# Twice or half of these move the mean out-of-fold area of three training splits by less than 0.01 (docs/studies/estimators.md).
CAPS = 64
INSIDE = 0.25  # share of the training prompts inside each cap
SPREAD = 0.5  # standard deviation of all caps together; the embedding's own is about 1
PLACED_ON = 8192  # rows that place the centroids: more move them little and cost time
MEASURED_ON = 1 << 18  # rows that thresholds and gains are taken from
HINGE_FORMS = ("advantage_shared", "advantage_rank4")  # heads are averaged over these


def kmeans(x: Array, k: int, seed: int, *, iterations: int = 100) -> Array:
    """Return centroids (k, dim) of rows x (rows, dim), by Lloyd's algorithm from a k-means++ start.

    An emptied centroid moves to the row that lies farthest from its own.

    Raises:
        InvalidInputError: k is not in [1, rows].
    """
    if not 1 <= k <= len(x):
        raise InvalidInputError(f"k: expected 1 to {len(x)} (the rows), got {k}")
    random = np.random.default_rng(seed)
    centroids: Array = x[[random.integers(len(x))]]  # a copy: x is the caller's
    nearest = np.full(len(x), np.inf)  # (rows,) squared distance to the nearest centroid
    while len(centroids) < k:
        nearest = np.minimum(nearest, squared_distances(x, centroids[-1:])[:, 0])
        total = nearest.sum()
        chance = nearest / total if total > 0 else None  # fewer distinct rows than k: any row will do
        centroids = np.vstack([centroids, x[random.choice(len(x), p=chance)]])
    owner = np.full(len(x), -1)  # (rows,) the centroid nearest to each row
    for _ in range(iterations):
        squared = squared_distances(x, centroids)
        previous, owner = owner, squared.argmin(axis=1)
        if (owner == previous).all():
            break
        served = squared.min(axis=1)
        for j in range(k):
            mine = owner == j
            if mine.any():
                centroids[j] = x[mine].mean(axis=0)
            else:
                worst = int(served.argmax())
                centroids[j], served[worst] = x[worst], 0.0
    return centroids


def squared_distances(x: Array, centroids: Array) -> Array:
    """Return the squared Euclidean distances of rows (rows, dim) to centroids (k, dim): (rows, k)."""
    cross = np.square(x).sum(axis=1)[:, None] + np.square(centroids).sum(axis=1) - 2.0 * (x @ centroids.T)
    return np.asarray(np.maximum(cross, 0.0))


@dataclass(frozen=True, kw_only=True)
class HingeOptions:
    """`HingeOptions` hold the options of "caps", as users name them on the command line.

    Attributes:
        caps: how many; fewer rows than 8 for each give fewer.
        inside: share of the training prompts inside each cap, in (0, 1). spread: of all caps together, > 0.
        forms: of ridge.FORMS; heads are averaged over these.
    """

    caps: int = CAPS
    inside: float = INSIDE
    spread: float = SPREAD
    forms: Sequence[str] = HINGE_FORMS

    def __post_init__(self) -> None:
        caps, inside, spread, forms = self.caps, self.inside, self.spread, self.forms
        numbers = type(caps) is int and type(inside) is float and type(spread) in (int, float)
        if not numbers or caps < 1 or not 0 < inside < 1 or not 0 < spread < np.inf:
            raise InvalidInputError(
                "caps, inside, spread: expected an int >= 1, a float in (0, 1) and a number > 0, got "
                f"{caps!r}, {inside!r} and {spread!r}"
            )
        if not isinstance(forms, (list, tuple)) or not forms or not set(map(str, forms)) <= set(FORMS):
            raise InvalidInputError(f"forms: expected a list of some of {', '.join(FORMS)}, got {forms!r}")


def fit_caps(rows: FoldedRows, options: HingeOptions, *, seed: int) -> Scores:
    """Fit "caps" to every candidate. No hinge looks at the trailing `linear_only` columns of x."""
    x, caps, forms = rows.x, options.caps, options.forms
    seen = x[:, : x.shape[1] - rows.linear_only]
    drawn = np.random.default_rng(seed).permutation(len(x))
    placed, measured = np.sort(drawn[:PLACED_ON]), np.sort(drawn[:MEASURED_ON])
    # (caps, dim)
    centroids = kmeans(block(seen, placed), max(1, min(caps, len(x) // 8)), seed, iterations=30)
    near = scored(seen, measured, centroids, np.zeros(len(centroids)))  # (rows measured, caps)
    threshold = np.quantile(near, 1 - options.inside, axis=0)  # (caps,)
    depth = np.maximum(near - threshold, 0.0)
    # The ridge penalty is one for all columns, so hinges are scaled to weigh as much together as `spread` says.
    gain = options.spread / (np.sqrt(len(centroids)) * np.maximum(depth.std(axis=0), 1e-9))
    features = _Hinged(x, seen.shape[1], centroids, threshold, gain)
    grams = Grams(features, rows.folds)
    fits = [fit_form(form, features, rows.quality, rows.folds, grams) for form in forms]
    fit = reduce(_sum, fits)
    weights, bias = fit.weights / len(fits), fit.bias / len(fits)
    dim = x.shape[1]
    # The gain is folded into the hidden layer: max(0, gain * (c . x - t)).
    trunk = np.zeros((len(centroids), dim))
    trunk[:, : seen.shape[1]] = gain[:, None] * centroids
    tensors = {
        "skip": weights[:, :dim],
        "bias": bias,
        "trunk": trunk,
        "identity": np.tile(-gain * threshold, (rows.quality.shape[1], 1)),
        "out": weights[:, dim:],
    }
    settings = {
        "caps": len(centroids),
        "inside": options.inside,
        "spread": options.spread,
        "forms": list(forms),
        "penalties": [one.penalties for one in fits],
    }
    return Scores(tensors, "relu", fit.out_of_fold / len(fits), settings)


@dataclass(frozen=True, eq=False)
class _Hinged:
    """A `_Hinged` makes rows of x and of hinges, (rows, dim + caps), when they are asked for: all would double the memory of x."""

    x: npt.NDArray[np.floating]
    dim: int
    centroids: Array
    threshold: Array
    gain: Array

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.x), self.x.shape[1] + len(self.centroids)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, rows: Any, /) -> Array:
        x = block(self.x, rows)
        depth = np.maximum(x[:, : self.dim] @ self.centroids.T - self.threshold, 0.0)
        return np.concatenate([x, depth * self.gain], axis=1)


def _sum(a: RidgeFit, b: RidgeFit) -> RidgeFit:
    return RidgeFit(a.weights + b.weights, a.bias + b.bias, a.out_of_fold + b.out_of_fold, {})
