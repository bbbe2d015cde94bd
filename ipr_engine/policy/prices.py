"""A policy runs at the bundle's price list, with the prices that a caller gives in place of some."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ipr_engine._read_only import read_only
from ipr_engine._validate import list_of_names, matched_once, nonnegative, shown
from ipr_engine.bundle import Candidate, Price, PriceList, PriceTier
from ipr_engine.bundle.checks import price_problem
from ipr_engine.bundle.price import BASE, REQUIRED, price_json, price_of
from ipr_engine.errors import InvalidInputError
from ipr_engine.policy.price_table import PriceTable

GIVEN = "given by the caller"


def price_table(candidates: Sequence[Candidate], prices: PriceList) -> PriceTable:
    """Return the prices of candidates by tokens of the prompt encoder."""
    ratio = [candidate.token_ratio for candidate in candidates]
    return PriceTable([prices.prices[candidate.name] for candidate in candidates], ratio)


def merge_prices(base: PriceList, prices: PriceList | Mapping[str, object]) -> PriceList:
    """Return a bundle's price list with some candidates' prices replaced.

    Args:
        prices: a PriceList, or name -> Price, or name -> (input, output) in USD per 1 M tokens.
    """
    if not isinstance(prices, (PriceList, Mapping)):
        raise InvalidInputError(
            f"prices: expected a mapping of candidate name to (input, output) USD per 1 M tokens, got {type(prices).__name__}"
        )
    if isinstance(prices, PriceList) and prices.currency != "USD":
        raise InvalidInputError(f"prices: expected a list in USD, got {prices.currency!r}; convert it first")
    given = prices.prices if isinstance(prices, PriceList) else prices
    names = matched_once("prices", list_of_names("prices", list(given)), base.prices)
    merged = dict(base.prices)
    for name, value in given.items():
        merged[names[name]] = _price(name, value)
    whole = isinstance(prices, PriceList) and len(given) == len(base.prices)
    # a list that replaces every price is dated as it is; a mixture says so
    date = prices.date if isinstance(prices, PriceList) and whole else f"{base.date}, {len(given)} replaced"
    return PriceList(currency="USD", date=date, prices=read_only(merged))


def effective_prices(prices: PriceList, batch: bool, cache_write: bool) -> PriceList:
    """Return what requests of this kind cost: those of a batch, and those whose input is written to the provider's cache."""
    kinds = [(batch, Price.in_batch, "batch"), (cache_write, Price.writing_cache, "written to the cache")]
    for asked, priced, stated in kinds:
        if asked:
            rows = {name: priced(price) for name, price in prices.prices.items()}
            prices = PriceList(currency="USD", date=f"{prices.date}, {stated}", prices=read_only(rows))
    return prices


def _price(name: str, value: object) -> Price:
    """Return a price of `prices=`, checked; whoever gives two numbers means input and output."""
    if (
        isinstance(value, Price)
        and isinstance(value.tiers, tuple)
        and all(isinstance(tier, PriceTier) for tier in value.tiers)
    ):
        row: dict[str, Any] = price_json(value)
    elif isinstance(value, (tuple, list)) and len(value) == 2:
        row = dict(zip(REQUIRED, value, strict=True))
    elif isinstance(value, Mapping) and set(REQUIRED) <= set(value):
        row = dict(value)
    else:
        raise InvalidInputError(
            f"prices[{name!r}]: expected (input, output) in USD per 1 M tokens, the same as in prices.json, or a Price, got {shown(value)}"
        )
    for key in BASE[:3]:  # per input token, per output token, per request
        if key in row:
            row[key] = nonnegative(f"prices[{name!r}].{key}", row[key])
    basis = str(row.pop("basis", GIVEN))  # a caller may leave it blank
    problem = price_problem(row)
    if problem is not None:
        raise InvalidInputError(f"prices[{name!r}].{problem.key}: expected {problem.expected}, got {problem.got}")
    return price_of(row, basis)
