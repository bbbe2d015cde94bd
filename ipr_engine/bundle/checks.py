"""This file checks what a caller gives for a bundle, by the rules of `Bundle.load`, before any work is put into it.

Prices and performance are judged here alone, in their JSON form. A check returns the first `Problem`; whoever reads the form raises
it as an error of its own.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import fields
from datetime import date
from typing import Any, NamedTuple

from ipr_engine._validate import MOST, lone_surrogate, shown
from ipr_engine.bundle.performance import IN_SECONDS, MOST_SECONDS, UNITS, Performance
from ipr_engine.bundle.price import AMOUNTS, BASE, CACHED, REQUIRED, Price, PriceTier
from ipr_engine.errors import InvalidInputError

MOST_RATIO = 1e6
MOST_WHOLE = 2**63 - 1
# Python 3.11 also parses 20261124 and 2026-W48-2 as dates.
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
MOST_TIERS = 6  # above the base price; with the edge of `cache_min_tokens` what kernels/packing.py has room for


class Problem(NamedTuple):
    """A `Problem` says what is wrong with a price or a figure: `key` of its JSON form, what was expected there, and what came.

    is_value: whether it is a number outside its range.
    """

    key: str
    expected: str
    got: str
    is_value: bool = False


def price_problem(row: Mapping[str, Any]) -> Problem | None:
    """Return the first thing wrong with a price in its JSON form; None where nothing is.

    The keys of `REQUIRED` must be there; any other may be left out.
    """
    known = [field.name for field in fields(Price)]
    for key in row:
        if key not in known:
            return Problem(str(key), f"no key but {', '.join(known)}", f"unknown key {key!r}")
    for key in REQUIRED:
        if key not in row:
            return Problem(key, "this key", "nothing (it is missing)")
    # Order matters: the first problem found is the one that is told.
    for key in (*BASE[:3], *AMOUNTS):
        # These are numbers in every price; the others may be null, which is as if they were left out.
        optional = key not in (*BASE[:3], "per_image_usd")
        if key in row and not (row[key] is None and optional):
            found = amount_problem(key, row[key])
            if found is not None:
                return found
    basis = row.get("basis", "-")
    if not isinstance(basis, str) or not basis.strip():
        return Problem("basis", "a text that is not empty", shown(basis))
    return _tiers_problem(row) or _cache_problem(row) or _batch_problem(row) or _reasoning_problem(row)


def amount_problem(key: str, value: object, *, above: float | None = None) -> Problem | None:
    """Return what is wrong with a number that must be finite, and >= 0 or above a limit; None for nothing."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return Problem(key, "a number", shown(value))
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        return Problem(key, "a finite number", shown(value), True)
    if above is not None and not number > above:
        return Problem(key, f"a number > {above:g}", shown(value), True)
    return None if number >= 0 else Problem(key, "a number >= 0", shown(value), True)


def _count(key: str, value: object, least: int) -> Problem | None:
    """Return what is wrong with a whole number of tokens; None for nothing."""
    if type(value) is not int:
        return Problem(key, "an integer", shown(value))
    return (
        None if least <= value < 2**53 else Problem(key, f"an integer from {least} to {2**53 - 1}", shown(value), True)
    )


def _tiers_problem(row: Mapping[str, Any]) -> Problem | None:
    """Return what is wrong with the tiers: too many, unsorted, or prices of cached input that the base lacks."""
    tiers = row.get("tiers", ())
    if not isinstance(tiers, (list, tuple)):
        return Problem("tiers", "a list of tiers by rising above_tokens", shown(tiers))
    if len(tiers) > MOST_TIERS:
        return Problem("tiers", f"at most {MOST_TIERS} tiers", str(len(tiers)))
    known, before = [field.name for field in fields(PriceTier)], 0
    for number, tier in enumerate(tiers):
        here = f"tiers[{number}]"
        # above_tokens and both prices must be there; prices of cached input may be.
        if not isinstance(tier, Mapping) or not set(known[:3]) <= set(tier) <= set(known):
            got = ", ".join(sorted(map(str, tier))) if isinstance(tier, Mapping) else tier
            return Problem(here, f"{', '.join(known[:3])} and at most {' and '.join(known[3:])}", shown(got))
        found = _count(f"{here}.above_tokens", tier["above_tokens"], 1)
        for key in known[1:]:
            value = tier.get(key)
            if found is None and not (value is None and key in CACHED):
                found = amount_problem(f"{here}.{key}", value)
        if found is not None:
            return found
        if tier["above_tokens"] <= before:
            reported = (
                "the tier before ends there too, so they overlap" if tier["above_tokens"] == before else "sort them"
            )
            expected = f"more than {before}, the tier before it ({reported})"
            return Problem(f"{here}.above_tokens", expected, str(tier["above_tokens"]), True)
        # Without a base price of cached input its share, which other tiers keep, would have no meaning.
        for key in CACHED:
            if tier.get(key) is not None and row.get(key) is None:
                return Problem(f"{here}.{key}", f"none, since the price has no {key} below the tier", shown(tier[key]))
        before = tier["above_tokens"]
    return None


def _cache_problem(row: Mapping[str, Any]) -> Problem | None:
    """Return what is wrong with the cache's minimum and lifetime, or with what is stated without a price of reading."""
    least, ttl = row.get("cache_min_tokens", 0), row.get("cache_ttl_s")
    found = _count("cache_min_tokens", least, 0)
    if found is None and ttl is not None:
        found = amount_problem("cache_ttl_s", ttl, above=0)
    if found is not None:
        return found
    for key, stated in (("cached_write_usd_per_1m", row.get("cached_write_usd_per_1m") is not None),
                        ("cache_min_tokens", least > 0), ("cache_ttl_s", ttl is not None)):  # fmt: skip
        if stated and row.get("cached_read_usd_per_1m") is None:
            return Problem("cached_read_usd_per_1m", f"a price of reading beside {key}", "none")
    return None


def _batch_problem(row: Mapping[str, Any]) -> Problem | None:
    """Return what is wrong with the prices of a batch: a factor beside them, or one of the two alone."""
    names = ("batch_input_usd_per_1m", "batch_output_usd_per_1m")
    given = [name for name in names if row.get(name) is not None]
    if given and row.get("batch_factor") is not None:
        return Problem("batch_factor", f"either a factor or {' and '.join(names)}", "both")
    if len(given) == 1:
        missing = next(name for name in names if name not in given)
        return Problem(missing, f"a price beside {given[0]}", "none")
    for name in given:
        plain = name.removeprefix("batch_")
        # `Price.in_batch` scales by the share of the plain price, and no price is a share of 0.
        if row[name] > 0 and row[plain] == 0:
            return Problem(name, f"0, since {plain} is 0", shown(row[name]), True)
    return None


def _reasoning_problem(row: Mapping[str, Any]) -> Problem | None:
    """Return what is wrong with the share of reasoning, which needs a price of reasoning beside it."""
    key = "reasoning_share"
    share = row.get(key)
    if share is None:
        return None
    found = amount_problem(key, share)
    if found is not None:
        return found
    if share > 1:
        return Problem(key, "a number in [0, 1]", shown(share), True)
    if row.get("reasoning_usd_per_1m") is None:
        return Problem("reasoning_usd_per_1m", f"a price of reasoning beside {key}", "none")
    return None


def performance_problem(row: Mapping[str, Any]) -> Problem | None:
    """Return the first thing wrong with figures in their JSON form; None where nothing is."""
    known = [field.name for field in fields(Performance)]
    for key in row:
        if key not in known:
            reported = ", ".join(f"{name} ({unit})" for name, unit in UNITS.items())
            advice = f"; times are {IN_SECONDS}" if str(key).casefold().endswith("_ms") else ""
            return Problem(str(key), f"one of {reported}, or basis", f"unknown key {key!r}{advice}")
    for key in UNITS:
        if row.get(key) is not None:
            found = amount_problem(key, row[key])
            if found is None and row[key] > MOST:
                found = Problem(key, f"a number up to {MOST:g}", shown(row[key]), True)
            # Most likely milliseconds: told with what to do about it.
            if found is None and row[key] > MOST_SECONDS.get(key, MOST):
                most = f"a number of {UNITS[key]}, at most {MOST_SECONDS[key]:g}"
                found = Problem(key, most, f"{shown(row[key])}; it is {IN_SECONDS}", True)
            if found is not None:
                return found
    if all(row.get(key) is None for key in UNITS):
        return Problem(next(iter(UNITS)), f"at least one of {', '.join(UNITS)}", "none")
    basis = row.get("basis", "-")
    if not isinstance(basis, str) or not basis.strip():
        return Problem("basis", "a text that is not empty", shown(basis))
    return None


def is_text(value: object) -> bool:
    """Return whether a value is a text that is not blank and that UTF-8 can hold."""
    return isinstance(value, str) and bool(value.strip()) and lone_surrogate(value) is None


def is_amount(value: Any) -> bool:
    """Return whether a value is a finite number >= 0 that float64 can hold."""
    if type(value) not in (int, float):
        return False
    try:
        return 0 <= float(value) < float("inf")
    except OverflowError:
        return False


def is_day(value: object) -> bool:
    """Return whether a value is a date as YYYY-MM-DD that the calendar has."""
    if not isinstance(value, str) or not _DATE.fullmatch(value):
        return False
    try:
        date.fromisoformat(value)
    except ValueError:
        return False
    return True


def require_text(name: str, value: object) -> None:
    """Raise InvalidInputError, naming the argument, for what is no text of a bundle."""
    if not is_text(value):
        raise InvalidInputError(f"{name}: expected a text that is not blank and is Unicode, got {shown(value)}")


def require_day(name: str, value: object) -> None:
    """Raise InvalidInputError, naming the argument, for what is no date of a bundle."""
    if not is_day(value):
        raise InvalidInputError(f"{name}: expected a date YYYY-MM-DD, got {shown(value)}")
