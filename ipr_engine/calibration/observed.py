"""`Observed` holds scored prompts, encoded once; `fit_path` lays a path of operating points out on some of them.

The path leads from the best single candidate to the cheapest. It is fitted on data other than the calibration sample (the heads'
training split, or a part of its own), so that testing along it in order costs no validity. Between its ends only `worth` moves: the
choice is the candidate of least cost - worth * quality among all, and worth falls. On public data that sweep beat the per-prompt
threshold (docs/calibration.md).

Which points: worth is swept finely; kept are, for each of some quality levels (denser near the best single candidate's), the
cheapest setting that reaches it on the path's data. Settings not cheaper than the best single candidate, or dearer and no better
than another, are no points. Predictions on the heads' own training rows flatter every setting, but hardly their order; the tests
do not rely on either.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine.bundle import Bundle
from ipr_engine.bundle.calibration import SUPPORT_QUANTILES
from ipr_engine.data import Outcomes, name_in_source
from ipr_engine.errors import InvalidInputError
from ipr_engine.evaluation.embedded import EmbeddedPrompts

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]


POINTS = 40  # quality levels of the path
WORTHS = 600  # settings swept
DENSITY = 1.5  # levels are (i / POINTS) ** DENSITY below the top
CHEAPER = 0.98  # a setting that costs more of the best single candidate's cost than this saves nothing


@dataclass(frozen=True, eq=False)
class Observed:
    """An `Observed` holds prompts on which every candidate of a set was scored.

    Attributes:
        names: the candidate set, in bundle order; the columns of `quality`.
        embedded: the prompts by every encoder of the bundle: what is decided on them is what a two-tier bundle would route.
        quality: (rows, models) realised, in [0, 1]. predicted, cost_usd: (rows, models) by the engine at the bundle's prices.
        source: what it is, for the map. prompts are those of `outcomes`.
    """

    bundle: Bundle
    names: tuple[str, ...]
    embedded: EmbeddedPrompts
    outcomes: Outcomes
    quality: Array
    predicted: Array
    cost_usd: Array
    source: str

    def __len__(self) -> int:
        return len(self.quality)

    @property
    def columns(self) -> list[int]:
        """The positions of `names` in the bundle."""
        return [self.bundle.names.index(name) for name in self.names]

    def choices(self, worth: float, allowed: Sequence[str] | None = None) -> tuple[Indices, Array]:
        """Choose by the engine at a worth: positions in `names` and expected USD, (rows,) each."""
        return self.decided(tau=1.0, rule="minmax", worth=worth, allowed=list(allowed or self.names))

    def decided(self, **options: Any) -> tuple[Indices, Array]:
        """Decide by the engine under policy options that allow none but `names`: positions in `names` and expected USD, (rows,) each."""
        decisions = self.embedded.decide(**options)
        position = np.full(len(self.bundle.names), -1, dtype=np.int64)  # in the bundle -> in `names`
        position[self.columns] = np.arange(len(self.names))
        return position[decisions.index], decisions.cost_usd.astype(np.float64)

    def swept(self, worth: float) -> Indices:
        """Choose the candidate of least cost - worth * quality: positions in `names`, (rows,).

        Of one tier by argmax in float64: it lays out a path, and `choices` decides its points. Of two tiers by the engine.
        """
        if self.embedded.second is None:
            return np.asarray((worth * self.predicted - self.cost_usd).argmax(axis=1))
        return self.choices(worth)[0]

    def support_quantiles(self) -> tuple[float, ...] | None:
        """Return `SUPPORT_QUANTILES` quantiles of the prompts' support at equal steps; None where the bundle measures none."""
        support = replace(self.embedded, second=None).decide(tau=0.0, allowed=list(self.names)).support
        if support is None:
            return None
        steps = np.linspace(0, 1, SUPPORT_QUANTILES)
        return tuple(float(q) for q in np.quantile(support.astype(np.float64), steps, method="inverted_cdf"))

    def take(self, rows: npt.NDArray[np.bool_]) -> Observed:
        return replace(
            self,
            embedded=self.embedded.take(rows),
            outcomes=self.outcomes.take(rows),
            quality=self.quality[rows],
            predicted=self.predicted[rows],
            cost_usd=self.cost_usd[rows],
        )


def observe(
    bundle: Bundle,
    embed: Callable[[Outcomes], EmbeddedPrompts],
    outcomes: Outcomes,
    names: Sequence[str],
    sources: Mapping[str, Mapping[str, str] | str],
    *,
    label: str,
) -> Observed:
    """Encode the rows on which every one of `names` has a quality, and predict on them.

    Args:
        embed: embeds the prompts of outcome data by every encoder of the bundle.
        sources: name in the bundle -> name in the outcomes, for those that differ; one for all, or {source: name}.
        label: what these prompts are, such as "mine, split calibration".
    Raises:
        InvalidInputError: a candidate has no outcomes, no row is complete, or the heads predict no output tokens.
    """
    wanted = [name_in_source(sources, name, outcomes.source) for name in names]
    missing = [f"{name!r}" for name, source in zip(names, wanted, strict=True) if source not in outcomes.models]
    if missing:
        raise InvalidInputError(
            f"outcomes: no outcomes of {', '.join(missing)} in {outcomes.source}, which has {', '.join(outcomes.models)}; "
            "say what they are called there, or calibrate without them"
        )
    if "len_skip" not in bundle.quality_heads.tensors:
        raise InvalidInputError("bundle: expected heads that predict output tokens, since a map weighs expected costs")
    rows = outcomes.complete(wanted)
    embedded = embed(rows)
    decisions = embedded.decide(tau=0.0, allowed=list(names))
    columns = [bundle.names.index(name) for name in names]
    return Observed(
        bundle=bundle,
        names=tuple(names),
        embedded=embedded,
        outcomes=rows,
        quality=rows.quality,
        predicted=np.asarray(decisions.qualities[:, columns], np.float64),
        cost_usd=np.asarray(decisions.costs_usd[:, columns], np.float64),
        source=label,
    )


@dataclass(frozen=True, eq=False)
class OperatingPath:
    """An `OperatingPath` holds the points of a path, safest first: 0 is the single candidate `best`, the last the single `cheapest`.

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
        """Return the one candidate that a point allows, None for all."""
        return self.best if point == 0 else self.cheapest if point == len(self) - 1 else None


def fit_path(rows: Observed, *, points: int = POINTS) -> OperatingPath:
    """Lay a path out on these rows.

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
    # From where cost hardly counts to where quality does not, in units of the dearest candidate's mean cost.
    worths = np.geomspace(1e-4, 1e4, WORTHS)[::-1] * cost.max()
    row = np.arange(len(rows))
    # Means of every setting, then the rows of the few that are kept: all settings on all rows would not fit into memory.
    means = np.empty((2, len(worths)))
    for i, worth in enumerate(worths.tolist()):
        chosen = rows.swept(worth)
        means[:, i] = rows.quality[row, chosen].mean(), rows.cost_usd[row, chosen].mean()
    kept = _select(means[0], means[1], quality, cost, best, cheapest, points)
    inner = worths[kept]
    routed = [rows.quality[row, rows.swept(worth)] for worth in inner.tolist()]
    columns = [rows.quality[:, best], *routed, rows.quality[:, cheapest]]
    top = inner[0] if len(inner) else 0.0
    # The ends allow one candidate each, so their worth decides nothing.
    return OperatingPath(
        best=best,
        cheapest=cheapest,
        worth=np.concatenate([[top], inner, [0.0]]),
        routed=np.stack(columns, axis=1),
        best_quality=rows.quality[:, best],
        cheapest_quality=rows.quality[:, cheapest],
    )


def decide_points(rows: Observed, path: OperatingPath) -> tuple[Indices, Array]:
    """Decide each point of the path on the rows, by the engine: choices (points, rows) and mean expected USD (points,)."""
    choices, costs = [], []
    for point, worth in enumerate(path.worth):
        single = path.single(point)
        chosen, paid = rows.choices(float(worth), None if single is None else [rows.names[single]])
        choices.append(chosen)
        costs.append(float(paid.mean()))
    return np.stack(choices), np.array(costs)


def _select(routed: Array, paid: Array, quality: Array, cost: Array, best: int, cheapest: int, points: int) -> Indices:
    """Return the indices of the settings (worths falling) that become points."""
    useful = (paid <= CHEAPER * cost[best]) & (paid > cost[cheapest]) & (routed > quality[cheapest])
    settings = np.flatnonzero(useful)
    if not len(settings):
        return settings
    settings = settings[int(routed[settings].argmax()) :]  # dearer than the best of them: no better
    top, floor = float(routed[settings[0]]), float(quality[cheapest])
    levels = top - (top - floor) * (np.arange(points) / points) ** DENSITY
    last = [settings[np.flatnonzero(routed[settings] >= level)[-1]] for level in levels]
    return np.unique(last)
