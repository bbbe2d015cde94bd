"""This file reads prices of other tables: a CSV of USD per million tokens, and LiteLLM's model_prices_and_context_window.json.

Every key of LiteLLM's that changes what a request costs is taken, refused by name, or told in `ImportedPrices.untold`.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from ipr_engine._validate import shown
from ipr_engine.bundle.bundle_files import read_regular
from ipr_engine.bundle.checks import price_problem
from ipr_engine.bundle.fields import parse_json
from ipr_engine.bundle.price import Price, price_of
from ipr_engine.errors import InvalidInputError

COLUMNS = ("model", "usd_in_per_m", "usd_out_per_m")
_OTHER_COLUMNS = ("max_input_tokens", "entry")  # no prices

# LiteLLM's keys of a base price, in USD per token unless said otherwise.
_INPUT, _OUTPUT = "input_cost_per_token", "output_cost_per_token"
_READ, _WRITE = "cache_read_input_token_cost", "cache_creation_input_token_cost"
_PER_TOKEN = {
    _INPUT: "input_usd_per_1m",
    _OUTPUT: "output_usd_per_1m",
    _READ: "cached_read_usd_per_1m",
    _WRITE: "cached_write_usd_per_1m",
}
_MORE_PER_TOKEN = {
    "output_cost_per_reasoning_token": "reasoning_usd_per_1m",
    f"{_INPUT}_batches": "batch_input_usd_per_1m",
    f"{_OUTPUT}_batches": "batch_output_usd_per_1m",
}
_PER_PIECE = {"input_cost_per_image": "per_image_usd", "input_cost_per_request": "fixed_usd"}
_MIN_TOKENS, _TABLE, _HIT = "prompt_cache_min_tokens", "tiered_pricing", "input_cost_per_token_cache_hit"
_ABOVE = re.compile(rf"({'|'.join(_PER_TOKEN)})_above_(\d+)(k?)_tokens")
# In the name of a key that changes a bill.
_PRICES = re.compile(r"cost|pric|multiplier|uplift|provider_specific_entry|fee")
_READ_KEYS = {*_PER_TOKEN, *_MORE_PER_TOKEN, *_PER_PIECE, _TABLE, _HIT}
_INCLUSIVE = ("xai",)  # providers that charge a tier from its edge on, not above it


@dataclass(frozen=True, kw_only=True)
class ImportedPrices:
    """`ImportedPrices` hold what a table says of the candidates asked for.

    Attributes:
        prices: candidate -> price, of those that were found. keys: candidate -> the table's name of it.
        missing: candidates that the table does not have, each with keys that may be meant.
        untold: candidate -> keys of its entry that may change a bill and that a Price does not hold.
    """

    prices: Mapping[str, Price]
    keys: Mapping[str, str]
    missing: Mapping[str, tuple[str, ...]]
    untold: Mapping[str, tuple[str, ...]]


def is_foreign(path: Path, data: bytes) -> bool:
    """Return whether a file is not of a bundle's own form: a CSV, or an object that lists entries and no "currency"."""
    if path.suffix.lower() == ".csv":
        return True
    document = parse_json(data, str(path)).value
    return isinstance(document, dict) and "currency" not in document and "prices" not in document


def read_foreign_prices(path: Path, names: tuple[str, ...], called: Mapping[str, str]) -> ImportedPrices:
    """Return the prices of these candidates.

    Args:
        path: a .csv of COLUMNS, with a header and comments after "#"; else LiteLLM's JSON table.
        called: candidate -> its name in the table, where that is another.
    Raises:
        InvalidInputError: an unknown candidate in `called`, a name in it that the table lacks, or an entry that is no price.
        BundleError: the file cannot be read.
    """
    data = read_regular(path, str(path))
    unknown = sorted(set(called) - set(names))
    if unknown:
        raise InvalidInputError(f"as: unknown candidate {', '.join(unknown)}; known: {', '.join(names)}")
    entries = _csv_entries(path, data) if path.suffix.lower() == ".csv" else parse_json(data, str(path)).value
    if not isinstance(entries, dict) or not all(isinstance(entry, dict) for entry in entries.values()):
        raise InvalidInputError(f"file: expected LiteLLM's table, an object of objects, in {path}")
    read = _csv_price if path.suffix.lower() == ".csv" else _litellm_price
    prices, keys, missing, untold = dict[str, Price](), dict[str, str](), dict[str, tuple[str, ...]](), {}
    for name in names:
        key = called.get(name, name)
        if key not in entries:
            # LiteLLM's keys carry a provider ("azure/gpt-4o"): those that end alike may be meant.
            alike = tuple(sorted(other for other in entries if other.rsplit("/", 1)[-1] == key.rsplit("/", 1)[-1]))[:5]
            if name in called:
                hint = f"; keys that end alike: {', '.join(alike)}" if alike else ""
                raise InvalidInputError(f"as: {path.name} has no {key!r} for {name}{hint}")
            missing[name] = alike
            continue
        row, left = read(entries[key], f"{path.name}: {key}")
        problem = price_problem(row)
        if problem is not None:
            raise InvalidInputError(
                f"{path.name}: {key}: {problem.key}: expected {problem.expected}, got {problem.got}; correct the table, or set that "
                "price by hand"
            )
        prices[name], keys[name] = price_of(row, f"{path.name}, {key}"), key
        if left:
            untold[name] = tuple(left)
    if not prices:
        raise InvalidInputError(
            f"file: {path.name} prices none of {', '.join(names)}; say what it calls them with --as NAME=KEY"
        )
    return ImportedPrices(prices=prices, keys=keys, missing=missing, untold=untold)


def _csv_entries(path: Path, data: bytes) -> dict[str, dict[str, str]]:
    """Return name -> row of a CSV with a header; lines that begin with "#" are comments."""
    try:
        lines = [line for line in data.decode("utf-8-sig").splitlines() if line.strip() and not line.startswith("#")]
    except UnicodeDecodeError:
        raise InvalidInputError(f"file: expected UTF-8 text in {path}") from None
    reader = csv.DictReader(io.StringIO("\n".join(lines)))
    header = reader.fieldnames or []
    unknown = [name for name in header if name not in (*COLUMNS, *_OTHER_COLUMNS)]
    if unknown or not set(COLUMNS) <= set(header):
        raise InvalidInputError(
            f"file: expected the columns {', '.join(COLUMNS)} and at most {', '.join(_OTHER_COLUMNS)} in {path}, got "
            f"{', '.join(header) or 'none'}"
        )
    entries: dict[str, dict[str, str]] = {}
    for number, row in enumerate(reader, start=1):
        if None in row or None in row.values():
            raise InvalidInputError(f"file: expected {len(header)} cells in row {number} of {path}")
        if row["model"] in entries:
            raise InvalidInputError(f"file: {row['model']!r} stands twice in {path}; keep one row")
        entries[row["model"]] = row
    return entries


def _csv_price(row: Mapping[str, str], where: str) -> tuple[dict[str, Any], list[str]]:
    """Return the JSON form of a CSV row's price; nothing is left untold."""
    return {
        to: _number(row[column], f"{where}: {column}")
        for column, to in zip(COLUMNS[1:], ("input_usd_per_1m", "output_usd_per_1m"), strict=True)
    }, []


def _litellm_price(entry: Mapping[str, Any], where: str) -> tuple[dict[str, Any], list[str]]:
    """Return a price in its JSON form, and the keys of the entry that may change a bill and are not in it."""
    stated = {key: value for key, value in entry.items() if value is not None}
    tiers, used = _tiers(stated, where)
    row: dict[str, Any] = {}
    if tiers and tiers[0]["above_tokens"] == 0:  # a table of ranges tells the base too
        row = {key: value for key, value in tiers.pop(0).items() if key != "above_tokens"}
    for key, to in {**_PER_TOKEN, **_MORE_PER_TOKEN}.items():
        if key in stated and to not in row:
            row[to] = _per_1m(stated[key], f"{where}: {key}")
    for key, to in _PER_PIECE.items():
        if key in stated:
            row[to] = _number(stated[key], f"{where}: {key}")
    if _HIT in stated:
        row.setdefault("cached_read_usd_per_1m", _per_1m(stated[_HIT], f"{where}: {_HIT}"))
    for to in ("input_usd_per_1m", "output_usd_per_1m"):
        if to not in row:
            raise InvalidInputError(f"{where}: has no price of {to.split('_')[0]} tokens; set its price by hand")
    # The minimum says something only where reading from the cache has a price.
    if "cached_read_usd_per_1m" in row and _MIN_TOKENS in stated:
        row["cache_min_tokens"] = stated[_MIN_TOKENS]
    left = [key for key in stated if key not in _READ_KEYS and key not in used and _PRICES.search(key)]
    if "cached_read_usd_per_1m" not in row and "cached_write_usd_per_1m" in row:
        del row["cached_write_usd_per_1m"]  # a Price has both or reading alone
        left.append(_WRITE)
    one_side = [key for key in ("batch_input_usd_per_1m", "batch_output_usd_per_1m") if key in row]
    if len(one_side) == 1:
        del row[one_side[0]]
        left.append(f"{_INPUT if 'input' in one_side[0] else _OUTPUT}_batches")
    # A tier states the prices that change; the others are the base's.
    for tier in tiers:
        for key in ("cached_read_usd_per_1m", "cached_write_usd_per_1m"):
            if key in tier and key not in row:
                left.append(f"{key} above {tier['above_tokens']}")
                del tier[key]
        for key in ("input_usd_per_1m", "output_usd_per_1m"):
            tier.setdefault(key, row[key])
    if tiers:
        row["tiers"] = tiers
    return row, sorted(left)


def _tiers(stated: Mapping[str, Any], where: str) -> tuple[list[dict[str, Any]], set[str]]:
    """Return the tiers by rising threshold, and the keys they were read from."""
    if _TABLE in stated:
        return list(_ranges(stated[_TABLE], f"{where}: {_TABLE}")), set()
    found: dict[int, dict[str, Any]] = {}
    used: set[str] = set()
    for key, value in stated.items():
        match = _ABOVE.fullmatch(key)
        if match is None:
            continue
        above = int(match[2]) * (1000 if match[3] else 1)
        # A tier here begins above its threshold, not at it.
        if stated.get("litellm_provider") in _INCLUSIVE:
            above -= 1
        tier = found.setdefault(above, {"above_tokens": above})
        tier[_PER_TOKEN[match[1]]] = _per_1m(value, f"{where}: {key}")
        used.add(key)
    return [found[above] for above in sorted(found)], used


def _ranges(table: object, where: str) -> Iterator[dict[str, Any]]:
    """Yield the tiers of LiteLLM's `tiered_pricing`: each is a range of input tokens and the prices there; the first begins at 0."""
    if not isinstance(table, list) or not table:
        raise InvalidInputError(f"{where}: expected a list of ranges, got {shown(table)}")
    end = Decimal(0)
    for number, tier in enumerate(table):
        here = f"{where}[{number}]"
        span = tier.get("range") if isinstance(tier, dict) else None
        if not isinstance(span, list) or len(span) != 2:
            raise InvalidInputError(f"{here}: expected a range of two counts and its prices, got {shown(tier)}")
        unknown = sorted(set(tier) - {"range", *_PER_TOKEN, *_MORE_PER_TOKEN})
        if unknown:
            raise InvalidInputError(f"{here}: has {', '.join(map(str, unknown))}, unknown here; set its price by hand")
        first, last = (_decimal(value, f"{here}.range") for value in span)
        if first != end or last <= first:
            raise InvalidInputError(
                f"{here}.range: expected it to begin at {end} and to end above that, got {shown(span)}"
            )
        # The first range is the base price, which holds these; a `PriceTier` does not.
        if any(key in tier for key in _MORE_PER_TOKEN) and number:
            raise InvalidInputError(
                f"{here}: has a price of reasoning or batches of its own, which a tier does not hold; set it by hand"
            )
        end = last
        known = {**_PER_TOKEN, **_MORE_PER_TOKEN}
        yield {"above_tokens": int(first)} | {
            known[key]: _per_1m(value, f"{here}.{key}") for key, value in tier.items() if key in known
        }


def _per_1m(value: object, where: str) -> float:
    """Return USD per 1 M of a price per token: exactly the decimal that is written, not its binary neighbour times 1e6."""
    return float(_decimal(value, where) * 1_000_000)


def _number(value: object, where: str) -> float:
    """Return a number as it is written."""
    return float(_decimal(value, where))


def _decimal(value: object, where: str) -> Decimal:
    """Return the decimal that a number or text writes; InvalidInputError where it is none, or not finite."""
    try:
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            raise ValueError
        # The decimal as it is written: 1.5e-07 USD a token is exactly 0.15 USD per 1 M.
        number = Decimal(str(value))
        if not number.is_finite():
            raise ValueError
    except (ValueError, ArithmeticError):
        raise InvalidInputError(f"{where}: expected a finite number, got {shown(value)}") from None
    return number
