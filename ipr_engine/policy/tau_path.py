"""Tau's path (rule `path`) tells which worth gives up a share tau of the way from the best candidate's mean quality to the cheapest's.

    path = TauPath.fit(quality, outcome, cost_usd, tie_rank)    # one candidate set at one price list
    path.worth_at(0.3)                                          # USD per unit of quality

A choice at worth w takes the least cost - w * quality. As w rises from 0, each fitting prompt moves along its own lower
envelope, from its cheapest candidate to its best predicted one; a move is a break point. The mean outcome R(w) over the
prompts is made rising by an isotonic fit, and read backwards: level -> worth (docs/tau.md).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ipr_engine._C import break_points as native_break_points

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

KNOTS = 256  # worths at which the path is read before the isotonic fit


class BreakPoints(NamedTuple):
    """A `BreakPoints` lists moves of prompts from one candidate to the next, by rising worth. All arrays are (moves,)."""

    worth: Array
    row: Ints
    before: Ints
    after: Ints


class TierRows(NamedTuple):
    """A `TierRows` holds one tier's predictions of prompts, each (rows, models): quality, cost as weighed, and cost in USD."""

    quality: Array
    cost: Array
    usd: Array


@dataclass(frozen=True, kw_only=True, eq=False)
class TauPath:
    """A `TauPath` is the path of one candidate set at one price list.

    Cost is what a policy weighs: USD, or a weighted sum of which USD is one term (cost_weights.py); the means told are in USD.

    Attributes:
        best, cheapest: positions of the single candidates that tau speaks of: the greatest mean outcome, the least mean cost.
        best_quality, cheapest_quality: their mean outcomes.
        standard_error: of the difference of these two means.
        worth: (knots,) USD per unit of quality, rising; where the path was read. Empty where no prompt ever moves.
        cost_usd: (knots,) mean predicted cost of a prompt there. shares: (knots, models) of the prompts.
        level: (blocks,) mean outcome after the isotonic fit, rising; log_worth: (blocks,) the centre of each block.
        dearest_choice_usd: mean predicted cost of taking the highest predicted quality on every prompt (tau 0).
        dearest_choice_quality: mean outcome of that; below best_quality where the heads are weak.
        cheapest_choice_usd: the same of taking the cheapest on every prompt (tau 1); cheapest_shares: (models,) whom that takes.
        cheapest_choice_quality: mean outcome of that; below cheapest_quality where who is cheapest changes with the prompt, and costs
            quality. choice_errors: standard errors of its difference from best_quality, and from cheapest_quality.
        single_usd: (models,) mean predicted cost of each candidate alone, in USD a prompt.
        rows: prompts behind all this.
    """

    best: int
    cheapest: int
    best_quality: float
    cheapest_quality: float
    standard_error: float
    worth: Array = field(repr=False)
    cost_usd: Array = field(repr=False)
    shares: Array = field(repr=False)
    level: Array = field(repr=False)
    log_worth: Array = field(repr=False)
    dearest_choice_usd: float
    dearest_choice_quality: float
    cheapest_choice_usd: float
    cheapest_choice_quality: float
    choice_errors: tuple[float, float]
    cheapest_shares: Array = field(repr=False)
    single_usd: Array = field(repr=False)
    rows: int

    @classmethod
    def fit(
        cls,
        quality: Array,
        outcome: Array,
        cost: Array,
        tie_rank: npt.NDArray[np.integer[Any]],
        *,
        usd: Array | None = None,
    ) -> TauPath:
        """Fit the path on prompts like those to come.

        Args:
            quality: (rows, models) predicted out of fold. outcome: (rows, models) realised, NaN where not judged: then the
                prediction counts. cost: (rows, models) predicted, as weighed. rows >= 1, models >= 1.
            tie_rank: (models,) distinct; of equal candidates the lower one is taken.
            usd: (rows, models) the same costs in USD; None where `cost` is that.
        """
        realised = np.where(np.isnan(outcome), quality, outcome)  # (rows, models)
        paid = cost if usd is None else usd
        mean, spent = realised.mean(axis=0), cost.mean(axis=0)
        # lexsort: the last key first. The best mean, then the least cost, then the rank; and the other way round
        best = int(np.lexsort((tie_rank, spent, -mean))[0])
        cheapest = int(np.lexsort((tie_rank, -mean, spent))[0])
        difference = realised[:, best] - realised[:, cheapest]
        moves, first, last = break_points(quality, cost, tie_rank)
        rows, models = quality.shape
        every = np.arange(rows)
        taken = realised[every, first]
        start = np.bincount(first, minlength=models) / rows
        worth = _grid(moves, cost)
        upto = np.searchsorted(moves.worth, worth, side="right")  # (knots,) moves at or below each worth

        def after(step: Array, base: float) -> Array:
            """Return (knots,) means over the prompts of a number that begins at `base` and that each move changes by `step`, (moves,)."""
            value: Array = base + np.concatenate([[0.0], np.cumsum(step)])[upto] / rows
            return value

        reached = after(
            realised[moves.row, moves.after] - realised[moves.row, moves.before], realised[every, first].mean()
        )
        level, log_worth = isotonic(reached, np.log(worth))
        changed = np.zeros(
            (len(worth) + 1, models)
        )  # prompts that come and go at each knot; the last row is beyond the grid
        at = np.searchsorted(worth, moves.worth, side="left")
        np.add.at(changed, (at, moves.after), 1.0)
        np.add.at(changed, (at, moves.before), -1.0)
        return cls(
            best=best,
            cheapest=cheapest,
            best_quality=float(mean[best]),
            cheapest_quality=float(mean[cheapest]),
            standard_error=float(difference.std() / np.sqrt(rows)),
            worth=worth,
            cost_usd=after(paid[moves.row, moves.after] - paid[moves.row, moves.before], paid[every, first].mean()),
            shares=start + np.cumsum(changed, axis=0)[: len(worth)] / rows,
            level=level,
            log_worth=log_worth,
            dearest_choice_usd=float(paid[every, last].mean()),
            dearest_choice_quality=float(realised[every, last].mean()),
            cheapest_choice_usd=float(paid[every, first].mean()),
            cheapest_choice_quality=float(taken.mean()),
            choice_errors=choice_errors(realised, taken, best, cheapest),
            cheapest_shares=start,
            single_usd=paid.mean(axis=0),
            rows=rows,
        )

    @property
    def cheapest_keeps(self) -> bool:
        """Return whether the cheapest on each prompt keeps the mean quality of the cheapest single candidate, within a standard error."""
        return self.cheapest_choice_quality >= self.cheapest_quality - self.choice_errors[1]

    @property
    def told_apart(self) -> bool:
        """Return whether the best single candidate is better than the cheapest single one, by a standard error at least."""
        difference = self.best_quality - self.cheapest_quality
        return self.best != self.cheapest and difference > 0 and difference >= self.standard_error

    @property
    def least_quality(self) -> float:
        """Return the mean outcome that tau counts down to: the cheapest single candidate's.

        Where that one is also the best, and taking the cheapest on each prompt is worse: what this comes to.
        """
        return self.cheapest_quality if self.told_apart or self.cheapest_keeps else self.cheapest_choice_quality

    def promise(self, tau: float) -> float:
        """Return the mean quality that tau promises: (1 - tau) * best_quality + tau * least_quality."""
        return (1 - tau) * self.best_quality + tau * self.least_quality

    def worth_at(self, level: float) -> float:
        """Return the worth that keeps this mean quality: the greatest one where none does, the least where all do, 0 without any."""
        if not len(self.worth):
            return 0.0
        if level > self.level[-1]:
            return float(self.worth[-1])
        if level < self.level[0]:
            return float(self.worth[0])
        return float(np.exp(np.interp(level, self.level, self.log_worth)))


def choice_errors(realised: Array, taken: Array, best: int, cheapest: int) -> tuple[float, float]:
    """Return the two standard errors of `TauPath.choice_errors`.

    realised: (rows, models) outcomes. taken: (rows,), the outcome of the cheapest on each prompt.
    """
    best_error, cheapest_error = ((realised[:, m] - taken).std() / np.sqrt(len(taken)) for m in (best, cheapest))
    return float(best_error), float(cheapest_error)


def break_points(quality: Array, cost: Array, tie_rank: npt.NDArray[np.integer[Any]]) -> tuple[BreakPoints, Ints, Ints]:
    """Return every move of every prompt along its lower envelope, by rising worth, and (rows,) where each starts (worth 0) and ends.

    The definition, to the bit, is `ipr_engine.decide.reference.break_points`; csrc/src/tau_path.cpp computes it.

    Args:
        quality, cost: (rows, models), finite.
        tie_rank: (models,): of candidates that are equal in both, the lower one is taken.
    """
    by_rank = np.argsort(tie_rank).astype(np.int64, copy=False)
    found = native_break_points(
        np.ascontiguousarray(quality, np.float64), np.ascontiguousarray(cost, np.float64), by_rank
    )
    return BreakPoints(*found[:4]), *found[4:]


def _grid(moves: BreakPoints, cost: Array) -> Array:
    """Return at most KNOTS positive worths: half at equal steps of mean cost, half at equal counts of moves, both with the extremes.

    Steps of cost alone leave the cheap end bare where many moves cost next to nothing; counts alone leave the dear end bare.
    """
    positive = moves.worth > 0
    if not positive.any():
        return np.zeros(0)
    worth = moves.worth[positive]
    spent = np.cumsum((cost[moves.row, moves.after] - cost[moves.row, moves.before])[positive])
    last, half = len(worth) - 1, KNOTS // 2
    by_cost = np.searchsorted(spent, np.linspace(0.0, spent[-1], half)).clip(max=last)
    by_count = np.linspace(0, last, half).round().astype(np.int64)
    grid: Array = np.unique(worth[np.concatenate([by_cost, by_count])])
    return grid


def isotonic(values: Array, position: Array) -> tuple[Array, Array]:
    """Fit rising values by least squares, pooling adjacent violators; return each block's value and mean position, both rising."""
    # cross-multiplied, so that means are compared without a division
    blocks: list[list[float]] = []  # sum of values, sum of positions, count
    for value, at in zip(values.tolist(), position.tolist(), strict=True):
        blocks.append([value, at, 1.0])
        while len(blocks) > 1 and blocks[-2][0] * blocks[-1][2] >= blocks[-1][0] * blocks[-2][2]:
            total, place, count = blocks.pop()
            blocks[-1][0] += total
            blocks[-1][1] += place
            blocks[-1][2] += count
    table = np.array(blocks).reshape(-1, 3)
    return table[:, 0] / table[:, 2], table[:, 1] / table[:, 2]
