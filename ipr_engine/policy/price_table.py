"""A `PriceTable` holds prices of candidates as arrays: the op's rates, and what requests cost (docs/decide.md, docs/formats.md).

expected_cost([price], input_tokens=[[300_000]], output_tokens=[[800]])      # (requests, candidates) USD
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ipr_engine.bundle.price import Price
from ipr_engine.decide import reference

Array = npt.NDArray[np.float64]


def expected_cost(
    prices: Sequence[Price],
    input_tokens: npt.ArrayLike,
    output_tokens: npt.ArrayLike,
    *,
    cached_tokens: npt.ArrayLike | None = None,
    images: npt.ArrayLike | None = None,
    reasoning_tokens: npt.ArrayLike | None = None,
) -> Array:
    """Return (requests, candidates) USD that requests cost, in float64.

    Args:
        prices: one a candidate.
        input_tokens: (requests, candidates), by each candidate's own count, or (requests, 1).
        output_tokens: the same, reasoning included.
        cached_tokens: of the input, what the candidate's cache holds. images: (requests,).
        reasoning_tokens: of the output, those of reasoning; None: each price's `reasoning_share` of it.
    """
    if reasoning_tokens is not None:
        prices = [replace(price, reasoning_share=None) for price in prices]
    table = PriceTable(prices)
    read = np.asarray(input_tokens, np.float64)
    cost = table.cost(read, np.asarray(output_tokens, np.float64))
    if cached_tokens is not None:
        cost = cost + table.cached_usd(read, np.asarray(cached_tokens, np.float64))
    if images is not None:
        cost = cost + np.asarray(images, np.float64)[:, None] * table.per_image_usd
    if reasoning_tokens is not None:
        cost = cost + table.reasoning_usd(read, np.asarray(reasoning_tokens, np.float64))
    return cost


class HoldsImages(Protocol):
    """A `HoldsImages` is what a request needs, as far as prices read it."""

    @property
    def images(self) -> int: ...


class PriceTable:
    """A `PriceTable` holds rates of candidates, in USD per token of the prompt encoder.

    Attributes:
        out_rate: (models,) or (tiers, models), with each candidate's share of reasoning at the price of that.
        in_rate, read_rate: the same, beside
        tier_above: (tiers - 1, models), None with one tier: more input tokens are charged at the next tier's rates; infinity
            where a candidate has no such tier.
        fixed_usd, per_image_usd, cache_min_tokens, token_ratio: (models,).
    """

    __slots__ = (
        "_by_reasoning",
        "cache_min_tokens",
        "fixed_usd",
        "in_rate",
        "out_rate",
        "per_image_usd",
        "read_rate",
        "tier_above",
        "token_ratio",
    )

    def __init__(self, prices: Sequence[Price], token_ratio: npt.ArrayLike = 1.0) -> None:
        """Turn prices per 1 M tokens into rates.

        token_ratio: a candidate's own tokens per token that is counted; input rates and thresholds become those of the latter.
        """
        models, levels = len(prices), [price.levels for price in prices]
        tiers = max(map(len, levels))
        ratio = np.broadcast_to(np.asarray(token_ratio, np.float64), models)
        usd = np.empty((3, tiers, models))  # input, output, cached input: USD per 1 M own tokens
        above = np.full((tiers, models), np.inf)
        for m, own in enumerate(levels):
            for tier in range(tiers):
                level = own[min(tier, len(own) - 1)]  # a candidate of fewer tiers repeats its last one
                out = prices[m].output_usd(level.output_usd_per_1m)
                usd[:, tier, m] = level.input_usd_per_1m, out, level.cached_read_usd_per_1m or 0.0
                if tier < len(own):
                    above[tier, m] = level.above_tokens
        rates = usd[:, 0] if tiers == 1 else usd
        self.in_rate: Array = rates[0] * ratio / 1e6
        self.out_rate: Array = rates[1] / 1e6
        self.read_rate: Array = rates[2] / 1e6  # of the candidate's own tokens
        # rounded as a bill is, own tokens / token_ratio: so a request of exactly above_tokens is not above
        self.tier_above: Array | None = (
            None if tiers == 1 else (above[1:] / ratio).astype(np.float32).astype(np.float64)
        )
        self.fixed_usd: Array = np.array([price.fixed_usd for price in prices], np.float64)
        self.per_image_usd: Array = np.array([price.per_image_usd for price in prices], np.float64)
        self.cache_min_tokens: Array = np.array([price.cache_min_tokens for price in prices], np.float64)
        self.token_ratio: Array = ratio
        reasoning = [np.nan if price.reasoning_usd_per_1m is None else price.reasoning_usd_per_1m for price in prices]
        self._by_reasoning: Array = np.array(reasoning, np.float64) / 1e6

    def op_terms(self) -> dict[str, Any]:
        """Return the rates as keyword arguments of DecidePolicy, rounded to float32 once."""
        terms: dict[str, Any] = {
            "in_rate": self.in_rate.astype(np.float32),
            "out_rate": self.out_rate.astype(np.float32),
            "fixed_usd": self.fixed_usd.astype(np.float32),
        }
        if self.tier_above is not None:
            terms["tier_above"] = self.tier_above.astype(np.float32)
        return terms

    def weighed(self, usd: float, *, fixed: Array, per_input_token: Array, per_output_token: Array) -> PriceTable:
        """Return the rates of a weighted sum: `usd` times these, and something more per request, own input token and output token.

        fixed, per_input_token, per_output_token: (models,), what is more.
        """
        made = PriceTable.__new__(PriceTable)  # a copy; what it shares is never written
        for name in self.__slots__:
            setattr(made, name, getattr(self, name))
        made.fixed_usd = usd * self.fixed_usd + fixed
        made.in_rate = usd * self.in_rate + per_input_token * self.token_ratio
        made.out_rate = usd * self.out_rate + per_output_token
        return made

    def cost(self, billed_tokens: Array, tokens_out: Array) -> Array:
        """Return (rows, models) USD. billed_tokens: (rows, 1) or (rows, models). tokens_out: (rows, models)."""
        return reference.expected_cost(
            self.in_rate, self.out_rate, self.fixed_usd, billed_tokens, tokens_out, self.tier_above
        )

    def counted(self, billed_tokens: npt.NDArray[np.int64], own_tokens: npt.NDArray[np.float32] | None) -> Array:
        """Return bills as `cost` takes them, (rows, 1) or (rows, models), rounded as the op's are.

        billed_tokens: (rows,), by the bundle's tokenizer. own_tokens: (rows, models), by the candidates' own; then they count.
        """
        if own_tokens is None:
            return billed_tokens.astype(np.float64)[:, None]
        return (own_tokens.astype(np.float64) / self.token_ratio).astype(np.float32).astype(np.float64)

    def out_rates(self, billed_tokens: Array) -> Array:
        """Return (rows, models) USD per output token, each in the tier of its bill; billed_tokens as `cost` takes them."""
        return self._of_tier(self.out_rate, billed_tokens)

    def cached_usd(
        self, billed_tokens: Array, cached_tokens: Array, own_tokens: npt.NDArray[np.float32] | None = None
    ) -> Array:
        """Return (rows, models) USD that reading from a cache adds, mostly below 0.

        Args:
            billed_tokens: as `cost` takes them. cached_tokens: (rows, 1) or (rows, models), by the candidate's own count; no more than
                the whole input counts, and fewer than `cache_min_tokens` count as none.
        """
        shape = len(billed_tokens), len(self.fixed_usd)
        own = np.broadcast_to(billed_tokens * self.token_ratio if own_tokens is None else own_tokens, shape)
        held = np.minimum(np.broadcast_to(cached_tokens, shape), own)  # (rows, models)
        held = np.where(held >= self.cache_min_tokens, held, 0.0)
        into, read = (
            self._of_tier(self.in_rate / self.token_ratio, billed_tokens),
            self._of_tier(self.read_rate, billed_tokens),
        )
        usd: Array = held * (read - into)
        return usd

    def with_cached(
        self,
        extra_usd: npt.NDArray[np.float32] | None,
        billed_tokens: npt.NDArray[np.int64],
        own_tokens: npt.NDArray[np.float32] | None,
        cached_tokens: Array | None,
    ) -> npt.NDArray[np.float32] | None:
        """Return extra_usd, (models,) or (rows, models), less what reading these tokens from a cache saves; as it is where none are.

        billed_tokens, own_tokens: those of `counted`. cached_tokens: those of `cached_usd`.
        """
        if cached_tokens is None:
            return extra_usd
        saved = self.cached_usd(self.counted(billed_tokens, own_tokens), cached_tokens, own_tokens)
        return (saved if extra_usd is None else saved + extra_usd).astype(np.float32)

    def with_images(
        self, extra_usd: npt.NDArray[np.float32] | None, needs: Sequence[HoldsImages | None] | None
    ) -> npt.NDArray[np.float32] | None:
        """Return extra_usd, (models,) or (rows, models), with what the requests' images cost; as it is where that is nothing.

        needs: one a request, None for nothing.
        """
        if needs is None or not self.per_image_usd.any() or not any(one is not None and one.images for one in needs):
            return extra_usd
        images = np.array([0 if one is None else one.images for one in needs], np.float64)
        before = 0.0 if extra_usd is None else extra_usd.astype(np.float64)
        return (before + images[:, None] * self.per_image_usd).astype(np.float32)

    def reasoning_usd(self, billed_tokens: Array, reasoning_tokens: Array) -> Array:
        """Return (rows, models) USD that reasoning costs more than other output, or less, at prices without a share of reasoning."""
        out = self.out_rates(billed_tokens)
        usd: Array = reasoning_tokens * np.where(np.isnan(self._by_reasoning), 0.0, self._by_reasoning - out)
        return usd

    def _of_tier(self, rates: Array, billed_tokens: Array) -> Array:
        """Return (rows, models): each candidate's rate in the tier of its bill."""
        shape = len(billed_tokens), len(self.fixed_usd)
        if self.tier_above is None:
            return np.broadcast_to(rates, shape)
        return reference.of_tier(rates, self.tier_above, np.broadcast_to(billed_tokens, shape))
