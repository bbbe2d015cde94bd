"""A `Contender` is whatever can stand in a table of routers: a sweep of choices or of random mixes, and how to read it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ipr_engine.measures.resampling import Resamples, numbered
from ipr_engine.measures.routing import (
    Axis,
    ChosenSetting,
    Curve,
    WeightedOutcomes,
    choose_operating_point,
    mixture_curve,
    single_curve,
    sweep_curve,
)

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.integer]
Rows = npt.NDArray[np.bool_] | npt.NDArray[np.int64]  # a mask, or positions


MIX_POINTS = (
    401  # steps of cost in every random mix: were one coarser than another, it would look dearer at equal quality
)


class Sweep(Protocol):
    """A `Sweep` holds the settings of a contender in order, the cheap end first."""

    def curve(self, outcomes: WeightedOutcomes, resamples: Resamples) -> Curve: ...
    def shares_at(self, point: int, rows: npt.NDArray[np.bool_], models: int) -> Array:
        """Return the chance of every candidate to answer each of the rows, at one setting: (rows, models)."""
        ...

    def subset(self, rows: Rows) -> Sweep: ...


@dataclass(frozen=True, eq=False)
class Choices:
    """A `Choices` is a sweep that chooses one candidate a prompt: choices (points, rows)."""

    choices: Indices

    @property
    def points(self) -> int:
        return int(self.choices.shape[0])

    @property
    def rows(self) -> int:
        return int(self.choices.shape[1])

    def chances(self, models: int) -> Array:
        """Return the chance of every candidate to answer: (points, rows, models), 0 or 1."""
        return np.asarray(np.eye(models)[self.choices])

    def curve(self, outcomes: WeightedOutcomes, resamples: Resamples) -> Curve:
        return sweep_curve(self.choices, outcomes, resamples)

    def shares_at(self, point: int, rows: npt.NDArray[np.bool_], models: int) -> Array:
        return np.asarray(np.eye(models)[self.choices[point, rows]])

    def subset(self, rows: Rows) -> Choices:
        return Choices(self.choices[:, rows])


@dataclass(frozen=True, eq=False)
class Shares:
    """A `Shares` is a sweep that gives every candidate a chance to answer each prompt: shares (points, rows, models), sums of 1."""

    shares: Array

    @property
    def points(self) -> int:
        return int(self.shares.shape[0])

    @property
    def rows(self) -> int:
        return int(self.shares.shape[1])

    def chances(self, models: int) -> Array:
        return self.shares

    def curve(self, outcomes: WeightedOutcomes, resamples: Resamples) -> Curve:
        points = [curve_of_shares(part, outcomes, resamples) for part in self.shares]
        return Curve(*(np.concatenate([getattr(p, axis) for p in points], axis=1) for axis in ("cost", "quality")))

    def shares_at(self, point: int, rows: npt.NDArray[np.bool_], models: int) -> Array:
        return np.asarray(self.shares[point, rows])

    def subset(self, rows: Rows) -> Shares:
        return Shares(self.shares[:, rows])


@dataclass(frozen=True, eq=False)
class Mix:
    """A `Mix` is a sweep of random mixes, the same for every prompt: shares (points, models)."""

    shares: Array

    @classmethod
    def lines(cls, vertices: Array, singles: Array, points: int = MIX_POINTS) -> Mix:
        """Make straight lines through the vertices (vertices, models), in equal steps of cost and through every vertex.

        Args:
            singles: (models,) mean costs where the vertices were picked; those of the vertices rise.
        """
        along = vertices @ singles
        return cls(_walk(vertices, along, np.union1d(np.linspace(along[0], along[-1], points), along)))

    def curve(self, outcomes: WeightedOutcomes, resamples: Resamples) -> Curve:
        return mixture_curve(self.shares, single_curve(outcomes, resamples))

    def shares_at(self, point: int, rows: npt.NDArray[np.bool_], models: int) -> Array:
        return np.tile(self.shares[point], (int(rows.sum()), 1))

    def subset(self, rows: Rows) -> Mix:
        return self


@dataclass(frozen=True, eq=False)
class FoldedMix:
    """A `FoldedMix` is a sweep of random mixes, the same for every prompt of a fold: shares (folds, points, models), fold (rows,)."""

    shares: Array
    fold: npt.NDArray[np.int64]

    @classmethod
    def of_hulls(
        cls, hulls: Sequence[Array], singles: Sequence[Array], fold: npt.NDArray[np.int64], points: int = MIX_POINTS
    ) -> FoldedMix:
        """Walk each fold's hull in equal steps of cost.

        Args:
            hulls: vertices (vertices, models) of each fold that `fold` names, in order. singles: (models,) mean costs where it was drawn.
        """
        walks = []
        for vertices, cost in zip(hulls, singles, strict=True):
            along = vertices @ cost
            walks.append(_walk(vertices, along, np.linspace(along[0], along[-1], points)))
        return cls(np.stack(walks), np.unique(fold, return_inverse=True)[1])

    def curve(self, outcomes: WeightedOutcomes, resamples: Resamples) -> Curve:
        parts = [
            mixture_curve(shares, single_curve(rows_alone(outcomes, self.fold == fold), resamples))
            for fold, shares in enumerate(self.shares)
        ]
        return Curve(np.sum([part.cost for part in parts], axis=0), np.sum([part.quality for part in parts], axis=0))

    def shares_at(self, point: int, rows: npt.NDArray[np.bool_], models: int) -> Array:
        return np.asarray(self.shares[self.fold[rows], point])

    def subset(self, rows: Rows) -> FoldedMix:
        return FoldedMix(self.shares, self.fold[rows])


def _walk(vertices: Array, along: Array, steps: Array) -> Array:
    """Return the shares (steps, models) at costs on the lines through the vertices, whose costs are `along`."""
    return np.stack([np.interp(steps, along, share) for share in vertices.T], axis=1)


def rows_alone(outcomes: WeightedOutcomes, rows: npt.NDArray[np.bool_]) -> WeightedOutcomes:
    """Return the outcomes with zeros in all other rows: means are this part's share of the means of all, resample by resample."""
    return WeightedOutcomes(
        np.where(rows[:, None], outcomes.quality, 0.0), np.where(rows[:, None], outcomes.cost, 0.0), outcomes.weight
    )


@dataclass(frozen=True, eq=False)
class Contender:
    """A `Contender` is one line of the table of routers.

    Attributes:
        name: shown. kind: "router" (under test), "baseline", "other router" (`ipr eval --router`) or "bound" (uses test outcomes, not
            attainable).
        test: its sweep on the test rows. validation: the same settings on the validation rows, None to choose on halves.
        setting: what tuning chose, for the reader.
    """

    name: str
    kind: str
    test: Sweep
    validation: Sweep | None = None
    setting: str = ""


def at_operating_point(
    contender: Contender,
    share: float,
    axis: Axis,
    test: WeightedOutcomes,
    validation: WeightedOutcomes | None,
    halves: npt.NDArray[np.bool_],
) -> tuple[Array, list[ChosenSetting]]:
    """Run a contender where validation says it keeps `share` of the best single: shares (test rows, models), and the settings.

    With `validation` outcomes and the contender's sweep on them, one setting serves the whole test split. Without, each
    half of the test split (halves: (rows,) bool) is run at the setting chosen on the other half.
    """
    # The best single candidate answers wherever no setting keeps the share.
    best = np.eye(test.models)[axis.best]
    result = np.tile(best, (test.rows, 1))
    everywhere = np.ones(test.rows, dtype=bool)
    if validation is not None and contender.validation is not None:
        plan = [(contender.validation, validation, everywhere)]
    else:
        # Two halves, each run at the setting chosen on the other: no prompt is judged at a setting that it helped to choose.
        plan = [(contender.test.subset(side), test.subset(side), ~side) for side in (halves, ~halves)]
    points = []
    for sweep, seen, rows in plan:
        once = Resamples(seen.rows, draws=0)
        point = choose_operating_point(sweep.curve(seen, once), axis, single_curve(seen, once), share)
        if point.index is not None:
            result[rows] = contender.test.shares_at(point.index, rows, test.models)
        points.append(point)
    return result, points


def curve_of_shares(shares: Array, outcomes: WeightedOutcomes, resamples: Resamples) -> Curve:
    """Return one point: mean cost and quality when candidate m answers row r with chance shares[r, m]."""
    # A cost or quality of weight 0 may be NaN: it is masked before it is multiplied.
    weight = shares * outcomes.weight  # (rows, models)
    used = weight > 0
    total = weight.sum(axis=1)
    cost = np.where(used, weight * np.where(used, outcomes.cost, 0.0), 0.0).sum(axis=1)
    quality = np.where(used, weight * np.where(used, outcomes.quality, 0.0), 0.0).sum(axis=1)
    sums = resamples.sums(np.stack([cost, quality, total], axis=1))  # (1 + draws, 3)
    return Curve(sums[:, :1] / sums[:, 2:], sums[:, 1:2] / sums[:, 2:])


def halves_of(groups: Sequence[str], seed: int) -> npt.NDArray[np.bool_]:
    """Mark one half of the rows: (rows,). Groups (question keys) are never split, sizes about equal."""
    group, distinct = numbered(groups)
    first = np.random.default_rng(seed).permutation(distinct) < distinct / 2
    return np.asarray(first[group])
