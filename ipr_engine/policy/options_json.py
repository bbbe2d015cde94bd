"""A policy's terms, the arguments of `Engine.policy`: kept with it, carried to another bundle, written to a record."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, replace
from types import MappingProxyType
from typing import Any

import numpy as np

from ipr_engine.bundle import Bundle, Performance, Price, PriceList
from ipr_engine.bundle.performance import performance_json
from ipr_engine.bundle.price import price_json
from ipr_engine.prompts import kind_of

Terms = Mapping[str, Any]


def frozen_terms(terms: Terms) -> Terms:
    """A copy that the caller's lists and mappings no longer reach, without the arguments left at None."""
    return MappingProxyType({name: _frozen(value) for name, value in terms.items() if value is not None})


def _frozen(value: Any) -> Any:
    if isinstance(value, (np.integer, np.floating)):
        return value.item()
    if isinstance(value, PriceList):
        return replace(value, prices=_frozen(value.prices))
    if isinstance(value, Price):
        numbers = {field.name: _frozen(getattr(value, field.name)) for field in fields(value) if field.name != "tiers"}
        return Price(**numbers, tiers=tuple(value.tiers))
    if isinstance(value, Mapping):
        return MappingProxyType({name: _frozen(item) for name, item in value.items()})
    if isinstance(value, (set, frozenset)):
        return tuple(sorted(value))
    return tuple(_frozen(item) for item in value) if isinstance(value, (list, tuple)) else value


def terms_on(terms: Terms, bundle: Bundle) -> dict[str, Any]:
    """The terms as they stand on another bundle: an exclusion, a price or figures of a candidate it lacks say nothing there.

    Every other term stays as it is; whether it makes sense on that bundle is for `compile_policy` to say.
    """
    known = {name.casefold() for name in bundle.names}
    kept = dict(terms)
    if "exclude" in kept:
        names = [kept["exclude"]] if isinstance(kept["exclude"], str) else kept["exclude"]
        kept["exclude"] = tuple(name for name in names if name.casefold() in known)
    if "prices" in kept:
        prices = kept["prices"]
        rows = prices.prices if isinstance(prices, PriceList) else prices
        left = {name: price for name, price in rows.items() if name.casefold() in known}
        kept["prices"] = replace(prices, prices=left) if isinstance(prices, PriceList) else left
    if "performance" in kept:
        kept["performance"] = {name: own for name, own in kept["performance"].items() if name.casefold() in known}
    return kept


def terms_to_json(terms: Terms) -> dict[str, Any]:
    """Plain JSON types; `terms_from_json` gives back equal terms, every number exactly."""
    document: dict[str, Any] = {
        name: list(value) if isinstance(value, tuple) else value for name, value in terms.items()
    }
    if document.get("escalate_below") == math.inf:
        document["escalate_below"] = "infinity"  # which JSON has no number for
    for name in ("cost_weights", "performance"):
        if name in document:
            document[name] = {key: _plain_json(value) for key, value in document[name].items()}
    if "prices" in document:
        prices = document["prices"]
        date, rows = (prices.date, prices.prices) if isinstance(prices, PriceList) else (None, prices)
        document["prices"] = {"date": date, "prices": {name: _price_to_json(price) for name, price in rows.items()}}
    return document


def _plain_json(value: Any) -> Any:
    if isinstance(value, Performance):
        return performance_json(value)
    return dict(value) if isinstance(value, Mapping) else value


def _price_to_json(price: Any) -> Any:
    if isinstance(price, Price):
        return price_json(price)
    if not isinstance(price, Mapping):
        return list(price)
    tiers = {"tiers": [dict(tier) for tier in price["tiers"]]} if "tiers" in price else {}
    return {**price, **tiers}


def _is_price(row: object) -> bool:
    """Whether a row of prices has the form that `terms_to_json` writes; its numbers are for `compile_policy` to check."""
    if isinstance(row, dict):
        tiers = row.get("tiers", [])
        return isinstance(tiers, list) and all(isinstance(tier, dict) for tier in tiers)
    return isinstance(row, list)


def terms_from_json(document: Mapping[str, Any]) -> dict[str, Any]:
    """The terms of `terms_to_json`'s document.

    Raises:
        ValueError: prices are no object of "date" and "prices". Everything else is for `compile_policy` to check.
    """
    terms = dict(document)
    if terms.get("escalate_below") == "infinity":
        terms["escalate_below"] = math.inf
    if "prices" in terms:
        prices = terms["prices"]
        whole = isinstance(prices, dict) and prices.keys() == {"date", "prices"} and isinstance(prices["prices"], dict)
        if (
            not whole
            or not isinstance(prices["date"], str | None)
            or not all(map(_is_price, prices["prices"].values()))
        ):
            raise ValueError(f'prices: expected an object of "date" and "prices", got {kind_of(prices)}')
        terms["prices"] = prices["prices"]
        if prices["date"] is not None:
            terms["prices"] = PriceList(date=prices["date"], prices=prices["prices"])
    return terms
