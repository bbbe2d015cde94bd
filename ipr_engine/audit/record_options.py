"""The form of a policy's terms in a record's line: known names, and values of the kind that each has.

What no recorder writes is refused here, before a message that names a caller's own value could repeat a damaged line's content.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from ipr_engine.audit.record_fields import refuse, require
from ipr_engine.bundle import Performance, Price, PriceTier
from ipr_engine.policy.policy_spec import ABOUT

OF_BUNDLE = tuple(
    name for name, option in ABOUT.items() if option.form == "names"
)  # names that only a bundle knows: record_policy.py tells those that it does not
_PRICE, _TIER, _FIGURES = ({field.name for field in fields(kind)} for kind in (Price, PriceTier, Performance))


def check_options(document: Any, candidates: Sequence[str]) -> None:
    """candidates: the record's. ValueError, of a field's name and the kind of what came, for what no recorder writes."""
    require(isinstance(document, dict), "terms", document)
    unknown = len(document.keys() - ABOUT.keys())
    if unknown:
        refuse("terms", f"{unknown} that no policy of this release has")
    known = {name.casefold() for name in candidates}
    for name, value in document.items():
        require(OF_FORM[ABOUT[name].form](value, known, ABOUT[name].choices), f"terms.{name}", value)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def _is_names(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(name, str) for name in value))


def _are_candidates(value: Any, known: set[str]) -> bool:
    return _is_names(value) and {name.casefold() for name in _listed(value)} <= known


def _listed(value: str | list[str]) -> list[str]:
    return value if isinstance(value, list) else [value] if value else []


def _of_candidates(rows: Any, known: set[str], is_row: Callable[[Any], bool]) -> bool:
    return isinstance(rows, dict) and {name.casefold() for name in rows} <= known and all(map(is_row, rows.values()))


def _is_prices(value: Any, known: set[str]) -> bool:
    return isinstance(value, dict) and _of_candidates(value.get("prices"), known, _is_price)


def _is_price(row: Any) -> bool:
    if isinstance(row, list):
        return all(map(_is_number, row))
    if not isinstance(row, dict):
        return False
    plain = {key: value for key, value in row.items() if key != "tiers"}
    tiers = row.get("tiers", [])
    return _has_numbers(plain, _PRICE) and isinstance(tiers, list) and all(_has_numbers(one, _TIER) for one in tiers)


def _has_numbers(row: Any, keys: set[str]) -> bool:
    """Whether this is an object with some of these keys, each a number or null, but for a `basis`, a text that no error repeats."""
    if not isinstance(row, dict) or not row.keys() <= keys or not isinstance(row.get("basis", ""), str):
        return False
    return all(value is None or _is_number(value) for key, value in row.items() if key != "basis")


OF_FORM: Mapping[str | None, Callable[[Any, set[str], tuple[str, ...]], bool]] = {
    "number": lambda value, known, choices: _is_number(value),
    "number or infinity": lambda value, known, choices: _is_number(value) or value == "infinity",
    "flag": lambda value, known, choices: type(value) is bool,
    "text": lambda value, known, choices: isinstance(value, str) and value in choices,
    "names": lambda value, known, choices: _is_names(value),
    "candidates": lambda value, known, choices: _are_candidates(value, known),
    "candidate": lambda value, known, choices: isinstance(value, str) and value.casefold() in {*known, *choices},
    "prices": lambda value, known, choices: _is_prices(value, known),
    "weights": lambda value, known, choices: _has_numbers(value, set(choices)),
    "figures": lambda value, known, choices: _of_candidates(value, known, lambda row: _has_numbers(row, _FIGURES)),
}
