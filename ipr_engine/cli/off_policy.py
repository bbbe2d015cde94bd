"""`ipr off-policy` estimates what another policy or bundle would have got on recorded decisions that chance had a say in."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ipr_engine.cli.options import add_bundle_options, add_key_option, add_policy_options, given_options, load_engine
from ipr_engine.engine import Engine
from ipr_engine.errors import InvalidInputError

if TYPE_CHECKING:
    from ipr_engine.audit.owner_key import OwnerKey
    from ipr_engine.audit.replay import Replayed
    from ipr_engine.bundle import Bundle
    from ipr_engine.data.progress import Progress


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "off-policy",
        help="estimate what another policy or bundle would have got on scored records",
        description="Decide every scored record that chance had a say in again, with this bundle and these options of a policy in place of "
        "the record's own, and estimate what that would have got: by inverse propensities (IPS, SNIPS) and doubly robust, with 95 % "
        "intervals, beside the recorded policy and the difference (docs/from-production.md). The doubly robust estimate takes the bundle's "
        "predictions: its heads must not have been fitted on these scores.",
    )
    parser.add_argument(
        "records", type=Path, metavar="RECORDS", help="decision records, one a line, of a server with exploration"
    )
    parser.add_argument("--scores", type=Path, required=True, metavar="FILE", help="a table of id and quality")
    parser.add_argument(
        "--no-predictions", action="store_true", help="no doubly robust estimate: the heads have seen these scores"
    )
    parser.add_argument(
        "--skip-bad-rows", action="store_true", help="leave damaged lines and bad scores out and say how many"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    add_key_option(parser, "it opens what is sealed in the records")
    add_policy_options(parser)
    add_bundle_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from ipr_engine.audit.replay import replay
    from ipr_engine.data.importers.outcome_builder import HINT
    from ipr_engine.data.overlap import FittedPrompts
    from ipr_engine.data.progress import Progress
    from ipr_engine.data.score_table import ScoreTable
    from ipr_engine.data.tables import BadRows
    from ipr_engine.evaluation.off_policy_report import off_policy_report
    from ipr_engine.evaluation.scored_replays import logged_decisions, scored_lines
    from ipr_engine.policy.policy_spec import options_to_json

    bad, options = BadRows(skip=arguments.skip_bad_rows), given_options(arguments)
    table = ScoreTable(arguments.scores, bad)
    engine = load_engine(arguments, Engine)
    left_out: Counter[str] = Counter()
    lines = scored_lines(_lines(arguments.records), table, left_out)
    with Progress("deciding again", len(table)) as progress:
        replays = _counted(replay(lines, engine, key=arguments.key, **options), progress)
        decisions = logged_decisions(replays, engine.bundle.names, table, bad, arguments.records.name, left_out)
    if not bad.skip:
        bad.refuse(HINT)
    elif len(bad):
        print(f"ipr off-policy: left out: {bad.summary}", file=sys.stderr)
    if table.strangers:
        print(f"ipr off-policy: {table.strangers:,} scores of no record", file=sys.stderr)
    fitted = FittedPrompts(engine.bundle, _keys(engine.bundle, arguments.key))
    report = off_policy_report(decisions, predictions=not arguments.no_predictions, fitted=fitted)
    if arguments.json:
        about = {"bundle": engine.bundle.hash, "policy": options_to_json(options), "skipped_rows": len(bad)}
        print(json.dumps({**about, **report.to_dict()}, allow_nan=False))
        return 0
    if not arguments.no_predictions:
        print(
            "doubly robust: right only where these heads were fitted on other data than these scores", file=sys.stderr
        )
    print(report)
    return 0


def _keys(bundle: Bundle, given: str | None) -> tuple[OwnerKey, ...]:
    """Return the keys at hand: the one beside the bundle, which `ipr train` made, and the records' own."""
    from ipr_engine.audit.owner_key import OwnerKey, keys_beside

    own = () if given is None else (OwnerKey.load(given),)
    return (*own, *keys_beside(bundle.path.parent, None))


def _counted(replays: Iterator[Replayed], progress: Progress) -> Iterator[Replayed]:
    for replayed in replays:
        progress.advance()
        yield replayed


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as log:
            yield from log
    except OSError as error:
        raise InvalidInputError(f"RECORDS: cannot read {path}: {error.strerror}") from None
