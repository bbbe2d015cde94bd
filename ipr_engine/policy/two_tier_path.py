"""Tau's path where two tiers decide: the second one's choices are no envelope, so they are made at each worth of a grid."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ipr_engine._C import two_tier_choices as native_choices
from ipr_engine.policy.tau_path import Array, TauPath, TierRows, choice_errors, isotonic

KNOTS = 128  # worths of the grid: half of the tiers' own, since every prompt is decided at each


def fit_two_tiers(
    first: TierRows,
    again: TierRows,
    outcome: Array,
    tie_rank: npt.NDArray[np.integer[Any]],
    below: float,
) -> TauPath:
    """Fit the path of a bundle that decides again, by its second tier, where the first one's gap is below `below` > 0.

    Args:
        outcome: (rows, models), NaN where not judged: then the prediction of the tier that decides counts.
    """
    one, two = (TauPath.fit(tier.quality, outcome, tier.cost, tie_rank, usd=tier.usd) for tier in (first, again))
    worth = _thinned(np.union1d(one.worth, two.worth))
    if not len(worth):
        return one
    by_rank = np.argsort(tie_rank).astype(np.int64, copy=False)
    plain = all(tier.cost is tier.usd for tier in (first, again))

    def summed(values: Array, again_values: Array) -> tuple[Array, Array, npt.NDArray[np.int64]]:
        """Of the choices at each worth: sums over the prompts of these values and of the cost, and how often whom."""
        tables = (_contiguous(first, values), _contiguous(again, again_values))
        return native_choices(*tables[0], *tables[1], by_rank, worth, below)

    realised = _realised(first, outcome), _realised(again, outcome)
    reached, spent, count = summed(*realised)
    if not plain:
        spent, _, _ = summed(first.usd, again.usd)
    level, log_worth = isotonic(reached / one.rows, np.log(worth))
    dearest = _end(first, again, below, tie_rank, by_quality=True)
    end = _end(first, again, below, tie_rank, by_quality=False)
    kept = end.of(*realised)
    mean = spent / one.rows
    return replace(
        one,  # its means of single candidates
        dearest_choice_usd=float(dearest.of(first.usd, again.usd).mean()),
        dearest_choice_quality=float(dearest.of(*realised).mean()),
        cheapest_choice_usd=float(end.of(first.usd, again.usd).mean()),
        cheapest_choice_quality=float(kept.mean()),
        choice_errors=choice_errors(realised[0], kept, one.best, one.cheapest),
        cheapest_shares=np.bincount(end.took, minlength=first.quality.shape[1]) / one.rows,
        worth=worth,
        cost_usd=np.maximum.accumulate(mean) if plain else mean,  # who escalates changes with worth, and may cost less
        shares=count / one.rows,
        level=level,
        log_worth=log_worth,
    )


class _End(NamedTuple):
    """Whom both tiers choose on each prompt, each (rows,): the candidate, and whether the second tier chose it."""

    took: npt.NDArray[np.int64]
    second: npt.NDArray[np.bool_]

    def of(self, first: Array, again: Array) -> Array:
        """(rows,) what these tables of the tiers, (rows, models), say of the choices."""
        every = np.arange(len(self.took))
        return np.where(self.second, again[every, self.took], first[every, self.took])


def _end(
    first: TierRows, again: TierRows, below: float, tie_rank: npt.NDArray[np.integer[Any]], *, by_quality: bool
) -> _End:
    """The choices at tau 0 (the highest quality) or at tau 1 (the least cost), of both tiers.

    The first tier's gap is the op's there: to the next quality at tau 0; at tau 1 the choice's own quality, or 0 beside a tie.
    """

    def chosen(quality: Array, cost: Array) -> npt.NDArray[np.int64]:
        ranks = np.broadcast_to(tie_rank, quality.shape)
        keys = (ranks, cost, -quality) if by_quality else (ranks, -quality, cost)
        order: npt.NDArray[np.int64] = np.lexsort(keys, axis=1)[:, 0]
        return order

    quality, cost, _ = first
    rows, every = np.arange(len(quality)), quality.shape[1]
    at = chosen(quality, cost)
    if every == 1:
        gap = np.full(len(rows), np.inf)
    elif by_quality:
        ordered = np.sort(quality, axis=1)
        gap = ordered[:, -1] - ordered[:, -2]
    else:
        tied = (cost == cost[rows, at][:, None]).sum(axis=1) > 1
        gap = np.where(tied, 0.0, quality[rows, at])
    second = gap < below
    return _End(np.where(second, chosen(again.quality, again.cost), at), second)


def _realised(tier: TierRows, outcome: Array) -> Array:
    """(rows, models) what a choice came to; where that is not known, what the tier predicts."""
    return np.where(np.isnan(outcome), tier.quality, outcome)


def _contiguous(tier: TierRows, values: Array) -> tuple[Array, Array, Array]:
    """Quality, cost and what is summed of the choices, C-contiguous."""
    return np.ascontiguousarray(tier.quality), np.ascontiguousarray(tier.cost), np.ascontiguousarray(values)


def _thinned(worth: Array) -> Array:
    """At most KNOTS of these rising worths, the first and the last among them."""
    if len(worth) <= KNOTS:
        return worth
    return worth[np.linspace(0, len(worth) - 1, KNOTS).round().astype(np.int64)]
