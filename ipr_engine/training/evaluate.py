"""What heads are worth on prompts whose outcomes are known: calibration, token error, and the quality-cost curve.

Costs are means over prompts, in USD. A curve is a sweep of one policy parameter; its area is taken between the
cheapest and the best single candidate, 0 = the cheapest one's quality everywhere, 1 = the best one's everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

TAUS: Array = np.linspace(0.0, 1.0, 41)
# From one hundredth of a cent for a whole right answer up to where cost hardly counts.
WORTHS: Array = np.concatenate([[0.0], np.geomspace(1e-4, 10.0, 60)])


def choose(quality: Array, cost: Array, *, tau: float, worth: float = 0.0) -> Indices:
    """The choice of every row under the rule `minmax`: docs/design.md sections 3 and 4, all candidates allowed."""
    hi, lo = quality.max(axis=1), quality.min(axis=1)
    threshold = np.minimum((1 - tau) * hi + tau * lo, hi)
    objective = np.where(quality >= threshold[:, None], cost - worth * quality, np.inf)
    return np.asarray(objective.argmin(axis=1))


def sweep_tau(quality: Array, cost: Array, taus: Array = TAUS) -> Indices:
    """Choices (points, rows) of `minmax` at worth 0 from the greatest tau to the least: cheap to dear."""
    return np.stack([choose(quality, cost, tau=float(tau)) for tau in taus[::-1]])


def sweep_worth(quality: Array, cost: Array, worths: Array = WORTHS) -> Indices:
    """Choices (points, rows) at tau = 1 while `worth` grows: cheap to dear."""
    return np.stack([choose(quality, cost, tau=1.0, worth=float(worth)) for worth in worths])


def realised(choices: Indices, outcome: Array) -> Array:
    """What the chosen candidates really had: choices (points, rows), outcome (rows, models) -> (points, rows)."""
    return outcome[np.arange(len(outcome)), choices]


@dataclass(frozen=True)
class Frame:
    """The corner points that areas and savings refer to.

    Attributes:
        cheapest, best: columns of the candidate of least mean cost and of highest mean quality.
    """

    cheapest: int
    best: int

    @classmethod
    def of(cls, quality: Array, cost: Array) -> Frame:
        return cls(int(cost.mean(axis=0).argmin()), int(quality.mean(axis=0).argmax()))


def area(mean_cost: Array, mean_quality: Array, corner_cost: Array, corner_quality: Array) -> float:
    """Normalised area under a curve of points, straight between them and level beyond its ends.

    Args:
        mean_cost, mean_quality: (points,). corner_cost, corner_quality: (2,), the cheapest and the best candidate.
    """
    order = np.argsort(mean_cost, kind="stable")
    low, high = corner_cost
    inside = mean_cost[order][(mean_cost[order] > low) & (mean_cost[order] < high)]
    grid = np.concatenate([[low], inside, [high]])
    level = (np.interp(grid, mean_cost[order], mean_quality[order]) - corner_quality[0]) / np.ptp(corner_quality)
    return float((np.diff(grid) * (level[1:] + level[:-1])).sum() / 2 / (high - low))


def curve_area(choices: Indices, quality: Array, cost: Array) -> float:
    """`area` of a sweep's choices (points, rows) between the cheapest and the best candidate of these outcomes."""
    frame = Frame.of(quality, cost)
    corners = [frame.cheapest, frame.best]
    return area(
        realised(choices, cost).mean(axis=1),
        realised(choices, quality).mean(axis=1),
        cost.mean(axis=0)[corners],
        quality.mean(axis=0)[corners],
    )


def hull(mean_cost: Array, mean_quality: Array) -> Indices:
    """The upper concave envelope of single candidates, as columns by rising cost: what random mixtures of two reach."""
    points: list[int] = []
    for m in np.lexsort((-mean_quality, mean_cost)):
        if points and mean_quality[m] <= mean_quality[points[-1]]:
            continue
        while len(points) > 1 and _slope(mean_cost, mean_quality, points[-2], points[-1]) <= _slope(
            mean_cost, mean_quality, points[-1], m
        ):
            points.pop()
        points.append(int(m))
    return np.asarray(points)


def _slope(cost: Array, quality: Array, a: int, b: int) -> float:
    return float((quality[b] - quality[a]) / max(cost[b] - cost[a], 1e-300))


def saving_at(mean_cost: Array, mean_quality: Array, wanted: float, full_cost: float) -> float:
    """Share of `full_cost` saved where the curve first reaches `wanted` quality; NaN where it never does."""
    order = np.argsort(mean_cost, kind="stable")
    cost, level = mean_cost[order], mean_quality[order]
    reached = np.flatnonzero(level >= wanted)
    if not len(reached):
        return float("nan")
    i = int(reached[0])
    if i == 0 or level[i] == level[i - 1]:
        return float(1 - cost[i] / full_cost)
    share = (wanted - level[i - 1]) / (level[i] - level[i - 1])
    return float(1 - (cost[i - 1] + share * (cost[i] - cost[i - 1])) / full_cost)


def brier(predicted: Array, quality: Array) -> Array:
    """Mean squared error of predicted quality per candidate, (models,)."""
    return np.asarray(np.square(predicted - quality).mean(axis=0))


def calibration_error(predicted: Array, quality: Array, bins: int = 10) -> Array:
    """Expected calibration error per candidate, (models,): mean |predicted - realised| over bins of equal size."""
    result = np.zeros(predicted.shape[1])
    for m in range(predicted.shape[1]):
        for rows in np.array_split(np.argsort(predicted[:, m], kind="stable"), bins):
            result[m] += len(rows) / len(predicted) * abs(predicted[rows, m].mean() - quality[rows, m].mean())
    return result


def token_error(predicted: Array, tokens: Array) -> Array:
    """Median of |predicted - real| / real per candidate, (models,)."""
    real = np.maximum(tokens, 1.0)
    return np.asarray(np.median(np.abs(predicted - real) / real, axis=0))


def bootstrap_weights(rows: int, draws: int, seed: int) -> Array:
    """(draws, rows) weights that turn row values into resampled means: `weights @ values`."""
    return np.random.default_rng(seed).multinomial(rows, np.full(rows, 1 / rows), size=draws) / rows


def interval(values: Array) -> tuple[float, float]:
    """The 2.5th and 97.5th percentile, ignoring NaN."""
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(low), float(high)
