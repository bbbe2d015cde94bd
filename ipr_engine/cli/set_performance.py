"""`ipr set-performance` puts measured speed and energy of candidates into a bundle, from JSON or a CSV."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from ipr_engine.bundle.performance import UNITS, Performance, performance_json
from ipr_engine.cli.options import add_edited_options, edited_bundle, named_pairs


def add_parser(subparsers: Any) -> None:
    figures = ", ".join(f"{name} ({unit})" for name, unit in UNITS.items())
    parser = subparsers.add_parser(
        "set-performance",
        help="set candidates' measured speed and energy in a bundle",
        description=f"Write a bundle with the figures of FILE: {figures}, and basis, which says where they come from. A candidate in "
        "FILE has these figures from then on and no others; those left out keep theirs. `ipr performance fit` makes such a file.",
    )
    parser.add_argument(
        "file",
        metavar="FILE",
        help='JSON: {"performance": {name: {"ttft_s": 0.4, ...}}}, null takes figures away; or a CSV with the columns model and '
        "any of these",
    )
    parser.add_argument(
        "--as",
        dest="called",
        action="append",
        default=[],
        metavar="NAME=KEY",
        help="candidate NAME is called KEY in FILE (repeatable)",
    )
    add_edited_options(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from ipr_engine.bundle import with_performance
    from ipr_engine.bundle.performance_file import read_new_performance

    bundle = edited_bundle(arguments)
    given = read_new_performance(arguments.file, bundle, called=named_pairs("--as", arguments.called, "NAME=KEY"))
    changed = {c.name: c.performance for c in bundle.candidates if given.get(c.name, c.performance) != c.performance}
    folder = with_performance(bundle, given, root=arguments.out)
    lines = {name: _lines(was, given[name]) for name, was in changed.items()}
    for name, figures in lines.items():
        gone = [key for key, _, now in figures if now is None]
        if gone and given[name] is not None:
            stated = f"{name}: {arguments.file} does not say {', '.join(gone)}, not known any more"
            print(f"ipr set-performance: {stated}", file=sys.stderr)
    if arguments.json:
        print(json.dumps({"bundle": folder.name, "changed": sorted(changed)}))
        return 0
    print(folder)
    for name, figures in lines.items():
        print(f"{name}:" if given[name] is not None else f"{name}: no figures any more")
        for key, before, after in figures:
            print(f"    {key}: {json.dumps(before)} -> {json.dumps(after)}")
    if not changed:
        print("nothing changed")
    return 0


def _lines(was: Performance | None, now: Performance | None) -> list[tuple[str, Any, Any]]:
    """Return (key, before, after) of each figure that changed; None where a figure is not known."""
    before, after = ({} if side is None else performance_json(side) for side in (was, now))
    keys = dict.fromkeys([*before, *after])
    return [(key, before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)]
