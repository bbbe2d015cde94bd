"""`ipr replay` decides recorded decisions again."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from typing import Any

from ipr_engine.audit.replay import Replayed, ReplaySummary, replay
from ipr_engine.cli.options import add_bundle_options, add_key_option, add_policy_options, given_options, load_engine
from ipr_engine.engine import Engine
from ipr_engine.errors import InvalidInputError

DIFFERENT = 4


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "replay",
        help="decide a log of records again and tell every difference",
        description="Decide every record that `ipr route --record` or Engine.recorder wrote again, with this bundle on this instruction "
        "set, and tell every field that differs by a bit. Records without an embedding are decided from their qualities and output "
        "tokens, those with one (--key opens it) by the bundle's heads. Figures of then that stand, since other tokenizers or centroids "
        "cannot be asked, are told as kept. Options of a policy replace those terms of each record's own policy, the others stand: "
        "--tau 0.9 is what another tau would have chosen. One that is left out is the record's own, whatever default is named below.",
        epilog="Exit codes: 0 every record came out equal; 4 some differ; 3 some lines were not replayed (damaged, withheld, of other "
        "heads or another encoder, sealed under another key, or with terms that do not fit the bundle), whatever the others came to; 1 "
        "an error.",
    )
    parser.add_argument("log", metavar="LOG", help="a file of records, one a line ('-': stdin)")
    parser.add_argument(
        "--json",
        action="store_true",
        help="one JSON object a line that differs or keeps a figure, then one with the summary",
    )
    parser.add_argument("--summary", action="store_true", help="the summary alone")
    add_key_option(parser, "it opens what is sealed in the records")
    add_policy_options(parser)
    add_bundle_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    engine = load_engine(arguments, Engine)
    summary = ReplaySummary()
    for replayed in replay(_lines(arguments.log), engine, key=arguments.key, **given_options(arguments)):
        summary.add(replayed)
        if not arguments.summary and (replayed.differences or replayed.kept or replayed.refused is not None):
            print(_json(replayed) if arguments.json else _text(replayed))
    if not summary.records:
        raise InvalidInputError(f"LOG: expected records, one a line, got none in {arguments.log}")
    live = {"bundle": engine.bundle.hash, "isa": engine.plan.isa}
    if arguments.json:
        print(json.dumps({"summary": {**summary.to_dict(), "replayed_on": live}}, allow_nan=False))
    else:
        print(f"{summary}\nreplayed on {engine.plan.isa}, bundle {engine.bundle.hash[:12]}")
    if summary.refused:
        return 3
    return DIFFERENT if summary.different else 0


def _lines(path: str) -> Iterator[bytes]:
    try:
        if path == "-":
            yield from sys.stdin.buffer
            return
        with open(path, "rb") as log:
            yield from log
    except OSError as error:
        raise InvalidInputError(f"LOG: cannot read {path}: {error.strerror}") from None


def _json(replayed: Replayed) -> str:
    document: dict[str, Any] = {"line": replayed.line, "id": None if replayed.record is None else replayed.record.id}
    if replayed.refused is not None:
        document["refused"] = replayed.refused
    document["differences"] = [difference.to_dict() for difference in replayed.differences]
    if replayed.kept:
        document["kept"] = [{"field": one.field, "why": one.why} for one in replayed.kept]
    return json.dumps(document, allow_nan=False)


def _text(replayed: Replayed) -> str:
    named = replayed.record is not None and replayed.record.id is not None
    where = f"line {replayed.line}" + (f" (id {replayed.record.id})" if named and replayed.record is not None else "")
    if replayed.refused is not None:
        return f"{where}: not replayed: {replayed.refused}"
    return "\n".join(f"{where}: {stated}" for stated in (*replayed.differences, *replayed.kept))
