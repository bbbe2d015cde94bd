"""How often a router would choose each candidate is estimated here from what is known so far, uncertainty included.

Quality is taken apart into the prompt's level and each candidate's deviation from it (`training.estimators.ridge`). The deviation is
a linear function of the embedding with a Gaussian prior, whose width, one for all candidates, is that of greatest evidence. Draws
from the posterior are routed at many worths. A candidate of few outcomes has wide draws, so it is still chosen in some of them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ipr_engine.measures.sweeps import worth_grid
from ipr_engine.training.estimators.advantage import row_difficulty

Array = npt.NDArray[np.float64]

DIRECTIONS = 48  # leading principal directions of the embeddings; the posterior needs no more to tell candidates apart
PENALTIES: Array = np.geomspace(0.3, 3000.0, 10)
LEAST_VARIANCE = 1e-4
WORTH_STEP = 2  # every second worth of the grid


class _Deviation(NamedTuple):
    """A `_Deviation` is what is known of one candidate: sufficient statistics of a ridge regression on its rows, in eigenvectors."""

    rows: int
    level: float
    centre: Array
    eigenvalues: Array
    vectors: Array
    projected: Array
    squares: float

    def variance(self, penalty: float) -> float:
        explained = float((np.square(self.projected) / (self.eigenvalues + penalty)).sum())
        return max((self.squares - explained) / max(self.rows - 1, 1), LEAST_VARIANCE)

    def log_evidence(self, penalty: float) -> float:
        shrunk = float(np.log1p(self.eigenvalues / penalty).sum())
        return -0.5 * ((self.rows - 1) * float(np.log(self.variance(penalty))) + shrunk)

    def draw(self, z: Array, penalty: float, count: int, random: np.random.Generator) -> Array:
        """Return draws of the deviation on rows z (rows, directions): (count, rows)."""
        precision = self.eigenvalues + penalty
        variance = self.variance(penalty)
        spread = np.sqrt(variance / precision) * random.standard_normal((count, len(precision)))
        weights = self.projected / precision + spread  # (count, directions)
        level = self.level + np.sqrt(variance / self.rows) * random.standard_normal((count, 1))
        return np.asarray(level + weights @ ((z - self.centre) @ self.vectors).T)


def leading_directions(embeddings: Array) -> Array:
    """Return the embeddings' leading principal components, (prompts, at most 48), centred."""
    centred = embeddings - embeddings.mean(axis=0)
    vectors = np.linalg.eigh(centred.T @ centred)[1]
    return np.asarray(centred @ vectors[:, -DIRECTIONS:])


def contender_shares(
    z: Array, quality: Array, cost: Array, on: npt.NDArray[np.int64], *, draws: int, seed: int
) -> Array:
    """Return how much of the way from the cheapest to the best candidate's cost each candidate answers, (models,), summing to 1.

    Args:
        z: (prompts, directions) of `leading_directions`. quality: (prompts, models) in [0, 1], NaN where unknown; at least two known
            outcomes a candidate. cost: (prompts, models) expected, USD. on: the prompts that are routed.
        draws: from the posterior; the share is the mean over them, each worth weighing by the cost that it adds.
    """
    random = np.random.default_rng(seed)
    known = _deviations(z, quality)
    penalty = float(max(PENALTIES, key=lambda penalty: sum(one.log_evidence(penalty) for one in known)))
    drawn = np.stack([one.draw(z[on], penalty, draws, random) for one in known], axis=2)  # (draws, prompts, models)
    worths = worth_grid(cost)[::WORTH_STEP]
    return np.asarray(np.mean([_shares(one, cost[on], worths) for one in drawn], axis=0))


def _deviations(z: Array, quality: Array) -> list[_Deviation]:
    """Return what is known of every candidate."""
    rows = ~np.isnan(quality).all(axis=1)
    level, _ = row_difficulty(quality[rows])
    found = []
    for column in (quality[rows] - level[:, None]).T:
        judged = ~np.isnan(column)
        x, y = z[rows][judged], column[judged]
        centre, mean = x.mean(axis=0), float(y.mean())
        eigenvalues, vectors = np.linalg.eigh((x - centre).T @ (x - centre))
        projected = vectors.T @ ((x - centre).T @ (y - mean))
        squares = float(np.square(y - mean).sum())
        found.append(_Deviation(len(y), mean, centre, np.maximum(eigenvalues, 0.0), vectors, projected, squares))
    return found


def _shares(quality: Array, cost: Array, worths: Array) -> Array:
    """Return the shares of one draw (prompts, models): the mean over worths, each weighing by the cost that it adds."""
    rows, models = quality.shape
    used, mean_cost = np.empty((len(worths), models)), np.empty(len(worths))
    for i, worth in enumerate(worths):
        choice = (worth * quality - cost).argmax(axis=1)
        used[i] = np.bincount(choice, minlength=models) / rows
        mean_cost[i] = cost[np.arange(rows), choice].mean()
    added = np.maximum(np.diff(mean_cost), 0.0)
    if not added.any():
        return np.asarray(used[-1])
    return np.asarray(added @ ((used[1:] + used[:-1]) / 2) / added.sum())
