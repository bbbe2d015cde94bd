"""This file takes routing figures on known outcomes; docs/metrics.md has the formulas and their sources.

Every curve is an array pair (1 + draws, points): row 0 is the sample, the others its resamples (`resampling.Resamples`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ipr_engine.errors import InvalidInputError
from ipr_engine.measures.resampling import Resamples

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.integer]

MOST_PICKED = 1 << 23  # outcomes that a sweep picks at once
SHARES = (1.0, 0.99, 0.98, 0.95)
SHARE = 0.98  # of the best single candidate's quality, at which `cost_kept` reads costs
ARENA_BETA, ARENA_DEAREST, ARENA_CHEAPEST = 0.1, 200.0, 0.0044  # RouterArena, USD per 1,000 queries


@dataclass(frozen=True, eq=False)
class WeightedOutcomes:
    """`WeightedOutcomes` hold the quality and cost of every candidate on every prompt, each with a weight.

    Attributes:
        quality: (rows, models) in [0, 1]. cost: (rows, models) USD >= 0. NaN where weight is 0.
        weight: (rows, models) >= 0; all 1 for complete rows, see `inverse_coverage`.
    """

    quality: Array
    cost: Array
    weight: Array

    @classmethod
    def complete(cls, quality: Array, cost: Array) -> WeightedOutcomes:
        """Take rows without a gap. `complete_rows` drops the others before, `inverse_coverage` keeps them."""
        quality, cost = _checked(quality, cost)
        missing = int((~(np.isfinite(quality) & np.isfinite(cost))).any(axis=1).sum())
        if missing:
            raise InvalidInputError(
                f"quality, cost: expected no NaN, got {missing} incomplete row(s); "
                "drop them with complete_rows(...) or weigh with WeightedOutcomes.inverse_coverage(...)"
            )
        return cls(quality, cost, np.ones_like(quality))

    @classmethod
    def inverse_coverage(cls, quality: Array, cost: Array, strata: Sequence[object] | None = None) -> WeightedOutcomes:
        """Take sparse rows: an outcome weighs 1 / (share of its stratum's rows on which the candidate has one).

        Unbiased where, inside a stratum (a dataset, say), it is chance which outcomes are missing.

        Raises:
            InvalidInputError: a candidate has no outcome in a whole stratum: nothing can stand for those rows.
        """
        quality, cost = _checked(quality, cost)
        present = np.isfinite(quality) & np.isfinite(cost)
        names, group = np.unique(
            np.asarray([str(s) for s in strata] if strata else [""] * len(quality)), return_inverse=True
        )
        if len(group) != len(quality):
            raise InvalidInputError(f"strata: expected {len(quality)} entries, got {len(group)}")
        weight = np.zeros_like(quality)
        for g, name in enumerate(names):
            rows = group == g
            # Horvitz and Thompson's weights: an outcome stands for the rows of its stratum that lack one.
            share = present[rows].mean(axis=0)  # (models,)
            if not (share > 0).all():
                raise InvalidInputError(
                    f"quality: candidate {int(np.flatnonzero(share == 0)[0])} has no outcome in stratum {str(name)!r}; "
                    "leave the candidate or the stratum out"
                )
            weight[rows] = present[rows] / share
        return cls(np.where(present, quality, np.nan), np.where(present, cost, np.nan), weight)

    @property
    def rows(self) -> int:
        return len(self.quality)

    @cached_property
    def whole(self) -> bool:
        """Whether every weight is 1: then a mean needs no sum of weights."""
        return bool((self.weight == 1).all())

    @property
    def models(self) -> int:
        return int(self.quality.shape[1])

    def subset(self, rows: npt.NDArray[np.bool_] | Indices) -> WeightedOutcomes:
        return WeightedOutcomes(self.quality[rows], self.cost[rows], self.weight[rows])

    def columns(self, models: Sequence[int]) -> WeightedOutcomes:
        return WeightedOutcomes(self.quality[:, models], self.cost[:, models], self.weight[:, models])


def _checked(quality: Array, cost: Array) -> tuple[Array, Array]:
    """Return both tables in float64. Shapes must agree and values be in range."""
    quality, cost = np.asarray(quality, np.float64), np.asarray(cost, np.float64)
    if quality.ndim != 2 or quality.shape != cost.shape or not quality.size:
        raise InvalidInputError(f"quality, cost: expected equal (rows, models), got {quality.shape} and {cost.shape}")
    if (quality < 0).any() or (quality > 1).any():
        raise InvalidInputError(f"quality: expected values in [0, 1], got {np.nanmin(quality)} to {np.nanmax(quality)}")
    if (cost < 0).any() or np.isinf(cost).any():
        raise InvalidInputError("cost: expected finite values >= 0, or NaN where unknown")
    return quality, cost


def complete_rows(*tables: Array) -> npt.NDArray[np.bool_]:
    """Tell for each row whether every (rows, models) table is finite there: (rows,)."""
    return np.asarray(np.logical_and.reduce([np.isfinite(table).all(axis=1) for table in tables]))


@dataclass(frozen=True, eq=False)
class Curve:
    """A `Curve` holds mean cost and quality (1 + draws, points), in sweep order: the cheap end of the parameter first."""

    cost: Array
    quality: Array

    @property
    def points(self) -> int:
        return int(self.cost.shape[1])


def sweep_curve(choices: Indices, outcomes: WeightedOutcomes, resamples: Resamples) -> Curve:
    """Measure choices (points, rows) on outcomes, point by point, in the order given."""
    choices = np.atleast_2d(choices)
    if choices.shape[1] != outcomes.rows or choices.min() < 0 or choices.max() >= outcomes.models:
        raise InvalidInputError(
            f"choices: expected (points, {outcomes.rows}) columns below {outcomes.models}, got {choices.shape}, "
            f"{choices.min()} to {choices.max()}"
        )
    rows = np.arange(outcomes.rows)[:, None]
    costs, qualities = [], []
    # A few points of many rows at once: the outcomes picked at all points would take as much memory as the sweep's every table.
    some = max(1, MOST_PICKED // outcomes.rows)
    for begin in range(0, len(choices), some):
        picked = choices[begin : begin + some].T  # (rows, points)
        weight = None if outcomes.whole else outcomes.weight[rows, picked]
        costs.append(resamples.means(outcomes.cost[rows, picked], weight))
        qualities.append(resamples.means(outcomes.quality[rows, picked], weight))
    return Curve(np.concatenate(costs, axis=1), np.concatenate(qualities, axis=1))


def single_curve(outcomes: WeightedOutcomes, resamples: Resamples) -> Curve:
    """Measure every candidate alone: one point a column, in column order."""
    weight = None if outcomes.whole else outcomes.weight
    return Curve(resamples.means(outcomes.cost, weight), resamples.means(outcomes.quality, weight))


def mixture_curve(shares: Array, singles: Curve) -> Curve:
    """Return expected cost and quality of random mixes of candidates: shares (points, models), each row sums to 1."""
    if (shares < 0).any() or not np.allclose(shares.sum(axis=1), 1):
        raise InvalidInputError("shares: expected rows of shares >= 0 that sum to 1")
    return Curve(singles.cost @ shares.T, singles.quality @ shares.T)


@dataclass(frozen=True)
class Axis:
    """An `Axis` is the two candidates a curve is measured between; they are chosen on training outcomes, never on the test split."""

    cheapest: int
    best: int

    @classmethod
    def of(cls, train: WeightedOutcomes) -> Axis:
        """Pick the candidate of least mean cost and that of highest mean quality; ties go to the better, the cheaper, then the first
        column."""
        once = Resamples(train.rows, draws=0)
        singles = single_curve(train, once)
        cost, quality = singles.cost[0], singles.quality[0]
        return cls(int(np.lexsort((-quality, cost))[0]), int(np.lexsort((cost, -quality))[0]))


def degenerate_axis(axis: Axis, singles: Curve, models: Sequence[str]) -> str | None:
    """Say why areas on this axis are undefined; None where they are defined. Row 0 of `singles`, the outcomes measured, decides."""
    cheapest, best = models[axis.cheapest], models[axis.best]
    cost, quality = singles.cost[0], singles.quality[0]
    if axis.cheapest == axis.best:
        return f"{best} is the cheapest and the best single candidate: it answers everything, and there is nothing to trade"
    if not cost[axis.best] > cost[axis.cheapest]:
        return f"here the best single candidate {best} costs no more than the cheapest, {cheapest}: there is nothing to save"
    if not quality[axis.best] > quality[axis.cheapest]:
        return f"here the best single candidate {best} is no better than the cheapest, {cheapest}: there is nothing to gain"
    return None


def bounded_arqgc(curve: Curve, axis: Axis, singles: Curve, *, top: Array | None = None) -> Array:
    """Return the area under the normalised curve between the cheapest and the best single candidate, (1 + draws,).

    The curve starts at the cheapest single candidate, runs through its points in sweep order, straight between them,
    and stays level from its last point on; cost outside the axis is cut off, quality is not.

    Args:
        top: (1 + draws,) quality that counts as 1; None for the best single candidate's.
    Returns:
        0 = the cheapest candidate's quality everywhere, 1 = `top` everywhere. NaN where the axis has no length or height.
    """
    low, high = singles.cost[:, axis.cheapest], singles.cost[:, axis.best]
    floor = singles.quality[:, axis.cheapest]
    height = (singles.quality[:, axis.best] if top is None else top) - floor
    # Draws whose axis has no length or height divide by 0 here; they are NaN in what is returned.
    with np.errstate(all="ignore"):
        u = (curve.cost - low[:, None]) / (high - low)[:, None]
        v = (curve.quality - floor[:, None]) / height[:, None]
    # From the cheapest single candidate (0, 0) on, and level from the last point to the end of the axis.
    start = np.zeros((len(u), 1))
    u = np.concatenate([start, u, start + 1], axis=1)
    v = np.concatenate([start, v, v[:, -1:]], axis=1)
    area = _clipped_integral(u, v)
    return np.where((high > low) & (height > 0), area, np.nan)


def _clipped_integral(u: Array, v: Array) -> Array:
    """Integrate v du along the part of a polyline with 0 <= u <= 1; u, v (n, points). A step back counts back."""
    u0, u1, v0, v1 = u[:, :-1], u[:, 1:], v[:, :-1], v[:, 1:]
    a, b = np.clip(u0, 0, 1), np.clip(u1, 0, 1)
    with np.errstate(all="ignore"):
        slope = np.where(u1 == u0, 0.0, (v1 - v0) / (u1 - u0))
        middle = v0 + slope * ((a + b) / 2 - u0)
        return np.asarray(np.where(a == b, 0.0, (b - a) * middle).sum(axis=1))


def oracle_quality(outcomes: WeightedOutcomes, resamples: Resamples) -> Array:
    """Return the mean of the row maximum, (1 + draws,): the quality of a router that knows every outcome. Expects complete rows."""
    return resamples.means(outcomes.quality.max(axis=1))


def hull(cost: Array, quality: Array) -> Indices:
    """Return the columns on the upper concave envelope of points (models,), by rising cost: random mixes of two reach it."""
    points: list[int] = []
    for m in np.lexsort((-quality, cost)):
        if points and quality[m] <= quality[points[-1]]:
            continue
        while len(points) > 1:
            a, b = points[-2], points[-1]
            # b stays where the slope into it is steeper than the slope out of it (compared without dividing).
            if (quality[b] - quality[a]) * (cost[m] - cost[b]) > (quality[m] - quality[b]) * (cost[b] - cost[a]):
                break
            points.pop()
        points.append(int(m))
    return np.asarray(points, dtype=np.int64)


@dataclass(frozen=True)
class ChosenSetting:
    """A `ChosenSetting` was chosen on validation; `index` is None where no setting kept the share: then the best single answers."""

    share: float
    index: int | None


def choose_operating_point(curve: Curve, axis: Axis, singles: Curve, share: float) -> ChosenSetting:
    """Choose the cheapest validation point (row 0) that keeps `share` of the best single candidate's validation quality."""
    # 1e-12: rounding must not decide whether the best single candidate keeps its own quality.
    reached = np.flatnonzero(curve.quality[0] >= share * singles.quality[0, axis.best] - 1e-12)
    if not len(reached):
        return ChosenSetting(share, None)
    return ChosenSetting(share, int(reached[curve.cost[0, reached].argmin()]))


def read_operating_point(point: ChosenSetting, curve: Curve, axis: Axis, singles: Curve) -> tuple[Array, Array]:
    """Read a setting on another split: cost saved and quality kept, as shares of the best single candidate's, (1 + draws,) each; NaN
    where that is 0."""
    cost = singles.cost[:, axis.best] if point.index is None else curve.cost[:, point.index]
    quality = singles.quality[:, axis.best] if point.index is None else curve.quality[:, point.index]
    whole_cost, whole_quality = singles.cost[:, axis.best], singles.quality[:, axis.best]
    with np.errstate(all="ignore"):
        saved, kept = 1 - cost / whole_cost, quality / whole_quality
    return np.where(whole_cost > 0, saved, np.nan), np.where(whole_quality > 0, kept, np.nan)


def cost_at(curve: Curve, wanted: Array, ceiling: Array) -> Array:
    """Return the least cost at which a curve reaches a quality, (1 + draws,); `ceiling` where it nowhere does.

    It is read off straight lines between the curve's points: a random mix of two settings. So it is chosen on the prompts that it is
    read on, for every curve alike, and is a little too good.

    Args:
        wanted, ceiling: (1 + draws,) a quality, and the cost of what always reaches it.
    """
    goal = wanted[:, None]
    q0, q1, c0, c1 = curve.quality[:, :-1], curve.quality[:, 1:], curve.cost[:, :-1], curve.cost[:, 1:]
    crossing = (np.minimum(q0, q1) < goal) & (np.maximum(q0, q1) >= goal)
    with np.errstate(all="ignore"):
        between = c0 + np.clip((goal - q0) / (q1 - q0), 0, 1) * (c1 - c0)
    # 1e-12: rounding must not decide whether a candidate keeps its own quality.
    at_point = np.where(curve.quality >= goal - 1e-12, curve.cost, np.inf).min(axis=1)
    on_line = np.where(crossing, between, np.inf).min(axis=1, initial=np.inf)
    return np.asarray(np.minimum(np.minimum(on_line, at_point), ceiling))


def cost_kept(curve: Curve, axis: Axis, singles: Curve, share: float = SHARE) -> Array:
    """Return what a share of the best single candidate's quality costs on a curve, over what that candidate costs, (1 + draws,)."""
    dear = singles.cost[:, axis.best]
    with np.errstate(all="ignore"):
        return np.asarray(cost_at(curve, share * singles.quality[:, axis.best], dear) / dear)


def aiq(curve: Curve, singles: Curve) -> Array:
    """Return RouterBench's average improvement in quality, (1 + draws,): mean height of the curve's non-decreasing hull.

    Over the cost from the cheapest to the dearest single candidate, level outside the hull. The hull is taken on the
    points measured, as RouterBench does, so a noisy curve is flattered; it is here to stand beside published figures.
    """
    result = np.full(len(curve.cost), np.nan)
    for d in range(len(result)):
        low, high = singles.cost[d].min(), singles.cost[d].max()
        # Level below the hull's first point and above its last one, as np.interp is.
        on = hull(curve.cost[d], curve.quality[d])
        if high <= low:
            continue
        cost, quality = curve.cost[d, on], curve.quality[d, on]
        grid = np.concatenate([[low], cost[(cost > low) & (cost < high)], [high]])
        level = np.interp(grid, cost, quality)
        result[d] = (np.diff(grid) * (level[1:] + level[:-1])).sum() / 2 / (high - low)
    return result


def arena_score(quality: Array, cost_usd: Array) -> Array:
    """Return RouterArena's score of mean quality in [0, 1] and mean USD per query > 0; NaN where the cost is 0."""
    # Costs are compared on a log scale between RouterArena's cheapest and dearest model.
    with np.errstate(all="ignore"):
        per_1000 = np.log2(1000 * np.asarray(cost_usd))
        c = (np.log2(ARENA_DEAREST) - per_1000) / (np.log2(ARENA_DEAREST) - np.log2(ARENA_CHEAPEST))
        score = (1 + ARENA_BETA) * quality * c / (ARENA_BETA * quality + c)
    return np.where(np.isfinite(per_1000), score, np.nan)
