"""Ridge on the embedding and on hinges around centroids of the training embeddings (the estimator "caps").

    hinge j of x = max(0, c_j . x - t_j)        c_j a k-means centroid, t_j such that a share of the prompts lies above it

On unit vectors a hinge is zero outside a spherical cap around its centroid, and grows towards the middle. Linear heads see
directions, clusters see regions; this sees both, in closed form, and it is exactly the op's one hidden layer:
trunk = the centroids, identity = the thresholds (the same for every candidate), out = the ridge weights of the hinges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
import numpy.typing as npt

from ipr_engine.errors import InvalidInputError
from ipr_engine.training.centroids import kmeans
from ipr_engine.training.estimators.ridge import RidgeFit, fit_form
from ipr_engine.training.estimators.scores import FoldedRows, Scores

Array = npt.NDArray[np.float64]

# Twice or half of these move the mean out-of-fold area of three training splits by less than 0.01 (docs/studies/estimators.md).
CAPS = 64
INSIDE = 0.25  # share of the training prompts inside each cap
SPREAD = 0.5  # standard deviation of all caps together; the embedding's own is about 1
PLACED_ON = 8192  # rows that place the centroids: more move them little and cost time
FORMS = ("advantage_shared", "advantage_rank4")  # heads are averaged over these


@dataclass(frozen=True, kw_only=True)
class HingeOptions:
    """The hinges, as users name them on the command line.

    Attributes:
        caps: how many; fewer rows than 8 for each give fewer.
        inside: share of the training prompts inside each cap, in (0, 1). spread: of all caps together, > 0.
        forms: of ridge.FORMS; heads are averaged over these.
    """

    caps: int = CAPS
    inside: float = INSIDE
    spread: float = SPREAD
    forms: Sequence[str] = FORMS

    def __post_init__(self) -> None:
        caps, inside, spread, forms = self.caps, self.inside, self.spread, self.forms
        numbers = type(caps) is int and type(inside) is float and type(spread) in (int, float)
        if not numbers or caps < 1 or not 0 < inside < 1 or not 0 < spread < np.inf or not forms:
            raise InvalidInputError(
                "caps, inside, spread, forms: expected an int >= 1, a float in (0, 1), a number > 0 and one of ridge.FORMS at "
                f"least, got {caps!r}, {inside!r}, {spread!r} and {forms!r}"
            )


DEFAULTS = HingeOptions()


def fit_centroid_hinges(rows: FoldedRows, options: HingeOptions = DEFAULTS, *, seed: int = 0) -> Scores:
    """Fit every target; no hinge looks at the trailing `linear_only` columns of x."""
    x, caps, forms = rows.x, options.caps, options.forms
    seen = x[:, : x.shape[1] - rows.linear_only]
    some = np.random.default_rng(seed).permutation(len(x))[:PLACED_ON]
    centroids = kmeans(seen[np.sort(some)], max(1, min(caps, len(x) // 8)), seed, iterations=30)  # (caps, dim)
    near = seen @ centroids.T  # (rows, caps)
    threshold = np.quantile(near, 1 - options.inside, axis=0)
    depth = np.maximum(near - threshold, 0.0)
    gain = options.spread / (np.sqrt(len(centroids)) * np.maximum(depth.std(axis=0), 1e-9))
    features = np.concatenate([x, depth * gain], axis=1)
    fits = [fit_form(form, features, rows.quality, rows.folds) for form in forms]
    fit = reduce(_sum, fits)
    weights, bias = fit.weights / len(fits), fit.bias / len(fits)
    dim = x.shape[1]
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


def _sum(a: RidgeFit, b: RidgeFit) -> RidgeFit:
    return RidgeFit(a.weights + b.weights, a.bias + b.bias, a.out_of_fold + b.out_of_fold, {})
