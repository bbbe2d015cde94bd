"""Promised against kept: what tau promises (docs/tau.md) beside what was realised on prompts not fitted on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ipr_engine.measures.bootstrap import Resamples

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

TAUS = (0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
EVERY_TAU = (0.0, *TAUS, 1.0)


@dataclass(frozen=True, eq=False)
class Kept:
    """Figures (1 + draws, taus), row 0 the sample itself.

    Attributes:
        tau: (taus,). quality, cost: mean realised quality and USD of what is routed.
        best, cheapest: (1 + draws,) mean quality of the two single candidates of the promise. dear, cheap: their mean cost.
    """

    tau: Array
    quality: Array
    cost: Array
    best: Array
    cheapest: Array
    dear: Array
    cheap: Array

    @classmethod
    def of(
        cls,
        taus: Sequence[float],
        choices: Indices,
        quality: Array,
        cost: Array,
        *,
        best: int,
        cheapest: int,
        resamples: Resamples,
    ) -> Kept:
        """Measure choices (taus, rows) on realised quality and cost (rows, models)."""
        every, width = np.arange(len(quality)), len(taus)
        routed = np.stack([quality[every, chosen] for chosen in choices], axis=1)
        paid = np.stack([cost[every, chosen] for chosen in choices], axis=1)
        ends = [best, cheapest]
        means = resamples.means(np.concatenate([routed, paid, quality[:, ends], cost[:, ends]], axis=1))
        return cls(
            np.asarray(taus, np.float64), means[:, :width], means[:, width : 2 * width], *means[:, 2 * width :].T
        )

    @property
    def promised(self) -> Array:
        """(1 - tau) of the way from cheapest to best, on the same prompts."""
        return (1 - self.tau) * self.best[:, None] + self.tau * self.cheapest[:, None]

    @property
    def excess(self) -> Array:
        """Kept minus promised quality."""
        return self.quality - self.promised

    @property
    def lost(self) -> Array:
        """Share of the way from best to cheapest that was lost; NaN where both are as good."""
        gap = (self.best - self.cheapest)[:, None]
        return np.divide(self.best[:, None] - self.quality, gap, out=np.full_like(self.quality, np.nan), where=gap != 0)

    @property
    def of_best_cost(self) -> Array:
        """Cost, as a share of the best single candidate's."""
        return np.divide(
            self.cost, self.dear[:, None], out=np.full_like(self.cost, np.nan), where=self.dear[:, None] > 0
        )

    @property
    def over_line(self) -> Array:
        """Quality above the straight line between the two single candidates at equal cost; beyond its ends, above the end."""
        along = np.clip((self.cost - self.cheap[:, None]) / (self.dear - self.cheap)[:, None], 0, 1)
        return self.quality - (self.cheapest[:, None] + along * (self.best - self.cheapest)[:, None])
