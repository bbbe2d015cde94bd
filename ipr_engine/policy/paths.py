"""Tau's paths of a bundle: one a candidate set and price list, computed when a policy first asks for it, then kept."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine.bundle import BundleSpec, PriceList
from ipr_engine.bundle.spec import NOT_JUDGED
from ipr_engine.policy.cost_weights import Weighing, row_costs
from ipr_engine.policy.tau_path import Array, TauPath, TierRows

MAX_KEPT_PATHS = 64  # at 11 candidates and 256 worths some 30 kB each
NO_PATH = "bundle has no path"


class Paths:
    """The paths of one bundle's candidate sets, the ones used longest ago leaving first; one per engine and bundle.

    Safe to share between threads: where two ask for the same path at once, both compute the same.
    """

    __slots__ = ("_bundle", "_judged", "_kept", "_lock")

    def __init__(self, bundle: BundleSpec) -> None:
        self._bundle = bundle
        self._judged: set[str] | None = None  # candidates that have some outcome in the rows
        self._kept: OrderedDict[tuple[object, ...], TauPath] = OrderedDict()
        self._lock = Lock()

    def lacking(self, names: Sequence[str]) -> str | None:
        """Why there is no path of these candidates; None where there is one."""
        rows = self._bundle.path_rows
        if rows is None:
            return NO_PATH
        bare = rows.without_rows(names)
        return f"{', '.join(bare)} has no path rows" if bare else None

    def remarks(self, names: Sequence[str], escalate_below: float) -> list[str]:
        """What limits the path of these candidates, each in words; it must have one."""
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
        """The path of these candidates, in bundle order, at these prices.

        Args:
            escalate_below: the gap below which a two-tier bundle decides again.
            weighing: of every candidate of the bundle; None: cost is USD.
        """
        if weighing is not None:
            weighing = weighing.at([self._bundle.names.index(name) for name in names])
        key = (*names, *(replace(prices.prices[name], basis="") for name in names), escalate_below, weighing)
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
                return found
        made = self._fit(names, prices, escalate_below, weighing)
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
        from ipr_engine.policy.two_tier_path import fit_two_tiers  # few bundles have two tiers

        return fit_two_tiers(first, again, outcome, tie_rank, escalate_below)
