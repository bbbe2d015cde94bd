"""The one-dimensional path of operating points that is certified: from the best single candidate to the cheapest.

It is fitted on data other than the calibration sample (the heads' training split, or a part of its own), so that testing along it in
order costs no validity. Between its ends only `worth` moves: the choice is the candidate of least cost - worth * quality among all, and
worth falls. On public data that sweep beat the per-prompt threshold (docs/calibration.md).

Which points: worth is swept finely; kept are, for each of some quality levels (denser near the best single candidate's), the
cheapest setting that reaches it on the path's data. Settings not cheaper than the best single candidate, or dearer and no better
than another, are no points. Predictions on the heads' own training rows flatter every setting, but hardly their order; the tests
do not rely on either.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ipr_engine.calibration.observed import Observed
from ipr_engine.errors import InvalidInputError

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

WORTHS = 600  # settings swept
POINTS = 40  # quality levels, hence points at most, besides the ends
DENSITY = 1.5  # levels are (i / POINTS) ** DENSITY below the top
CHEAPER = 0.98  # a setting that costs more of the best single candidate's cost than this saves nothing


@dataclass(frozen=True, eq=False)
class Path:
    """Points, safest first: 0 is the single candidate `best`, the last the single `cheapest`.

    Attributes:
        best, cheapest: positions among the observed names.
        worth: (points,) USD per unit of quality, never rising.
        routed: (rows, points) realised quality on the path's own rows, and their `best_quality`, `cheapest_quality` (rows,):
            a guess of second moments, nothing more.
    """

    best: int
    cheapest: int
    worth: Array
    routed: Array
    best_quality: Array
    cheapest_quality: Array

    def __len__(self) -> int:
        return len(self.worth)

    def single(self, point: int) -> int | None:
        """The one candidate a point allows, None for all."""
        return self.best if point == 0 else self.cheapest if point == len(self) - 1 else None


def fit_path(rows: Observed, *, points: int = POINTS) -> Path:
    """Lay the path out on these rows.

    Raises:
        InvalidInputError: fewer than two candidates, or the best single one is also the cheapest: there is nothing to trade.
    """
    if len(rows.names) < 2:
        raise InvalidInputError(f"candidates: expected at least two to choose between, got {', '.join(rows.names)}")
    quality, cost = rows.quality.mean(axis=0), rows.cost_usd.mean(axis=0)
    best = int(np.lexsort((cost, -quality))[0])
    cheapest = int(np.lexsort((-quality, cost))[0])
    if best == cheapest or cost[cheapest] >= CHEAPER * cost[best]:
        raise InvalidInputError(
            f"candidates: {rows.names[best]!r} has the highest mean quality and {rows.names[cheapest]!r} costs "
            f"{cost[cheapest] / cost[best]:.0%} of it: nothing can be saved on {rows.source}, no map is needed"
        )
    worths = np.geomspace(1e-4, 1e4, WORTHS)[::-1] * cost.max()
    chosen = rows.swept(worths)  # (worths, rows)
    row = np.arange(len(rows))
    routed, paid = rows.quality[row, chosen], rows.cost_usd[row, chosen].mean(axis=1)
    kept = _select(routed.mean(axis=1), paid, quality, cost, best, cheapest, points)
    columns = [rows.quality[:, best], *routed[kept], rows.quality[:, cheapest]]
    inner = worths[kept]
    top = inner[0] if len(inner) else 0.0
    return Path(
        best=best,
        cheapest=cheapest,
        worth=np.concatenate([[top], inner, [0.0]]),
        routed=np.stack(columns, axis=1),
        best_quality=rows.quality[:, best],
        cheapest_quality=rows.quality[:, cheapest],
    )


def _select(routed: Array, paid: Array, quality: Array, cost: Array, best: int, cheapest: int, points: int) -> Indices:
    """Indices of the settings (worths falling) that become points."""
    useful = (paid <= CHEAPER * cost[best]) & (paid > cost[cheapest]) & (routed > quality[cheapest])
    settings = np.flatnonzero(useful)
    if not len(settings):
        return settings
    settings = settings[int(routed[settings].argmax()) :]  # dearer than the best of them: no better
    top, floor = float(routed[settings[0]]), float(quality[cheapest])
    levels = top - (top - floor) * (np.arange(points) / points) ** DENSITY
    last = [settings[np.flatnonzero(routed[settings] >= level)[-1]] for level in levels]
    return np.unique(last)
