"""Tau's paths of a bundle: one a candidate set and price list, computed when a policy first asks for it, then kept."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine.bundle import Bundle, Candidate, Price, PriceList
from ipr_engine.tau_path import Array, TauPath
from ipr_engine.two_tier_path import fit_two_tiers

MAX_KEPT_PATHS = 64  # at 11 candidates and 256 worths some 30 kB each
NOT_JUDGED = 255  # of PathRows.outcome, which counts in 254ths
NO_PATH = "bundle has no path"


def row_costs(
    tokens_out: Array | npt.NDArray[np.float16],
    billed_tokens: npt.NDArray[np.uint32],
    candidates: Sequence[Candidate],
    prices: PriceList,
) -> Array:
    """(rows, models) predicted cost in USD of prompts at a price list: what `op_terms` folds for the op, in float64.

    Args:
        tokens_out: (rows, models), a column per candidate. billed_tokens: (rows,), by the bundle's tokenizer.
    """
    rows = [prices.prices[candidate.name] for candidate in candidates]
    fixed = np.array([price.fixed_usd for price in rows])
    into = np.array([p.input_usd_per_1m * c.token_ratio for p, c in zip(rows, candidates, strict=True)]) / 1e6
    out = np.array([price.output_usd_per_1m for price in rows]) / 1e6
    billed = billed_tokens.astype(np.float64)[:, None]
    cost: Array = into * billed
    cost += fixed
    cost += out * tokens_out.astype(np.float64)
    return cost


class Paths:
    """The paths of one bundle's candidate sets, the ones used longest ago leaving first; one per engine and bundle.

    Safe to share between threads: where two ask for the same path at once, both compute the same.
    """

    __slots__ = ("_bundle", "_finite", "_judged", "_kept", "_lock")

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._finite: npt.NDArray[np.bool_] | None = None  # (rows, models) every prediction is there
        self._judged: npt.NDArray[np.bool_] | None = None  # (models,) some outcome is there
        self._kept: OrderedDict[tuple[object, ...], TauPath] = OrderedDict()
        self._lock = Lock()

    def lacking(self, names: Sequence[str]) -> str | None:
        """Why there is no path of these candidates; None where there is one."""
        rows = self._bundle.path_rows
        if rows is None:
            return NO_PATH
        if self._usable(names).any():
            return None
        bare = [name for name in names if not self._usable([name]).any()]
        return f"{', '.join(bare)} has no path rows" if bare else f"no path row has all of {', '.join(names)}"

    def remarks(self, names: Sequence[str], escalate_below: float) -> list[str]:
        """What limits the path of these candidates, each in words; it must have one."""
        rows, found = self._bundle.path_rows, list[str]()
        assert rows is not None
        if self._judged is None:
            self._judged = (rows.outcome != NOT_JUDGED).any(axis=0)
        guessed = [name for name, m in zip(names, self._columns(names), strict=True) if not self._judged[m]]
        if guessed:
            found.append(f"{', '.join(guessed)} has no outcomes in the path rows: its predictions count instead")
        if escalate_below and rows.again_quality is None:
            found.append(
                "the path rows hold the first tier's predictions alone: what the second decides is not counted"
            )
        return found

    def of(self, names: Sequence[str], prices: PriceList, escalate_below: float) -> TauPath:
        """The path of these candidates, in bundle order, at these prices.

        Args:
            escalate_below: the gap below which a two-tier bundle decides again.
        """
        key = (*names, *(_priced(prices.prices[name]) for name in names), escalate_below)
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
                return found
        made = self._fit(names, prices, escalate_below)
        with self._lock:
            self._kept[key] = made
            while len(self._kept) > MAX_KEPT_PATHS:
                self._kept.popitem(last=False)
        return made

    def _columns(self, names: Sequence[str]) -> list[int]:
        return [self._bundle.names.index(name) for name in names]

    def _usable(self, names: Sequence[str]) -> npt.NDArray[np.bool_]:
        """(rows,) where every prediction of these candidates is there."""
        finite, rows = self._finite, self._bundle.path_rows
        assert rows is not None
        if finite is None:
            tables = (rows.tokens_out, rows.again_quality, rows.again_tokens_out)
            finite = np.array(np.isfinite(rows.quality))
            for table in tables:
                if table is not None:
                    np.logical_and(finite, np.isfinite(table), out=finite)
            self._finite = finite
        usable: npt.NDArray[np.bool_] = np.logical_and.reduce(finite[:, self._columns(names)], axis=1)
        return usable

    def _fit(self, names: Sequence[str], prices: PriceList, escalate_below: float) -> TauPath:
        rows = self._bundle.path_rows
        assert rows is not None
        columns = self._columns(names)
        usable = self._usable(names)
        every = bool(usable.all())

        def chosen(table: npt.NDArray[Any]) -> npt.NDArray[Any]:
            return table[:, columns] if every else table[:, columns][usable]

        candidates = [self._bundle.candidates[m] for m in columns]
        counts = chosen(rows.outcome)
        outcome = counts / 254.0
        outcome[counts == NOT_JUDGED] = np.nan
        billed, tie_rank = rows.billed_tokens[usable], self._bundle.tie_rank[columns]

        def tier(quality: npt.NDArray[np.float16], tokens_out: npt.NDArray[np.float16]) -> tuple[Array, Array]:
            return chosen(quality).astype(np.float64), row_costs(chosen(tokens_out), billed, candidates, prices)

        quality, cost = tier(rows.quality, rows.tokens_out)
        if not escalate_below or rows.again_quality is None or rows.again_tokens_out is None:
            return TauPath.fit(quality, outcome, cost, tie_rank)
        again = tier(rows.again_quality, rows.again_tokens_out)
        if math.isinf(escalate_below):  # the second tier decides every prompt
            return TauPath.fit(again[0], outcome, again[1], tie_rank)
        return fit_two_tiers((quality, cost), again, outcome, tie_rank, escalate_below)


def _priced(price: Price) -> tuple[float, float, float]:
    return price.input_usd_per_1m, price.output_usd_per_1m, price.fixed_usd
