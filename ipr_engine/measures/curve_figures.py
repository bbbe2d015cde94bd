"""`CurveFigures` takes cost at equal quality and area of many curves on the same outcomes, so that their differences are paired."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ipr_engine.measures.resampling import Estimate, Resamples
from ipr_engine.measures.routing import (
    Axis,
    Curve,
    WeightedOutcomes,
    bounded_arqgc,
    cost_kept,
    single_curve,
    sweep_curve,
)
from ipr_engine.measures.sweeps import worth_grid, worth_sweep

Array = npt.NDArray[np.float64]


class CurveFigures:
    """A `CurveFigures` takes figures of curves between the cheapest and the best of some candidates, on the same resamples of questions.

    Attributes:
        outcomes: of these candidates, complete. axis, singles: made of them. worths: swept.
    """

    def __init__(self, outcomes: WeightedOutcomes, keys: Sequence[str]) -> None:
        """Take outcomes and the question of each of their rows."""
        self.outcomes, self.axis = outcomes, Axis.of(outcomes)
        self.resamples = Resamples.of_questions(keys)
        self.singles = single_curve(outcomes, self.resamples)
        self.worths = worth_grid(outcomes.cost)

    def swept(self, quality: Array, cost: Array, outcomes: WeightedOutcomes | None = None) -> Curve:
        """Sweep worth over predictions (rows, models); outcomes: of their models, where these are others."""
        realised = self.outcomes if outcomes is None else outcomes
        return sweep_curve(worth_sweep(quality, cost, self.worths), realised, self.resamples)

    def figures(self, curve: Curve) -> Array:
        """Return the cost at `routing.SHARE` over the best single candidate's, and the area: (2, 1 + draws)."""
        cost = cost_kept(curve, self.axis, self.singles)
        return np.stack([cost, bounded_arqgc(curve, self.axis, self.singles)])


def whether_more_help(what: str, cost: Estimate, area: Estimate) -> str:
    """Say whether more of `what` would help, by what twice as many changed in `CurveFigures.figures`."""
    if cost.high < 0 or area.low > 0:
        return f"more {what} help"
    if cost.low > 0 or area.high < 0:
        return f"more {what} did not help"
    return f"whether more {what} would help cannot be told"
