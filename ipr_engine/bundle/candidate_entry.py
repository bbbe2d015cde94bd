"""This file reads and writes a candidate's entry in bundle.json and its price, and tells the least schema_version that holds them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ipr_engine._files import as_path
from ipr_engine._read_only import read_only
from ipr_engine.bundle.bundle_files import read_regular
from ipr_engine.bundle.checks import performance_problem, price_problem
from ipr_engine.bundle.fields import REWRITE, Field, fail, json_bytes, parse_json, require_distinct, with_floats
from ipr_engine.bundle.performance import UNITS, Performance, performance_json, performance_of
from ipr_engine.bundle.price import BASE, Price, price_json, price_of, says_more
from ipr_engine.bundle.spec import BundleSpec, Candidate, PriceList
from ipr_engine.errors import BundleFormatError, BundleValueError, InvalidInputError
from ipr_engine.tokens.profiles import profile_of
from ipr_engine.tokens.token_profile import TokenProfile

PRICES = "prices.json"
_KEYS = ("name", "family", "provider", "context_window", "token_ratio", "features", "latency_ms")
_STATED = {"tokenizer": 6, "performance": 7}  # written only where there is one, from this schema_version on


def parse_candidates(field: Field, version: int) -> tuple[Candidate, ...]:
    """Return the candidates of a bundle of this schema_version."""
    candidates = tuple(_candidate(item, version) for item in field.list(at_least=1))
    require_distinct([candidate.name for candidate in candidates], field.list())
    return candidates


def parse_performance(field: Field, *, basis: str | None = None) -> Performance:
    """Return a candidate's figures. basis: where they state none; None: they must."""
    keys = field.mapping()
    if basis is None and "basis" not in keys:
        field.object(("basis",))
    # The checks know nothing of files: where the value stands is added here.
    problem = performance_problem(field.value)
    if problem is not None:
        where = f"{field.where}.{problem.key}"
        fail(BundleValueError if problem.is_value else BundleFormatError, where, problem.expected, problem.got)
    if "basis" in keys:
        keys["basis"].text()  # Unicode, too
    # The basis that the figures state themselves goes before the default.
    return performance_of({"basis": basis, **field.value})


def parse_prices(document: Field, names: Sequence[str], *, detailed: bool) -> PriceList:
    """Return the prices of exactly these candidates. detailed: as in `parse_price`."""
    keys = document.object(("currency", "date", "prices"))
    rows = keys["prices"].object(names)
    return PriceList(
        currency=keys["currency"].one_of(("USD",)),
        date=keys["date"].day(),
        prices=read_only({name: parse_price(row, detailed=detailed) for name, row in rows.items()}),
    )


def parse_price(field: Field, *, detailed: bool, basis: str | None = None) -> Price:
    """Return one candidate's price.

    Args:
        detailed: whether it may say more than bundles before schema_version 6 hold.
        basis: where the price states none; None: it must, and fixed_usd too.
    """
    keys = field.mapping()
    if not detailed or basis is None:
        field.object(BASE if not detailed else (*BASE, *(key for key in keys if key not in BASE)))
    problem = price_problem(field.value)
    if problem is not None:
        where = f"{field.where}.{problem.key}"
        fail(BundleValueError if problem.is_value else BundleFormatError, where, problem.expected, problem.got)
    if "basis" in keys:
        keys["basis"].text()  # Unicode, too
    return price_of(field.value, basis or "")


def read_new_prices(path: str | os.PathLike[str], bundle: BundleSpec) -> PriceList:
    """Return the prices of a file of the bundle's form, which may leave out candidates, fixed_usd and basis. The date is the file's.

    Raises:
        BundleError: the file is missing or not of that form, prices a candidate that the bundle does not have, or none.
    """
    file = as_path(path, "path")
    keys = parse_json(read_regular(file, str(file)), str(file)).object(("currency", "date", "prices"))
    given = keys["prices"].mapping()
    if not given:
        keys["prices"].fail("at least one candidate's price")
    for name, field in given.items():
        if name not in bundle.names:
            fail(
                BundleFormatError,
                field.where,
                f"one of {', '.join(bundle.names)}",
                repr(name),
                "name it as the bundle does",
            )
    return PriceList(
        currency=keys["currency"].one_of((bundle.prices.currency,)),
        date=keys["date"].day(),
        prices={
            name: parse_price(field, detailed=True, basis=f"given in {file.name}") for name, field in given.items()
        },
    )


def candidate_json(candidate: Candidate, version: int) -> dict[str, Any]:
    """Return the entry in a bundle of this schema_version, which holds all that the candidate states."""
    entry = with_floats(asdict(candidate), "token_ratio", "latency_ms")
    # These have a form of their own, and are written only where they are stated.
    del entry["tokenizer"], entry["performance"]
    if version < 4:
        del entry["max_output_tokens"]
    if candidate.tokenizer is not None:
        entry["tokenizer"] = candidate.tokenizer.to_json()
    if candidate.performance is not None:
        entry["performance"] = with_floats(performance_json(candidate.performance), *UNITS)
    return entry


def version_of(candidates: Sequence[Candidate]) -> int:
    """Return the least schema_version that holds what these candidates state."""
    needed = [4 for candidate in candidates if candidate.max_output_tokens is not None]
    for key, version in _STATED.items():
        needed += [version for candidate in candidates if getattr(candidate, key) is not None]
    return max(needed, default=1)


def price_version(prices: PriceList) -> int:
    """Return the least schema_version that holds these prices: 6 where one says more than a price of tokens and requests."""
    return 6 if any(says_more(price) for price in prices.prices.values()) else 1


def prices_bytes(prices: PriceList) -> bytes:
    """Return the price file of a bundle."""
    # The bytes do not depend on the order of candidates: `json_bytes` sorts keys.
    rows = {name: price_json(price) for name, price in prices.prices.items()}
    return json_bytes({"currency": prices.currency, "date": prices.date, "prices": rows}, PRICES)


def _candidate(field: Field, version: int) -> Candidate:
    """Return the candidate of one entry."""
    # Unlike the other keys these may be left out, which keeps old bundles' bytes.
    stated = [key for key, first in _STATED.items() if version >= first and field.mapping().get(key) is not None]
    keys = field.object((*_KEYS, *(("max_output_tokens",) if version >= 4 else ()), *stated))
    window, latency, most = keys["context_window"], keys["latency_ms"], keys.get("max_output_tokens")
    return Candidate(
        name=keys["name"].text(),
        family=keys["family"].text(),
        provider=keys["provider"].text(),
        context_window=None if window.value is None else window.integer(at_least=1),
        max_output_tokens=None if most is None or most.value is None else most.integer(at_least=1),
        token_ratio=keys["token_ratio"].number(above=0, at_most=1e6),
        features=keys["features"].names(),
        latency_ms=None if latency.value is None else latency.number(at_least=0),
        tokenizer=_tokenizer(keys["tokenizer"]) if "tokenizer" in keys else None,
        performance=parse_performance(keys["performance"]) if "performance" in keys else None,
    )


def _tokenizer(field: Field) -> TokenProfile:
    """Return the profile of one entry; BundleFormatError, with the profile's own words, where it is none."""
    try:
        return profile_of(field.value, field.where)
    except InvalidInputError as error:
        raise BundleFormatError(f"{error}; {REWRITE}") from None
