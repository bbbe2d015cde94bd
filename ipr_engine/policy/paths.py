"""A bundle has one path of tau per candidate set and price list; it is fitted when a policy first asks for it, then kept.

Where two tiers decide, the second one's choices are no envelope, so `fit_two_tiers` makes them at each worth of a grid.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ipr_engine._C import two_tier_choices as native_choices
from ipr_engine.bundle import BundleSpec, PriceList
from ipr_engine.bundle.spec import NOT_JUDGED
from ipr_engine.policy.cost_weights import Weighing, row_costs
from ipr_engine.policy.tau_path import Array, TauPath, TierRows, choice_errors, isotonic

MAX_KEPT_PATHS = 64  # at 11 candidates and 256 worths some 30 kB each
NO_PATH = "bundle has no path"
TWO_TIER_KNOTS = 128  # worths of a two-tier path: half of the tiers' own, since every prompt is decided at each


class Paths:
    """A `Paths` fits and keeps the paths of one bundle's candidate sets; those used longest ago leave first.

    Safe to share between threads: where two ask for the same path at once, both compute the same.
    """

    __slots__ = ("_bundle", "_judged", "_kept", "_lock")

    def __init__(self, bundle: BundleSpec) -> None:
        self._bundle = bundle
        self._judged: set[str] | None = None  # candidates that have some outcome in the rows
        self._kept: OrderedDict[tuple[object, ...], TauPath] = OrderedDict()
        self._lock = Lock()

    def lacking(self, names: Sequence[str]) -> str | None:
        """Return why there is no path of these candidates; None where there is one."""
        rows = self._bundle.path_rows
        if rows is None:
            return NO_PATH
        bare = rows.without_rows(names)
        return f"{', '.join(bare)} has no path rows" if bare else None

    def remarks(self, names: Sequence[str], escalate_below: float) -> list[str]:
        """Return what limits the path of these candidates, each in words; there must be one."""
        rows, found = self._bundle.path_rows, list[str]()
        assert rows is not None
        if self._judged is None:
            judged = (rows.outcome != NOT_JUDGED).any(axis=0)
            self._judged = {name for name, some in zip(rows.candidates, judged.tolist(), strict=True) if some}
        guessed = [name for name in names if name not in self._judged]
        if guessed:
            found.append(f"{', '.join(guessed)} has no outcomes in the path rows: its predictions count instead")
        if escalate_below and rows.again_quality is None:
            found.append(
                "the path rows hold the first tier's predictions alone: what the second decides is not counted"
            )
        return found

    def of(
        self, names: Sequence[str], prices: PriceList, escalate_below: float, weighing: Weighing | None = None
    ) -> TauPath:
        """Return the path of these candidates, in bundle order, at these prices.

        Args:
            escalate_below: the gap below which a two-tier bundle decides again.
            weighing: of every candidate of the bundle; None: cost is USD.
        """
        if weighing is not None:
            weighing = weighing.at([self._bundle.names.index(name) for name in names])
        # where a price comes from (basis) does not change the path
        key = (*names, *(replace(prices.prices[name], basis="") for name in names), escalate_below, weighing)
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
                return found
        made = self._fit(
            names, prices, escalate_below, weighing
        )  # outside of the lock: calls for other paths need not wait
        with self._lock:
            self._kept[key] = made
            while len(self._kept) > MAX_KEPT_PATHS:
                self._kept.popitem(last=False)
        return made

    def _fit(
        self, names: Sequence[str], prices: PriceList, escalate_below: float, weighing: Weighing | None
    ) -> TauPath:
        bundle = self._bundle
        assert bundle.path_rows is not None
        rows = bundle.path_rows.of(names)
        at = [bundle.names.index(name) for name in names]
        candidates = [bundle.candidates[m] for m in at]
        outcome, tie_rank = rows.realised(), bundle.tie_rank[at]

        def costs(tokens_out: npt.NDArray[np.floating[Any]], weighing: Weighing | None) -> Array:
            return row_costs(tokens_out, rows.billed_tokens, candidates, prices, weighing, rows.tokens_in)

        def tier(quality: npt.NDArray[np.float16], tokens_out: npt.NDArray[np.floating[Any]]) -> TierRows:
            usd = costs(tokens_out, None)
            cost = usd if weighing is None else costs(tokens_out, weighing)
            return TierRows(quality.astype(np.float64), cost, usd)

        first = tier(rows.quality, rows.tokens_out)
        if not escalate_below or rows.again_quality is None or rows.again_tokens_out is None:
            return TauPath.fit(first.quality, outcome, first.cost, tie_rank, usd=first.usd)
        again = tier(rows.again_quality, rows.again_tokens_out)
        if math.isinf(escalate_below):  # the second tier decides every prompt
            return TauPath.fit(again.quality, outcome, again.cost, tie_rank, usd=again.usd)
        return fit_two_tiers(first, again, outcome, tie_rank, escalate_below)


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
    worth = _thinned(np.union1d(one.worth, two.worth))  # (knots,) rising
    if not len(worth):
        return one
    by_rank = np.argsort(tie_rank).astype(np.int64, copy=False)
    plain = all(tier.cost is tier.usd for tier in (first, again))

    def summed(values: Array, again_values: Array) -> tuple[Array, Array, npt.NDArray[np.int64]]:
        """Return, at each worth, sums over the prompts of the choices' values and costs, and how often each candidate is chosen."""
        tables = (_contiguous(first, values), _contiguous(again, again_values))
        return native_choices(*tables[0], *tables[1], by_rank, worth, below)

    realised = _realised(first, outcome), _realised(again, outcome)
    reached, spent, count = summed(*realised)  # (knots,), (knots,), (knots, models)
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
    """An `_End` holds both tiers' choices at one end of the path, each (rows,): the candidate, and whether the second tier chose it."""

    took: npt.NDArray[np.int64]
    second: npt.NDArray[np.bool_]

    def of(self, first: Array, again: Array) -> Array:
        """Return (rows,) values of the choices, from the tiers' tables, (rows, models)."""
        every = np.arange(len(self.took))
        return np.where(self.second, again[every, self.took], first[every, self.took])


def _end(
    first: TierRows, again: TierRows, below: float, tie_rank: npt.NDArray[np.integer[Any]], *, by_quality: bool
) -> _End:
    """Return the choices of both tiers at tau 0 (the highest quality) or at tau 1 (the least cost).

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
        ordered = np.sort(quality, axis=1)  # (rows, models)
        gap = ordered[:, -1] - ordered[:, -2]
    else:
        tied = (cost == cost[rows, at][:, None]).sum(axis=1) > 1
        gap = np.where(tied, 0.0, quality[rows, at])
    second = gap < below
    return _End(np.where(second, chosen(again.quality, again.cost), at), second)


def _realised(tier: TierRows, outcome: Array) -> Array:
    """Return (rows, models) outcomes; the tier's predictions stand for those that are not known."""
    return np.where(np.isnan(outcome), tier.quality, outcome)


def _contiguous(tier: TierRows, values: Array) -> tuple[Array, Array, Array]:
    """Return quality, cost and the values to be summed, C-contiguous, as the compiled function takes them."""
    return np.ascontiguousarray(tier.quality), np.ascontiguousarray(tier.cost), np.ascontiguousarray(values)


def _thinned(worth: Array) -> Array:
    """Return at most TWO_TIER_KNOTS of these rising worths, the first and the last among them."""
    if len(worth) <= TWO_TIER_KNOTS:
        return worth
    return worth[np.linspace(0, len(worth) - 1, TWO_TIER_KNOTS).round().astype(np.int64)]
