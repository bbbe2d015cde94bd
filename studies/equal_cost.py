"""`EqualCost` takes what routers cost at equal quality on the same prompts, in shares of what the best single candidate costs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ipr_engine.evaluation.contenders import FoldedMix
from ipr_engine.measures.resampling import Resamples
from ipr_engine.measures.routing import (
    SHARES,
    Axis,
    Curve,
    WeightedOutcomes,
    cost_kept,
    single_curve,
    sweep_curve,
)
from ipr_engine.measures.sweeps import hull_mix, worth_grid, worth_sweep

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.integer]


class EqualCost:
    """An `EqualCost` holds candidates' outcomes and one set of resamples of questions, so that all differences are paired.

    Attributes:
        outcomes: of the candidates, complete. axis, singles: of them. worths: swept.
    """

    def __init__(self, outcomes: WeightedOutcomes, keys: Sequence[str], draws: int) -> None:
        self.outcomes, self.axis = outcomes, Axis.of(outcomes)
        self.resamples = Resamples.of_questions(keys, draws=draws)
        self.singles = single_curve(outcomes, self.resamples)
        self.worths = worth_grid(outcomes.cost)

    def choices(self, quality: Array, cost: Array) -> Indices:
        """Choose by predictions (rows, options) while worth grows: (worths, rows)."""
        return worth_sweep(quality, cost, self.worths)

    def curve(self, choices: Indices, outcomes: WeightedOutcomes | None = None) -> Curve:
        """Measure choices; outcomes: of their options, where these are more than the candidates."""
        return sweep_curve(choices, self.outcomes if outcomes is None else outcomes, self.resamples)

    def hull(self, folds: npt.NDArray[np.int64]) -> Curve:
        """Return random mixes along the hull of single candidates, of each fold by the outcomes of the others."""
        others = [self.outcomes.subset(folds != fold) for fold in np.unique(folds)]
        mix = FoldedMix.of_hulls(
            [hull_mix(part) for part in others], [part.cost.mean(axis=0) for part in others], folds
        )
        return mix.curve(self.outcomes, self.resamples)

    def costs(self, curve: Curve) -> Array:
        """Return the cost at each of `routing.SHARES` of the best single candidate's quality, over its cost: (shares, 1 + draws)."""
        return np.stack([cost_kept(curve, self.axis, self.singles, share) for share in SHARES])

    def setting_at(self, curve: Curve, share: float) -> int | None:
        """Return the cheapest point that keeps the share on the prompts themselves; None where none does."""
        keeps = curve.quality[0] >= share * self.singles.quality[0, self.axis.best] - 1e-12
        return int(np.where(keeps, curve.cost[0], np.inf).argmin()) if keeps.any() else None


def two_sided(figures: Array) -> float:
    """Return how likely a difference (1 + draws,) as far from zero is, were there none: from its draws, never below 2 / (draws + 1)."""
    draws = figures[1:]
    below, above = int((draws <= 0).sum()), int((draws >= 0).sum())
    return min(1.0, 2 * (1 + min(below, above)) / (1 + len(draws)))


def holm(chances: Sequence[float]) -> list[float]:
    """Return each chance adjusted for all of them by Holm's steps: below 0.05 is told apart, however many were looked at."""
    order = sorted(range(len(chances)), key=lambda i: chances[i])
    adjusted, most = [0.0] * len(chances), 0.0
    for step, i in enumerate(order):
        most = max(most, min(1.0, (len(chances) - step) * chances[i]))
        adjusted[i] = most
    return adjusted
