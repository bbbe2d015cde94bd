"""A `CandidatesFile` is the file that says who may answer and at what price (docs/own-bundle.md); `read_candidates` reads it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ipr_engine._validate import shown
from ipr_engine.bundle.checks import (
    MOST_RATIO,
    MOST_WHOLE,
    is_amount,
    is_text,
    performance_problem,
    price_problem,
    require_day,
)
from ipr_engine.bundle.performance import Performance, performance_of
from ipr_engine.bundle.price import Price, price_of
from ipr_engine.bundle.spec import Candidate, PriceList
from ipr_engine.errors import InvalidInputError
from ipr_engine.tokens.profiles import profile_of, shipped_profile
from ipr_engine.tokens.token_profile import TokenProfile

REQUIRED = ("name", "family", "provider", "input_usd_per_1m", "output_usd_per_1m")
OPTIONAL = (
    "source",
    "context_window",
    "max_output_tokens",
    "features",
    "token_ratio",
    "latency_ms",
    "tokenizer",
    "performance",
)
PRICE = tuple(field.name for field in fields(Price))
OF_TOKENIZER = "tokenizer"  # a token_ratio: that of the tokenizer beside it


@dataclass(frozen=True)
class RatiosAsked:
    """`RatiosAsked` are the candidates whose token_ratio the file leaves to be measured.

    Attributes:
        of_records: from recorded input tokens, by which a tokenizer is fitted too; it states none.
        of_tokenizer: as the tokenizer that it names counts, whatever was recorded; it states "tokenizer".
    """

    of_records: frozenset[str] = frozenset()
    of_tokenizer: frozenset[str] = frozenset()


@dataclass(frozen=True)
class CandidatesFile:
    """A `CandidatesFile` holds the content of a candidates' file.

    Attributes:
        candidates, prices: as the bundle holds them; token_ratio 1 where the file gives no number.
        named: candidate -> its name in the outcomes, one for all sources or {source: name}.
        ratios: whose token_ratio is to be measured.
    """

    candidates: list[Candidate]
    prices: PriceList
    named: dict[str, Mapping[str, str] | str]
    ratios: RatiosAsked


def read_candidates(path: Path) -> CandidatesFile:
    """Read the file and check its shape and its values.

    Raises:
        InvalidInputError: names the entry and what is wrong with it.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_distinct)
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidInputError(f"candidates: expected a JSON file, {path}: {error}") from None
    return candidates_of(document, path)


def candidates_of(document: object, path: Path) -> CandidatesFile:
    """Check the shape and the values of a candidates' file that is read already. path: for errors, and where prices come from.

    Raises:
        InvalidInputError: names the entry and what is wrong with it.
    """
    if not isinstance(document, dict) or set(document) != {"date", "candidates"}:
        raise InvalidInputError(f'candidates: expected {{"date": ..., "candidates": [...]}} in {path}')
    require_day(f"candidates: date in {path}", document["date"])
    entries = document["candidates"]
    if not isinstance(entries, list) or not entries:
        raise InvalidInputError(f"candidates: expected a list of at least one candidate in {path}")
    for number, entry in enumerate(entries):
        # What is missing is said before what is unknown: a misspelt name is both.
        missing = [key for key in REQUIRED if not isinstance(entry, dict) or key not in entry]
        unknown = sorted(set(entry) - set(REQUIRED) - set(OPTIONAL) - set(PRICE)) if not missing else []
        if missing or unknown:
            trouble = f"lacks {', '.join(missing)}" if missing else f"has unknown {', '.join(unknown)}"
            raise InvalidInputError(
                f"candidates[{number}]: {trouble}; known: {', '.join((*REQUIRED, *OPTIONAL, *PRICE[2:]))}"
            )
        _check_values(number, entry)
    if len({entry["name"] for entry in entries}) < len(entries):
        raise InvalidInputError(f"candidates: expected distinct names in {path}")
    listed = [
        Candidate(
            name=entry["name"],
            family=entry["family"],
            provider=entry["provider"],
            context_window=entry.get("context_window"),
            max_output_tokens=entry.get("max_output_tokens"),
            token_ratio=1.0 if entry.get("token_ratio") == OF_TOKENIZER else entry.get("token_ratio", 1.0),
            features=tuple(entry.get("features", ())),
            latency_ms=entry.get("latency_ms"),
            tokenizer=_tokenizer(number, entry.get("tokenizer")),
            performance=_performance(number, entry.get("performance"), f"given in {path.name}"),
        )
        for number, entry in enumerate(entries)
    ]
    prices = {
        entry["name"]: price_of({key: entry[key] for key in PRICE if key in entry}, f"given in {path.name}")
        for entry in entries
    }
    named = {entry["name"]: entry.get("source", entry["name"]) for entry in entries}
    ratios = RatiosAsked(
        of_records=frozenset(entry["name"] for entry in entries if "token_ratio" not in entry),
        of_tokenizer=frozenset(entry["name"] for entry in entries if entry.get("token_ratio") == OF_TOKENIZER),
    )
    return CandidatesFile(listed, PriceList(date=document["date"], prices=prices), named, ratios)


def _tokenizer(number: int, given: object) -> TokenProfile | None:
    """Return a shipped profile by name, a profile as `ipr tokens fit` writes it, or None."""
    if given is None:
        return None
    where = f"candidates[{number}].tokenizer"
    if isinstance(given, dict):
        return profile_of(given, where)
    try:
        return shipped_profile(given)
    except InvalidInputError as error:
        raise InvalidInputError(str(error).replace("tokenizer:", f"{where}:", 1)) from None


def _performance(number: int, given: object, basis: str) -> Performance | None:
    if given is None:
        return None
    where = f"candidates[{number}].performance"
    if not isinstance(given, dict):
        raise InvalidInputError(f"{where}: expected an object of figures, or null, got {shown(given)}")
    problem = performance_problem(given)
    if problem is not None:
        raise InvalidInputError(f"{where}.{problem.key}: expected {problem.expected}, got {problem.got}")
    if "basis" in given and not is_text(given["basis"]):
        raise InvalidInputError(f"{where}.basis: expected Unicode text, got {shown(given['basis'])}")
    return performance_of({"basis": basis, **given})


def _check_values(number: int, entry: Mapping[str, object]) -> None:
    """Refuse values out of range before any fit; the bundle judges the same values again when it is written."""
    for key, expected, good in (
        *((key, "a text that is not blank and is Unicode", is_text) for key in ("name", "family", "provider", "basis")),
        *(
            (key, "a number >= 0 and finite", is_amount)
            for key in ("input_usd_per_1m", "output_usd_per_1m", "fixed_usd")
        ),
        (
            "token_ratio",
            f'a number > 0 and <= {MOST_RATIO:g}, or "{OF_TOKENIZER}" beside a tokenizer',
            lambda v: _is_ratio(v) or (v == OF_TOKENIZER and entry.get("tokenizer") is not None),
        ),
        ("latency_ms", "a number >= 0 and finite, or null", lambda v: v is None or is_amount(v)),
        *(
            (key, f"a whole number of tokens from 1 to {MOST_WHOLE}, or null", _is_tokens)
            for key in ("context_window", "max_output_tokens")
        ),
        ("features", 'a list of distinct texts such as ["tools"]', _are_features),
        ("source", "its name in the outcomes, or {source: name}", _is_source),
    ):
        if key in entry and not good(entry[key]):
            raise InvalidInputError(f"candidates[{number}].{key}: expected {expected}, got {shown(entry[key])}")
    problem = price_problem({key: entry[key] for key in PRICE if key in entry})
    if problem is not None:
        raise InvalidInputError(f"candidates[{number}].{problem.key}: expected {problem.expected}, got {problem.got}")


def _is_ratio(value: Any) -> bool:
    return is_amount(value) and 0 < value <= MOST_RATIO


def _is_tokens(value: object) -> bool:
    return value is None or (type(value) is int and 1 <= value <= MOST_WHOLE)


def _are_features(value: object) -> bool:
    return isinstance(value, list) and all(map(is_text, value)) and len(set(value)) == len(value)


def _is_source(value: object) -> bool:
    if isinstance(value, dict):
        return all(is_text(text) for pair in value.items() for text in pair)
    return is_text(value)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object of JSON, whose keys must differ."""
    keys = [key for key, _ in pairs]  # json.loads would keep the last of two in silence
    if len(set(keys)) < len(keys):
        raise ValueError(f"{next(key for key in keys if keys.count(key) > 1)!r} stands twice in one object")
    return dict(pairs)
