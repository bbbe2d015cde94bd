"""Tau's path where two tiers decide: the second one's choices are no envelope, so they are made at each worth of a grid."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine import _C
from ipr_engine.tau_path import Array, TauPath, _isotonic

KNOTS = 128  # worths of the grid: half of the tiers' own, since every prompt is decided at each


def fit_two_tiers(
    first: tuple[Array, Array],
    again: tuple[Array, Array],
    outcome: Array,
    tie_rank: npt.NDArray[np.integer[Any]],
    below: float,
) -> TauPath:
    """Fit the path of a bundle that decides again, by its second tier, where the first one's gap is below `below` > 0.

    Args:
        first, again: quality and cost_usd (rows, models) by each tier. outcome: (rows, models), NaN where not judged: then the
            prediction of the tier that decides counts.
    """
    one, two = (TauPath.fit(quality, outcome, cost, tie_rank) for quality, cost in (first, again))
    worth = _thinned(np.union1d(one.worth, two.worth))
    if not len(worth):
        return one
    quality, cost, realised = _tier(*first, outcome)
    again_quality, again_cost, again_realised = _tier(*again, outcome)
    by_rank = np.argsort(tie_rank).astype(np.int64, copy=False)
    reached, spent, count = _C.two_tier_choices(
        quality, cost, realised, again_quality, again_cost, again_realised, by_rank, worth, below
    )
    level, log_worth = _isotonic(reached / one.rows, np.log(worth))
    return replace(
        one,  # its means of single candidates, and its ends: at tau 0 and 1 there is no worth, and no grid
        worth=worth,
        cost_usd=np.maximum.accumulate(spent / one.rows),  # who escalates changes with worth, and may cost less
        shares=count / one.rows,
        level=level,
        log_worth=log_worth,
    )


def _tier(quality: Array, cost: Array, outcome: Array) -> tuple[Array, Array, Array]:
    """Quality, cost and what a choice came to, C-contiguous."""
    realised = np.where(np.isnan(outcome), quality, outcome)
    return np.ascontiguousarray(quality), np.ascontiguousarray(cost), np.ascontiguousarray(realised)


def _thinned(worth: Array) -> Array:
    """At most KNOTS of these rising worths, the first and the last among them."""
    if len(worth) <= KNOTS:
        return worth
    return worth[np.linspace(0, len(worth) - 1, KNOTS).round().astype(np.int64)]
