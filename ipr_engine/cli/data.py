"""`ipr data` checks, imports, splits and embeds outcome data."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ipr_engine._validate import shown_each
from ipr_engine.cli import data_embed, data_noise
from ipr_engine.cli.options import add_key_option, named_pairs
from ipr_engine.errors import InvalidInputError

if TYPE_CHECKING:
    from ipr_engine.data.importers.scored_records import JoinReport

FORMATS = ("parquet", "csv", "jsonl")
SOURCES = ("routerbench", "routellm", "llmrouterbench", "wide", "records")


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "data",
        help="check, import, split and embed outcome data",
        description="Check, import, split and embed outcome data: two tables, prompts and outcomes (docs/outcome-data.md). "
        "CSV and JSONL need nothing else; Parquet needs the extra [train].",
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    _add_check(actions)
    _add_import(actions)
    _add_split(actions)
    data_embed.add_parser(actions)
    data_noise.add_parser(actions)


def _add_check(actions: Any) -> None:
    parser = actions.add_parser(
        "check",
        help="validate outcome data and sum it up",
        description="Validate outcome data and show, per candidate, its coverage, mean quality and mean cost, and what looks odd. "
        "Bad rows are told all at once, with file, row and column.",
    )
    parser.add_argument("source", nargs="+", help="folder with prompts.* and outcomes.*, or a folder of such folders")
    parser.add_argument("--split", help="only this split")
    parser.add_argument("--json", action="store_true", help="one JSON object a source on stdout")
    parser.set_defaults(run=run_check)


def _add_import(actions: Any) -> None:
    parser = actions.add_parser(
        "import",
        help="turn public outcome data, or scored records, into the two tables",
        description="Turn public outcome data, or scored records, into the two tables. routerbench: its wide CSV or Parquet; routellm: the "
        "folder routellm/evals; llmrouterbench: the folder results/bench; wide: a table of your own with one row a prompt and columns "
        "<model>, <model>|cost_usd, <model>|input_tokens, <model>|output_tokens; records: decision records, joined with --scores by id "
        "(docs/from-production.md).",
    )
    parser.add_argument("layout", choices=SOURCES, help="whose layout")
    parser.add_argument("source", help="file or folder to read")
    parser.add_argument("out", help="folder to write; may not hold outcome data yet")
    parser.add_argument("--model", action="append", metavar="NAME", help="only this candidate; repeatable")
    parser.add_argument(
        "--column",
        action="append",
        default=[],
        metavar="NAME=THEIRS",
        help="wide, routerbench: take their column THEIRS for NAME, such as prompt=question or 'gpt|quality=gpt_score'; repeatable",
    )
    parser.add_argument(
        "--skip-bad-rows",
        action="store_true",
        help="leave bad rows out and say how many, instead of refusing them all at once",
    )
    group = parser.add_argument_group("records")
    group.add_argument("--scores", metavar="FILE", help="a table of id, quality and what else is known of each answer")
    group.add_argument("--prompts", metavar="FILE", help="a table of id and prompt, where the records keep none")
    add_key_option(group, "it opens prompts that are sealed in the records")
    _add_output(parser)
    parser.set_defaults(run=run_import)


def _add_split(actions: Any) -> None:
    parser = actions.add_parser(
        "split",
        help="divide prompts, near-duplicates together",
        description="Give every prompt a new split. Near-duplicates (equal text or question key, or a Jaccard similarity of 5-character "
        "shingles of at least the threshold) share theirs.",
    )
    parser.add_argument("source", help="folder with prompts.* and outcomes.*")
    parser.add_argument("out", help="folder to write; may not hold outcome data yet")
    parser.add_argument(
        "--shares", default="train=0.8,test=0.2", metavar="NAME=SHARE,...", help="(default train=0.8,test=0.2)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the order in which groups are dealt (default 0)")
    parser.add_argument("--threshold", type=float, default=0.8, help="similarity of near-duplicates (default 0.8)")
    parser.add_argument(
        "--without",
        action="append",
        default=[],
        metavar="FOLDER[:SPLIT]",
        help="first drop the prompts whose question is in that source (:SPLIT, only that split of it); repeatable",
    )
    _add_output(parser)
    parser.set_defaults(run=run_split)


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--format", default="parquet", choices=FORMATS, help="of the tables written (default parquet)")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")


def run_check(arguments: argparse.Namespace) -> int:
    from ipr_engine.data.outcome_files import find_sources, load_outcomes

    for name in arguments.source:
        folders = find_sources(name)
        for folder in folders or [Path(name)]:  # loading a folder without tables says what is missing
            summary = summarise(load_outcomes(folder, split=arguments.split))
            _print(summary, arguments.json)
    return 0


def run_import(arguments: argparse.Namespace) -> int:
    from ipr_engine.data.importers import IMPORTERS
    from ipr_engine.data.outcome_files import free_for_outcomes, write_outcomes
    from ipr_engine.data.tables import BadRows

    source = Path(arguments.source)
    if not source.exists():
        raise InvalidInputError(f"source: {source} does not exist")
    free_for_outcomes(arguments.out)
    columns = named_pairs("--column", arguments.column, "NAME=THEIRS such as prompt=question")
    bad = BadRows(skip=arguments.skip_bad_rows)
    options: dict[str, Any] = {}
    if arguments.layout in ("wide", "routerbench"):
        options["columns"] = columns
    elif columns:
        raise InvalidInputError(
            f"--column: {arguments.layout} has files of its own form; it is for wide and routerbench"
        )
    if arguments.layout == "wide":
        options["models"] = arguments.model
    report = _of_records(arguments, options)
    outcomes = IMPORTERS[arguments.layout](source, bad=bad, **options)
    if arguments.model and arguments.layout != "wide":
        outcomes = outcomes.select(arguments.model)
    if len(bad):
        print(f"ipr data: left out: {bad.summary}", file=sys.stderr)
    if report is not None:
        print(f"ipr data: {report.notice}", file=sys.stderr)
    joined = {} if report is None else {"join": report.to_dict()}
    folder = write_outcomes(outcomes, arguments.out, format=arguments.format)
    _print({**summarise(outcomes), "skipped_rows": len(bad), **joined, "written": str(folder)}, arguments.json)
    print(
        "ipr data: `ipr train` wants --candidates beside these tables: a file of family, provider and prices of "
        f"{shown_each(outcomes.models)} (docs/own-bundle.md)",
        file=sys.stderr,
    )
    return 0


def _of_records(arguments: argparse.Namespace, options: dict[str, Any]) -> JoinReport | None:
    """Add to the options what records are joined with, and return what will count it; None for another layout.

    Raises:
        InvalidInputError: there are no scores, or a flag is of records and the layout another.
    """
    if arguments.layout == "records":
        from ipr_engine.data.importers.scored_records import JoinReport

        if arguments.scores is None:
            raise InvalidInputError("--scores: is missing; records become outcomes by a table of id and quality")
        prompts = None if arguments.prompts is None else Path(arguments.prompts)
        report = JoinReport()
        options |= {"scores": Path(arguments.scores), "prompts": prompts, "key": arguments.key, "report": report}
        return report
    for name in ("scores", "prompts", "key"):
        if getattr(arguments, name) is not None:
            raise InvalidInputError(f"--{name}: is for the layout records; leave it out")
    return None


def run_split(arguments: argparse.Namespace) -> int:
    from ipr_engine.data.outcome_files import free_for_outcomes, load_outcomes, write_outcomes
    from ipr_engine.data.split import split_outcomes

    free_for_outcomes(arguments.out)
    outcomes = load_outcomes(arguments.source)
    before = len(outcomes)
    for other in arguments.without:
        outcomes = outcomes.without_questions_of(_other(other))
    if not len(outcomes):
        raise InvalidInputError("--without: every prompt's question is in the other sources; nothing is left to split")
    done, report = split_outcomes(
        outcomes, _shares(arguments.shares), seed=arguments.seed, threshold=arguments.threshold
    )
    folder = write_outcomes(done, arguments.out, format=arguments.format)
    facts = {
        "splits": report.rows,
        "groups": report.groups,
        "near_duplicates": report.joined,
        "largest_group": report.largest,
        "largest_group_origin": report.origin,
        "largest_group_example": report.example,
        "missed_shares": report.missed,
        "notice": report.notice,
        "dropped_questions_of_others": before - len(outcomes),
        "written": str(folder),
    }
    if report.notice is not None:
        print(f"ipr data: {report.notice}", file=sys.stderr)
    if arguments.json:
        print(json.dumps(facts, ensure_ascii=False))
        return 0
    print(", ".join(f"{name} {rows:,}" for name, rows in report.rows.items()) + f" -> {folder}")
    print(
        f"{report.groups:,} groups; {report.joined:,} prompts are near-duplicates of another, the largest group has "
        f"{report.largest:,}; {before - len(outcomes):,} dropped because another source asks them"
    )
    return 0


def summarise(outcomes: Any) -> dict[str, Any]:
    """Return what `ipr data check` shows of one source; means are over the outcomes known, None where there are none."""
    splits = {name: outcomes.splits.count(name) for name in sorted(set(outcomes.splits))}
    coverage = outcomes.coverage()
    return {
        "source": outcomes.source,
        "prompts": len(outcomes),
        "splits": splits,
        "datasets": len(set(outcomes.datasets) - {""}),
        "outcomes": int(outcomes.covered.sum()),
        "complete_prompts": int(outcomes.covered.all(axis=1).sum()),
        "models": [
            {
                "name": name,
                "coverage": coverage[name],
                "mean_quality": _mean(outcomes.quality[:, column]),
                "mean_output_tokens": _mean(outcomes.output_tokens[:, column]),
                "mean_cost_usd": _mean(outcomes.cost_usd[:, column]),
            }
            for column, name in enumerate(outcomes.models)
        ],
        "notices": list(outcomes.notices),
    }


def _mean(values: Any) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None


def _print(summary: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(summary, ensure_ascii=False, allow_nan=False))
        return
    splits = ", ".join(f"{name or 'no split'} {rows:,}" for name, rows in summary["splits"].items())
    print(
        f"{summary['source']}: {summary['prompts']:,} prompts ({splits}), {len(summary['models'])} models, "
        f"{summary['outcomes']:,} outcomes, {summary['complete_prompts']:,} prompts with all models"
    )
    print(f"  {'model':<44} {'covered':>8} {'quality':>8} {'tokens':>8} {'USD/1k':>9}")
    for model in summary["models"]:
        cost = None if model["mean_cost_usd"] is None else 1000 * model["mean_cost_usd"]
        print(
            f"  {model['name']:<44} {model['coverage']:>8.1%} {_shown(model['mean_quality'], 3):>8} "
            f"{_shown(model['mean_output_tokens'], 0):>8} {_shown(cost, 3):>9}"
        )
    if summary.get("skipped_rows"):
        print(f"  bad rows left out: {summary['skipped_rows']:,}")
    if "written" in summary:
        print(f"  written to {summary['written']}")
    for notice in summary["notices"]:
        print(f"ipr data: {summary['source']}: {notice}", file=sys.stderr)


def _shown(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _shares(text: str) -> dict[str, float]:
    """Return {split: share} of --shares."""
    shares: dict[str, float] = {}
    for item in text.split(","):
        name, _, share = item.rpartition("=")
        try:
            if not name or name in shares:
                raise ValueError
            shares[name] = float(share)
        except ValueError:
            raise InvalidInputError(
                f"--shares: expected NAME=SHARE,... such as train=0.8,test=0.2, got {text!r}"
            ) from None
    return shares


def _other(text: str) -> Any:
    """Read the outcomes of --without: FOLDER, or FOLDER:SPLIT where no folder has that whole name."""
    from ipr_engine.data.outcome_files import load_outcomes

    folder, _, split = text.rpartition(":")
    if folder and not Path(text).is_dir():
        return load_outcomes(folder, split=split)
    return load_outcomes(text)
