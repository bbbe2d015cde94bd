"""`ipr set-prices` puts other prices into a bundle, from a file of the bundle's form, a CSV or LiteLLM's table."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ipr_engine.cli.options import add_edited_options, edited_bundle, named_pairs
from ipr_engine.errors import InvalidInputError

if TYPE_CHECKING:
    from ipr_engine.bundle import Bundle, PriceList


LEAST_USUAL_USD = 0.001  # per 1 M tokens: nobody charges as little


def add_parser(subparsers: Any) -> None:
    prices = subparsers.add_parser(
        "set-prices",
        help="replace prices in a bundle",
        description="Write a bundle with the prices of FILE; candidates that FILE leaves out keep theirs and their day. FILE is in the "
        "form of a bundle's prices.json; or a CSV with the columns model, usd_in_per_m and usd_out_per_m; or "
        "LiteLLM's model_prices_and_context_window.json. What a table says beside that may change a bill is told on stderr.",
    )
    prices.add_argument(
        "file",
        metavar="FILE",
        help='JSON: {"currency": "USD", "date", "prices": {name: {"input_usd_per_1m", ...}}}; or a table',
    )
    prices.add_argument(
        "--as",
        dest="called",
        action="append",
        default=[],
        metavar="NAME=KEY",
        help="of a table: candidate NAME is called KEY there (repeatable)",
    )
    prices.add_argument("--date", help="of a table: when its prices held, YYYY-MM-DD (default today)")
    add_edited_options(prices)
    prices.add_argument("--json", action="store_true", help="one JSON object on stdout")
    prices.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from ipr_engine.bundle import PriceList, with_prices
    from ipr_engine.bundle.price import price_numbers

    bundle = edited_bundle(arguments)
    given, stated = _given(arguments, bundle)
    old = bundle.prices.prices
    kept = [name for name in bundle.names if name not in given.prices]
    changed = {name: price for name, price in given.prices.items() if price != old[name]}
    stated += [
        f"{name}: its price of reasoning tokens is not counted in decisions: state reasoning_share, how much of its output they are, "
        "in a price file"
        for name, price in changed.items()
        if price.reasoning_usd_per_1m is not None and price.reasoning_share is None
    ]
    merged = PriceList(currency=given.currency, date=given.date, prices={**old, **given.prices})
    folder = with_prices(bundle, merged, kept=kept, root=arguments.out)
    for line in stated:
        print(f"ipr set-prices: {line}", file=sys.stderr)
    for name, price in changed.items():
        if 0 < max(price.input_usd_per_1m, price.output_usd_per_1m) < LEAST_USUAL_USD:
            print(
                f"ipr set-prices: {name} now costs less than {LEAST_USUAL_USD:g} USD per 1 M tokens: if these are prices per token, "
                "multiply them by 1,000,000",
                file=sys.stderr,
            )
        if price.is_free:
            print(f"ipr set-prices: {name} now costs nothing: it is chosen whenever it is good enough", file=sys.stderr)
    if arguments.json:
        facts = {
            "bundle": folder.name,
            "date": given.date,
            "changed": sorted(changed),
            "kept": sorted(kept),
            "told": stated,
        }
        print(json.dumps(facts))
        return 0
    print(folder)
    if kept:
        print(f"{len(given.prices)} of {len(bundle.names)} prices are of {given.date}; the others stay, with their day")
    for name, price in changed.items():
        print(
            f"{name}: {old[name].input_usd_per_1m:g} -> {price.input_usd_per_1m:g} in, "
            f"{old[name].output_usd_per_1m:g} -> {price.output_usd_per_1m:g} out, USD per 1 M tokens"
        )
        before, after = price_numbers(old[name]), price_numbers(price)
        for key in sorted({*before, *after} - {"input_usd_per_1m", "output_usd_per_1m"}):
            if before.get(key) != after.get(key):
                print(f"    {key}: {json.dumps(before.get(key))} -> {json.dumps(after.get(key))}")
    return 0


def _given(arguments: argparse.Namespace, bundle: Bundle) -> tuple[PriceList, list[str]]:
    """Return the prices that the file gives, and sentences about what of the file they leave out."""
    from ipr_engine._files import as_path
    from ipr_engine.bundle import PriceList
    from ipr_engine.bundle.bundle_files import read_regular
    from ipr_engine.bundle.candidate_entry import read_new_prices
    from ipr_engine.bundle.checks import require_day
    from ipr_engine.bundle.price_import import is_foreign, read_foreign_prices

    file: Path = as_path(arguments.file, "file")
    if not is_foreign(file, read_regular(file, str(file))):
        for name, value in (("--as", arguments.called), ("--date", arguments.date)):
            if value:
                raise InvalidInputError(
                    f"{name}: only a table needs it; {file.name} is a price file of a bundle's form"
                )
        return read_new_prices(file, bundle), []
    date = time.strftime("%Y-%m-%d") if arguments.date is None else arguments.date
    require_day("--date", date)
    made = read_foreign_prices(file, bundle.names, named_pairs("--as", arguments.called, "NAME=KEY"))
    stated = [
        f"{name}: {file.name} says {', '.join(keys)} too, which its price here does not hold"
        for name, keys in made.untold.items()
    ]
    for name, alike in made.missing.items():
        hint = f"; if one of {', '.join(alike)} is meant, add --as {name}=KEY" if alike else ""
        stated.append(f"{name} is not in {file.name} and keeps its price{hint}")
    return PriceList(currency="USD", date=date, prices=made.prices), stated
