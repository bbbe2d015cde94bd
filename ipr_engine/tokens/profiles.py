"""Profiles of tokenizers are read from files and checked here; some ship with the package."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ipr_engine._C import TEXT_TERMS
from ipr_engine._validate import shown
from ipr_engine.errors import InvalidInputError
from ipr_engine.tokens.token_profile import PARTS, TokenProfile

KEYS = ("name", "source", "coefficients", "per_request")
MOST = 1e6  # tokens of one unit of a term
SHIPPED = Path(__file__).with_name("profiles.json")


def profile_of(document: object, where: str) -> TokenProfile:
    """Return the profile that a JSON object holds.

    Raises:
        InvalidInputError: naming the field.
    """
    if not isinstance(document, dict) or set(document) != set(KEYS):
        raise InvalidInputError(f"{where}: expected an object of {', '.join(KEYS)}, got {shown(document)}")
    for key in ("name", "source"):
        if not isinstance(document[key], str) or not document[key].strip():
            raise InvalidInputError(f"{where}: {key}: expected a text that is not blank, got {shown(document[key])}")
    given = document["coefficients"]
    if not isinstance(given, dict) or not given:
        raise InvalidInputError(f"{where}: coefficients: expected {{term: number}}, got {shown(given)}")
    for term in given:
        if term not in TEXT_TERMS:
            raise InvalidInputError(
                f"{where}: coefficients: unknown term {shown(term)}; known: {', '.join(TEXT_TERMS)}; a newer release may know it"
            )
        _require_coefficient(f"{where}: coefficients", term, given)
    _require_amount(f"{where}: per_request", document["per_request"])
    coefficients = tuple(float(given.get(term, 0.0)) for term in TEXT_TERMS)
    if max(coefficients) <= 0:
        raise InvalidInputError(f"{where}: coefficients: expected one above 0, got zeros alone")
    return TokenProfile(
        name=document["name"],
        source=document["source"],
        coefficients=coefficients,
        per_request=float(document["per_request"]),
    )


def read_profiles(path: str | Path) -> dict[str, TokenProfile]:
    """Read the profiles that `ipr tokens fit` wrote, a JSON list, by name.

    Raises:
        InvalidInputError: the file cannot be read, or holds something else.
    """
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidInputError(f"profiles: expected a JSON file, {path}: {error}") from None
    if not isinstance(document, list) or not document:
        raise InvalidInputError(f"profiles: expected a list of profiles in {path}, got {shown(document)}")
    made = [profile_of(entry, f"{path}[{at}]") for at, entry in enumerate(document)]
    found = {profile.name: profile for profile in made}
    if len(found) < len(made):
        raise InvalidInputError(f"profiles: expected distinct names in {path}")
    return found


@cache
def shipped_profiles() -> Mapping[str, TokenProfile]:
    """Return the profiles that come with the package, by name; docs/tokens.md says how far off each is."""
    return MappingProxyType(read_profiles(SHIPPED))


def shipped_profile(name: object) -> TokenProfile:
    """Return the shipped profile of that name.

    Raises:
        InvalidInputError: there is none.
    """
    known = shipped_profiles()
    if not isinstance(name, str) or name not in known:
        raise InvalidInputError(f"tokenizer: expected one of {', '.join(known)}, or a profile, got {shown(name)}")
    return known[name]


def _require_coefficient(where: str, term: str, given: Mapping[str, Any]) -> None:
    value, whole = given[term], PARTS.get(term)
    below_0 = type(value) in (int, float) and value < 0
    if whole is None or not below_0:
        return _require_amount(f"{where}.{term}", value)
    of_whole = given.get(whole, 0.0)
    _require_amount(f"{where}.{whole}", of_whole)
    if -value > of_whole:
        raise InvalidInputError(
            f"{where}.{term}: expected -{of_whole:g} or more, since that of {whole} is added, got {shown(value)}"
        )


def _require_amount(where: str, value: object) -> None:
    good = type(value) in (int, float) and 0 <= value <= MOST  # type: ignore[operator]
    if not good:
        raise InvalidInputError(f"{where}: expected a number from 0 to {MOST:g}, got {shown(value)}")
