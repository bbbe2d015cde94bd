"""A `CostBasis` prices outcomes by a bundle's price list, as the engine prices its predictions (docs/metrics.md, section 1).

A recorded cost_usd was paid at other prices, perhaps for other calls besides the answer; held against costs predicted from the
bundle's price list it would tell the price lists apart, not the routers. So recorded tokens are priced anew. A candidate of
which the source has no output tokens keeps its recorded cost_usd, and the report says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ipr_engine.bundle import Bundle
from ipr_engine.bundle.origin import price_days
from ipr_engine.data import Outcomes
from ipr_engine.errors import InvalidInputError
from ipr_engine.policy.price_table import expected_cost

Array = npt.NDArray[np.float64]


class RealisedCosts(NamedTuple):
    """A `RealisedCosts` holds costs in USD, (rows, models); in `stand_ins` of them the engine's bill stands in for input tokens."""

    cost: Array
    stand_ins: int


@dataclass(frozen=True)
class CostBasis:
    """A `CostBasis` holds the basis on which each evaluated candidate's realised cost is known.

    Attributes:
        bundle: whose prices count.
        names: the candidates in the bundle. called: their names in the source.
        priced: (models,) True where recorded output tokens are priced, False where the recorded cost_usd stands.
    """

    bundle: Bundle
    names: tuple[str, ...]
    called: tuple[str, ...]
    priced: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, bundle: Bundle, outcomes: Outcomes, names: Sequence[str], called: Sequence[str]) -> CostBasis:
        """Settle the basis of each candidate once for the whole source, so that both splits have the same.

        Raises:
            InvalidInputError: a candidate has neither output tokens nor a cost anywhere in the source.
        """
        chosen = outcomes.select(called)
        # By candidate, not by outcome: a mean over both bases would tell price lists apart.
        priced = np.asarray(~np.isnan(chosen.output_tokens).all(axis=0), np.bool_)
        bare = ~priced & np.isnan(chosen.cost_usd).all(axis=0)
        if bare.any():
            lacking = ", ".join(repr(called[m]) for m in np.flatnonzero(bare).tolist())
            raise InvalidInputError(
                f"outcomes: {lacking} has neither output_tokens nor cost_usd in {outcomes.source}: what its answers cost is not known; "
                "record one of the two, or evaluate other candidates with --allow"
            )
        return cls(bundle, tuple(names), tuple(called), priced)

    def complete(self, split: Outcomes) -> Outcomes:
        """Take the candidates' columns of the rows on which each has a quality and a cost; `dropped` counts the others.

        Raises:
            InvalidInputError: no row is complete.
        """
        rows = split.complete(self.called)
        known = ~np.isnan(np.where(self.priced, rows.output_tokens, rows.cost_usd))
        keep = known.all(axis=1)
        if not keep.any():
            least = int(known.mean(axis=0).argmin())
            measure = "output_tokens" if self.priced[least] else "cost_usd"
            raise InvalidInputError(
                f"outcomes: expected some prompt of {split.source} on which all {len(self.called)} candidates have a quality and "
                f"{measure}, found none; {self.called[least]!r} has {measure} on {known[:, least].mean():.0%} of the prompts with "
                "all qualities: record it there, or evaluate other candidates with --allow"
            )
        return replace(rows.take(keep), dropped=rows.dropped + int((~keep).sum()))

    def realised(
        self, rows: Outcomes, billed_tokens: npt.NDArray[np.int64], own_tokens: npt.NDArray[np.float32] | None = None
    ) -> RealisedCosts:
        """Price the rows of `complete`.

        Args:
            billed_tokens, own_tokens: of the prompts, as the engine bills them (`Decisions`): (rows,), and (rows, models of the
                bundle) by each candidate's own count or None.
        """
        columns = [self.bundle.names.index(name) for name in self.names]
        prices = [self.bundle.prices.prices[name] for name in self.names]
        ratio = np.array([self.bundle.candidates[m].token_ratio for m in columns])
        # (rows, models): each candidate's own count where it is known, else the encoder's times the candidate's ratio.
        billed = billed_tokens[:, None] * ratio if own_tokens is None else own_tokens[:, columns].astype(np.float64)
        # Recorded input tokens first; else what the engine bills, which its predicted costs are made of too.
        unknown = np.isnan(rows.input_tokens)
        read = np.where(unknown, billed, rows.input_tokens)
        cost = expected_cost(prices, read, rows.output_tokens)
        return RealisedCosts(np.where(self.priced, cost, rows.cost_usd), int((unknown & self.priced).sum()))

    def report(self, stand_ins: int, outcomes: int) -> str:
        """Say what costs are made of, and what is missing. `outcomes` counts the priced ones, `stand_ins` among them."""
        parts = []
        if self.priced.any():
            parts.append(f"recorded output tokens at the bundle's prices of {price_days(self.bundle)}")
            parts.append(
                "recorded input tokens likewise"
                if not stand_ins
                else f"input tokens are missing on {stand_ins} of {outcomes} outcomes, where what the engine bills the candidate "
                "for the prompt stands in"
            )
        kept = [name for name, priced in zip(self.names, self.priced, strict=True) if not priced]
        if kept:
            parts.append(
                f"of {', '.join(kept)} the source has no output tokens: the recorded cost_usd stands, at whatever prices it was paid"
            )
        return "; ".join(parts)
