"""The form of a policy's terms in a record's line: known names, and values of the kind that each has.

What no recorder writes is refused here, before a message that names a caller's own value could repeat a damaged line's content.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from ipr_engine.audit.record_fields import refuse, require
from ipr_engine.bundle import Performance, Price, PriceTier
from ipr_engine.policy.cost_weights import TERMS
from ipr_engine.policy.policy import EVERY_RULE
from ipr_engine.policy.targets import ASKS, PRESETS

NUMBERS = (*(ask for ask in ASKS if ask != "preset"), "tau", "slack", "worth", "max_latency_ms", "min_support")
FLAGS = ("batch", "cache_write")
OF_BUNDLE = ("family", "requires")  # names that only a bundle knows: record_policy.py tells those that it does not
_PRICE, _TIER, _FIGURES = ({field.name for field in fields(kind)} for kind in (Price, PriceTier, Performance))


def check_terms(document: Any, candidates: Sequence[str]) -> None:
    """candidates: the record's. ValueError, of a field's name and the kind of what came, for what no recorder writes."""
    require(isinstance(document, dict), "terms", document)
    unknown = len(document.keys() - _FORMS.keys())
    if unknown:
        refuse("terms", f"{unknown} that no policy of this release has")
    known = {name.casefold() for name in candidates}
    for name, value in document.items():
        require(_FORMS[name](value, known), f"terms.{name}", value)


def _is_number(value: Any, known: set[str] | None = None) -> bool:
    return type(value) in (int, float)


def _is_flag(value: Any, known: set[str]) -> bool:
    return type(value) is bool


def _is_names(value: Any, known: set[str]) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(name, str) for name in value))


def _are_candidates(value: Any, known: set[str]) -> bool:
    return _is_names(value, known) and {name.casefold() for name in _listed(value)} <= known


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


_FORMS: Mapping[str, Callable[[Any, set[str]], bool]] = {
    **dict.fromkeys(NUMBERS, _is_number),
    **dict.fromkeys(FLAGS, _is_flag),
    **dict.fromkeys(OF_BUNDLE, _is_names),
    **dict.fromkeys(("allowed", "exclude"), _are_candidates),
    "escalate_below": lambda value, known: _is_number(value) or value == "infinity",
    "preset": lambda value, known: isinstance(value, str) and value in PRESETS,
    "rule": lambda value, known: isinstance(value, str) and value in EVERY_RULE,
    "unsupported": lambda value, known: isinstance(value, str) and value.casefold() in {*known, "best", "cheapest"},
    "prices": _is_prices,
    "cost_weights": lambda value, known: _has_numbers(value, set(TERMS)),
    "performance": lambda value, known: _of_candidates(value, known, lambda row: _has_numbers(row, _FIGURES)),
}
