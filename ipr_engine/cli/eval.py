"""`ipr eval` measures a bundle on outcomes that are known, beside every baseline."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path
from typing import Any

from ipr_engine._files import writable_folder
from ipr_engine.cli.options import add_bundle_options, add_cache_option, load_engine
from ipr_engine.data import load_outcomes
from ipr_engine.engine import Engine
from ipr_engine.errors import InvalidInputError

FEW_DRAWS = 100  # of which 2.5 % are not three
FAILED_GATE = 5  # exit code


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "eval",
        help="evaluate a bundle on known outcomes, beside every baseline (extra [eval])",
        description="Evaluate a bundle on a source's test split: cost at equal quality, quality over cost, what tau promises and keeps, "
        "prediction, each with intervals and beside every baseline; docs/metrics.md has the definitions. Baselines and the cost "
        "axis come from its train split. Costs are the recorded tokens at the bundle's prices. "
        "Decisions are the engine's own. Without --out the Markdown report goes to stdout.",
    )
    parser.add_argument("--outcomes", required=True, type=Path, metavar="DIR", help="prompts.parquet, outcomes.parquet")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write report.md, report.json and PNG plots here")
    parser.add_argument("--json", action="store_true", help="report.json on stdout")
    parser.add_argument(
        "--also",
        action="append",
        default=[],
        type=Path,
        metavar="DIR",
        help="another source with some of the candidates: its error against support beside; repeatable",
    )
    parser.add_argument(
        "--samples",
        metavar="PATH",
        help="samples.* of `ipr collect`, or their folder: also say how much of the outcomes is the luck of a sample",
    )
    parser.add_argument(
        "--map", action="append", default=[], metavar="NAME=SOURCE", help="a candidate's name in a source; repeatable"
    )
    parser.add_argument("--allow", action="append", metavar="NAME", help="only this candidate; repeatable")
    parser.add_argument("--family", action="append", metavar="NAME", help="only this family; repeatable")
    parser.add_argument(
        "--validation",
        default="halves",
        choices=("halves", "train"),
        help="choose operating points on one half of test for the other, or on train (default halves)",
    )
    parser.add_argument(
        "--router",
        action="append",
        default=[],
        metavar="[NAME=]MODULE:FUNCTION",
        help="judge another router on the same prompts, too; its code runs in this process; repeatable; docs/judging-routers.md",
    )
    parser.add_argument(
        "--edits",
        action="store_true",
        help="also decide the test prompts written otherwise (case, politeness, a fence, ...) and with suffixes that ask for a dearer "
        "candidate: decisions flipped, quality lost, cost raised; embeds them eleven times more",
    )
    parser.add_argument(
        "--gate", action="store_true", help="as --edits, and exit code 5 where an edit fails its limits"
    )
    parser.add_argument("--draws", type=int, default=1000, help="bootstrap draws (default 1000)")
    parser.add_argument("--seed", type=int, default=0, help="of bootstrap, halves, folds, k-means (default 0)")
    parser.add_argument(
        "--cross-fit",
        action="store_true",
        help="judge how the bundle was fitted, by folds of all prompts, heads fitted anew on the others; so is done where no split but "
        "train is stated",
    )
    parser.add_argument(
        "--key",
        metavar="FILE",
        help="the owner's key that the bundle's prompt hashes are under, to tell test prompts it was fitted on (default: owner.key in "
        "its root)",
    )
    add_cache_option(parser)
    add_bundle_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from ipr_engine.data.repeated_scores import read_repeated_scores
    from ipr_engine.evaluation import report
    from ipr_engine.evaluation.evaluate import evaluate_engine
    from ipr_engine.evaluation.evaluation_inputs import EvaluatedCandidates, EvaluationOptions
    from ipr_engine.evaluation.robust_to_edits import failed

    if arguments.draws < 1:
        raise InvalidInputError(f"--draws: expected at least 1, got {arguments.draws}")
    if arguments.draws < FEW_DRAWS:
        _say(
            f"--draws {arguments.draws}: the ends of intervals are rough below {FEW_DRAWS} draws, and so is what they tell apart"
        )
    for option, folder in (("--out", arguments.out), ("--cache", arguments.cache)):
        if folder is not None:
            writable_folder(folder, option)
    routers = _routers(arguments.router)
    engine = load_engine(arguments, Engine)
    names = _names(engine, arguments.map)
    _say(f"reading {arguments.outcomes.name} ...")
    summary = evaluate_engine(
        engine,
        load_outcomes(arguments.outcomes),
        candidates=EvaluatedCandidates(names=names, allowed=arguments.allow, family=arguments.family),
        also=[load_outcomes(folder) for folder in arguments.also],
        options=EvaluationOptions(
            validate_on_train=arguments.validation == "train",
            routers=routers,
            repeated=None if arguments.samples is None else read_repeated_scores(arguments.samples),
            key=arguments.key,
            cross_fit=arguments.cross_fit,
            edits=arguments.edits or arguments.gate,
            draws=arguments.draws,
            seed=arguments.seed,
        ),
        command=_command(arguments),
        cache=arguments.cache,
        progress=_say,
    )
    if arguments.out is not None:
        from ipr_engine.evaluation.plots import draw_all

        _say("drawing ...")
        plots = draw_all(summary, arguments.out, summary.figures["about"]["title"])
        for path in [*report.write(summary.figures, plots, arguments.out), *plots]:
            _say(f"wrote {path}")
    if arguments.json or arguments.out is not None:  # the report on stdout begins with them
        for sentence in [*summary.figures["quotable"], *summary.figures.get("edits", {}).get("sentences", [])]:
            _say(sentence)
    if arguments.json:
        print(report.to_json(summary.figures), end="")
    elif arguments.out is None:
        print(report.render(summary.figures), end="")
    return FAILED_GATE if arguments.gate and failed(summary.figures["edits"]) else 0


def _say(message: str) -> None:
    print(f"ipr eval: {message}", file=sys.stderr, flush=True)


def _routers(items: list[str]) -> dict[str, Any]:
    """Return --router as the name that is shown -> the function."""
    from ipr_engine.evaluation.router_interface import load_router
    from ipr_engine.evaluation.router_names import require_free_names

    parts = [item.rpartition("=") for item in items]
    unnamed = [_short_name(place) for _, given, place in parts if not given]
    routers: dict[str, Any] = {}
    for item, (name, given, place) in zip(items, parts, strict=True):
        if not given:
            name = short if unnamed.count(short := _short_name(place)) == 1 else place
        if not name or name in routers:
            wrong = f"{name!r} is named twice" if name else f"no name before = in {item!r}"
            raise InvalidInputError(f"--router: {wrong}; write NAME=module:function, a name each")
        routers[name] = place
    require_free_names(tuple(routers))  # before any code of theirs runs
    return {name: load_router(place) for name, place in routers.items()}


def _short_name(place: str) -> str:
    """Return what a router of module:function is called without a name: as the function; of one called fit, as the module."""
    module, _, function = place.partition(":")
    return module.rpartition(".")[2] if function == "fit" else function or place


def _names(engine: Engine, items: list[str]) -> dict[str, list[str]]:
    """Return --map as candidate -> its names in the sources."""
    names: dict[str, list[str]] = {}
    for item in items:
        name, _, source = item.partition("=")
        if name not in engine.bundle.names or not source:
            known = ", ".join(engine.bundle.names)
            raise InvalidInputError(f"--map: expected NAME=SOURCE with a candidate's name ({known}), got {item!r}")
        names.setdefault(name, []).append(source)
    return names


def _command(arguments: argparse.Namespace) -> str:
    """Return the command that a report states: names of folders without their places, and no option at its default."""
    parts = ["ipr", "eval", "--outcomes", arguments.outcomes.name]
    if arguments.bundle is not None:
        parts += ["--bundle", os.path.basename(os.path.normpath(arguments.bundle))]
    parts += [part for folder in arguments.also for part in ("--also", folder.name)]
    parts += [] if arguments.samples is None else ["--samples", Path(arguments.samples).name]
    for option in ("map", "allow", "family"):
        for value in getattr(arguments, option) or []:
            parts += [f"--{option}", value]
    parts += [part for item in arguments.router for part in ("--router", item)]
    parts += [
        option for option in ("--cross-fit", "--edits", "--gate") if getattr(arguments, option[2:].replace("-", "_"))
    ]
    parts += [] if arguments.key is None else ["--key", Path(arguments.key).name]
    for option, default in (("validation", "halves"), ("draws", 1000), ("seed", 0)):
        if getattr(arguments, option) != default:
            parts += [f"--{option}", str(getattr(arguments, option))]
    return shlex.join([*parts, "--out", "DIR"] if arguments.out is not None else parts)
