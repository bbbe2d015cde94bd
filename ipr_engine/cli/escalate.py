"""`ipr escalate` joins two bundles of the same candidates into one of two tiers."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ipr_engine.bundle import Bundle


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "escalate",
        help="join two bundles: the second decides again where the first one's gap is small",
        description="Write a bundle of two tiers (docs/two-tiers.md): the heads of FIRST decide every prompt, and where the gap of that "
        "decision is below --gap, the encoder and the heads of SECOND decide it again. Both must have the same candidates at the same "
        "prices. Calibrate the result: the maps of one tier do not hold for two.",
    )
    parser.add_argument("first", metavar="FIRST", help="bundle root or folder: a static encoder's, say")
    parser.add_argument(
        "second", metavar="SECOND", help="bundle root or folder: a transformer's, alone or beside a table"
    )
    parser.add_argument("--gap", required=True, type=float, metavar="Q", help="quality units, at least 0")
    parser.add_argument("--out", required=True, metavar="ROOT", help="bundle root; the new bundle becomes current")
    parser.add_argument("--name", help="name of the bundle (default: the first one's)")
    parser.add_argument("--created", help="date written into the bundle (default: the first one's)")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from ipr_engine._validate import nonnegative
    from ipr_engine._version import __version__
    from ipr_engine.bundle import Bundle
    from ipr_engine.bundle.two_tiers import two_tiers
    from ipr_engine.cli.path_notice import path_rows_facts, path_rows_line

    first, second = Bundle.load(arguments.first), Bundle.load(arguments.second)
    folder = two_tiers(
        first,
        second,
        gap=nonnegative("--gap", arguments.gap),
        root=arguments.out,
        name=arguments.name,
        created=arguments.created,
        provenance={"recipe": "ipr escalate", "version": __version__},
    )
    joined = Bundle.load(folder)
    for notice in _left_behind(first, second):
        print(f"ipr escalate: {notice}", file=sys.stderr)
    if arguments.json:
        stated = {"bundle": folder.name, "gap": arguments.gap, "first": first.hash, "second": second.hash}
        print(json.dumps({**stated, "path_rows": path_rows_facts(joined)}))
        return 0
    print(folder)
    print(path_rows_line(joined))
    if first.calibrations or second.calibrations:
        print("calibration maps are of one tier and were left out; make one with `ipr calibrate`")
    return 0


def _left_behind(first: Bundle, second: Bundle) -> list[str]:
    """Return what the joined bundle does not take from the second one, a sentence each."""
    from ipr_engine.bundle.origin import task_column

    notices, columns = [], (task_column(first), task_column(second))
    if None not in columns and columns[0] != columns[1]:
        notices.append(
            f"the tiers tell tasks of two columns apart: evaluations and calibrations read {columns[0]!r} for both, and none of "
            f"{columns[1]!r}; train both with one --task-column"
        )
    if second.unsupported not in (None, first.unsupported):
        notices.append(
            "who answers unsupported prompts is the first bundle's to say; what the second one says was left out"
        )
    return notices
