"""The candidates' file of `ipr train`: who may answer, at what price, and under which names the outcomes know them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ipr_engine.bundle import Candidate, Price, PriceList
from ipr_engine.errors import InvalidInputError

REQUIRED = ("name", "family", "provider", "input_usd_per_1m", "output_usd_per_1m")
OPTIONAL = (
    "source",
    "context_window",
    "max_output_tokens",
    "features",
    "token_ratio",
    "latency_ms",
    "fixed_usd",
    "basis",
)


@dataclass(frozen=True)
class CandidatesFile:
    """What the file says.

    Attributes:
        candidates, prices: as the bundle holds them; token_ratio 1 where the file gives none.
        named: candidate -> its name in the outcomes, one for all sources or {source: name}.
        without_ratio: the candidates whose token_ratio the file leaves to be measured.
    """

    candidates: list[Candidate]
    prices: PriceList
    named: dict[str, Mapping[str, str] | str]
    without_ratio: frozenset[str]


def read_candidates(path: Path) -> CandidatesFile:
    """Read and check the file's shape; write_bundle judges the values.

    Raises:
        InvalidInputError: names the entry and what is wrong with it.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidInputError(f"candidates: expected a JSON file, {path}: {error}") from None
    if not isinstance(document, dict) or set(document) != {"date", "candidates"}:
        raise InvalidInputError(f'candidates: expected {{"date": ..., "candidates": [...]}} in {path}')
    entries = document["candidates"]
    if not isinstance(entries, list) or not entries:
        raise InvalidInputError(f"candidates: expected a list of at least one candidate in {path}")
    for number, entry in enumerate(entries):
        missing = [key for key in REQUIRED if not isinstance(entry, dict) or key not in entry]
        unknown = sorted(set(entry) - set(REQUIRED) - set(OPTIONAL)) if not missing else []
        if missing or unknown:
            trouble = f"lacks {', '.join(missing)}" if missing else f"has unknown {', '.join(unknown)}"
            raise InvalidInputError(f"candidates[{number}]: {trouble}; known: {', '.join((*REQUIRED, *OPTIONAL))}")
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
            token_ratio=entry.get("token_ratio", 1.0),
            features=tuple(entry.get("features", ())),
            latency_ms=entry.get("latency_ms"),
        )
        for entry in entries
    ]
    prices = {
        entry["name"]: Price(
            input_usd_per_1m=entry["input_usd_per_1m"],
            output_usd_per_1m=entry["output_usd_per_1m"],
            fixed_usd=entry.get("fixed_usd", 0.0),
            basis=entry.get("basis", f"given in {path.name}"),
        )
        for entry in entries
    }
    named = {entry["name"]: entry.get("source", entry["name"]) for entry in entries}
    for number, (name, source) in enumerate(named.items()):
        if not isinstance(source, str) and not _is_mapping_of_texts(source):
            raise InvalidInputError(
                f"candidates[{number}]: source of {name!r}: expected its name in the outcomes, or {{source: name}}, got {source!r}"
            )
    without_ratio = frozenset(entry["name"] for entry in entries if "token_ratio" not in entry)
    return CandidatesFile(listed, PriceList(date=document["date"], prices=prices), named, without_ratio)


def _check_values(number: int, entry: Mapping[str, object]) -> None:
    """Here, before any fit; the bundle judges the same values again when it is written."""
    for key, expected, good in (
        *((key, "a text that is not empty", _is_text) for key in ("name", "family", "provider", "basis")),
        *((key, "a number >= 0", _is_amount) for key in ("input_usd_per_1m", "output_usd_per_1m", "fixed_usd")),
        ("token_ratio", "a number > 0", lambda value: _is_amount(value) and value > 0),
        ("latency_ms", "a number >= 0, or null", lambda value: value is None or _is_amount(value)),
        *(
            (key, "a whole number of tokens > 0, or null", lambda v: v is None or (type(v) is int and v > 0))
            for key in ("context_window", "max_output_tokens")
        ),
        ("features", 'a list of texts such as ["tools"]', lambda v: isinstance(v, list) and all(map(_is_text, v))),
    ):
        if key in entry and not good(entry[key]):
            raise InvalidInputError(f"candidates[{number}].{key}: expected {expected}, got {entry[key]!r}")


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_amount(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < math.inf


def _is_mapping_of_texts(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())
