"""`ipr bench compare` compares recorded runs with recorded runs."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ipr_engine.errors import InvalidInputError

from ..load import compare, report
from .options import EXIT_CODES, MISSED, UNTOLD


def add_parser(benches: Any) -> None:
    parser = benches.add_parser(
        "compare",
        help="tell a regression from noise between recorded runs",
        description="For each case of NEW, its latest run against all runs of the same case in BASE, without pairs: what that "
        "cannot exclude is said. In turns in one process: `ipr bench load --against`.",
        epilog=EXIT_CODES,
    )
    parser.add_argument("base", type=Path, metavar="BASE", help="runs that `ipr bench load --record` wrote")
    parser.add_argument("new", type=Path, metavar="NEW", help="the runs to judge")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout, nothing else")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    bases, news = report.read(arguments.base, "BASE"), report.read(arguments.new, "NEW")
    latest = {report.case_key(one): one for one in news}
    known = {report.case_key(one) for one in bases}
    shared = [one for key, one in latest.items() if key in known]
    if not shared:
        there = "; ".join(sorted({report.case_text(one) for one in bases}))
        raise InvalidInputError(f"NEW: no case of BASE in it; BASE has: {there}")
    found = [(one, compare.unpaired(one, report.same_case(one, bases, "BASE"))) for one in shared]
    verdicts = {comparison.verdict for _, comparison in found}
    code = MISSED if compare.SLOWER in verdicts else UNTOLD if verdicts & {compare.UNTOLD, compare.INCOMPARABLE} else 0
    if arguments.json:
        judged = [{"case": report.case_text(one), **comparison.to_dict()} for one, comparison in found]
        print(json.dumps({"compare": judged, "exit_code": code}, allow_nan=False))
        return code
    for one, comparison in found:
        print(f"{report.case_text(one)}: {comparison.verdict}, against {comparison.against}")
        for line in (*comparison.changes, *comparison.caveats):
            print(f"  {line}")
    return code
