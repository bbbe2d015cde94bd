"""`ipr calibrate` turns scored prompts that no head has seen into a map of what tau runs and what of it is certified."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from ipr_engine._files import writable_file, writable_folder
from ipr_engine.bundle import CalibrationMap, Knot
from ipr_engine.bundle.calibration import CERTIFIED
from ipr_engine.bundle.origin import constant_notice, constant_of
from ipr_engine.bundle.write import require_root
from ipr_engine.cli.options import add_bundle_options, add_cache_option, load_engine, source_names
from ipr_engine.engine import Engine


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "calibrate",
        help="certify what tau means on scored prompts, and write it into the bundle",
        description="Learn the map from tau to operating points (docs/calibration.md): which point runs for a tau, and whether its mean "
        "quality is certified to be at least (1 - tau) * best + tau * cheapest. The prompts must be like the traffic to come, and none "
        "of them among those that the heads were fitted on. One map per candidate set: run it again with --family for a family's own. "
        "Where the bundle has path rows, what a bare tau runs (rule path) is tested at each tau of the map as well.",
    )
    parser.add_argument("--outcomes", required=True, type=Path, metavar="DIR", help="prompts.* and outcomes.*")
    parser.add_argument("--split", required=True, metavar="NAME", help="the calibration sample, 'all' for every prompt")
    parser.add_argument(
        "--path-split",
        default="train",
        metavar="NAME",
        help="where the path is laid out: other prompts (default train)",
    )
    parser.add_argument(
        "--path-outcomes",
        type=Path,
        metavar="DIR",
        help="folder of that split, where it is another; 'all' then takes it whole",
    )
    parser.add_argument(
        "--risk",
        type=float,
        default=0.1,
        help="chance that a certified knot (or tested tau) breaks its promise (default 0.1)",
    )
    parser.add_argument("--simultaneous", action="store_true", help="let the risk hold for all knots together")
    parser.add_argument("--family", metavar="NAME", help="only the candidates of this family")
    parser.add_argument("--allow", action="append", metavar="NAME", help="only this candidate; repeatable")
    parser.add_argument(
        "--map",
        action="append",
        default=[],
        metavar="NAME=SOURCE",
        help="a candidate's name in the outcomes; repeatable",
    )
    parser.add_argument(
        "--drop-overlap",
        action="store_true",
        help="leave out prompts that heads or path have seen, instead of refusing",
    )
    parser.add_argument(
        "--disjoint",
        action="store_true",
        help="state that no head has seen these prompts, where the bundle cannot tell",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of the order of testing; fix it before you look (default 0)"
    )
    parser.add_argument("--out", metavar="ROOT", help="bundle root to write to; the new bundle becomes current")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="PNG of certified quality over cost (extra [eval])")
    parser.add_argument("--json", action="store_true", help="the map as one JSON object on stdout")
    parser.add_argument(
        "--key",
        action="append",
        metavar="FILE",
        help="the owner's key that the bundle's prompt hashes are under (default: owner.key in its root); repeat it for two tiers "
        "of different keys",
    )
    add_cache_option(parser)
    add_bundle_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from ipr_engine.bundle import with_calibrations
    from ipr_engine.calibration.calibrate import CandidateSet, CertifyOptions, Disjointness, calibrate
    from ipr_engine.data import load_outcomes, name_in_source

    if arguments.out is not None:
        require_root("--out", arguments.out)
    if arguments.cache is not None:
        writable_folder(arguments.cache, "--cache")
    if arguments.plot is not None:
        writable_file(arguments.plot, "--plot", suffix=".png")
    engine = load_engine(arguments, Engine)
    loaded = load_outcomes(arguments.outcomes)
    sample = loaded if arguments.split == "all" else loaded.of_split(arguments.split)
    if arguments.path_outcomes is not None:
        loaded = load_outcomes(arguments.path_outcomes)
    path_data = loaded if arguments.path_split == "all" else loaded.of_split(arguments.path_split)
    del loaded
    sources = source_names(engine.bundle, arguments.map)
    called = {name_in_source(sources, name, sample.source) for name in sources}
    unseen = [name for name in sample.models if name not in called]
    if unseen:
        _say(f"not in the bundle, left out: {', '.join(unseen)}")
    made = calibrate(
        engine,
        sample,
        path_data,
        of=CandidateSet(candidates=arguments.allow, family=arguments.family, sources=sources),
        options=CertifyOptions(risk=arguments.risk, simultaneous=arguments.simultaneous, seed=arguments.seed),
        disjoint=Disjointness(drop_overlap=arguments.drop_overlap, stated=arguments.disjoint, key=arguments.key),
        cache=arguments.cache,
        progress=_say,
    )
    constant = {name: why for name, why in constant_of(engine.bundle).items() if name in made.candidates}
    if arguments.plot is not None:
        from ipr_engine.calibration.plot import draw

        draw(made, arguments.plot)
        _say(f"wrote {arguments.plot}")
    folder = None if arguments.out is None else with_calibrations(engine.bundle, [made], root=arguments.out)
    if folder is None:
        _say("nothing written; name a bundle root with --out")
    if arguments.json:
        written = None if folder is None else folder.name
        print(json.dumps({"bundle": written, "map": made.to_json(), "constant": constant}))
        return 0
    if folder is not None:
        print(folder)
    print(render(made))
    if constant:
        print(constant_notice(constant, len(made.candidates)))
    return 0


def render(made: CalibrationMap) -> str:
    """Return a map as a table: a line a step of promises, then what rule `path` was tested at."""
    sample = made.sample
    scope = "all knots together" if made.simultaneous else "each knot"
    lines = [
        f"{made.family or ('all' if made.whole else len(made.candidates))} candidates, best {made.best} "
        f"({made.best_quality:.4f}), cheapest {made.cheapest} ({made.cheapest_quality:.4f}); {sample.prompts} prompts of {sample.source}, "
        f"path on {sample.path_prompts} of {sample.path_source}; risk {made.risk:g} for {scope}, test {made.test}",
        f"{'promise':<18} {'status':<22} {'runs':<26} {'quality':>8} {'lower':>8} {'USD/1k':>9} {'of best':>8} {'to best':>8}",
        *_lines(made, made.knots, "tau"),
        *_lines(made, made.shares, "share"),
        "lower: bound of this point's mean quality alone; quality, USD, shares: means over the sample",
        *_tested(made),
    ]
    return "\n".join(lines)


def _tested(made: CalibrationMap) -> list[str]:
    """Return a line for each tau at which rule `path` was tested."""
    if not made.tested:
        return ["rule path: not tested, the bundle has no path of these candidates"]
    certified = sum(one.status == CERTIFIED for one in made.tested)
    return [
        f"rule path: {certified} of {len(made.tested)} taus certified (risk {made.risk:g} for "
        f"{'all of them together' if made.simultaneous else 'each'})",
        *(
            f"{f'path tau {one.tau:g}':<18} {one.status:<22} "
            f"{f'worth {one.worth:.4g} USD' if one.tau else 'any worth':<26} {one.quality:8.4f} "
            f"{one.quality_lower:8.4f} {1000 * one.cost_usd:9.4f} promised {one.promised:.4f}"
            for one in made.tested
        ),
    ]


def _lines(made: CalibrationMap, knots: Sequence[Knot], name: str) -> list[str]:
    """Return a line a step: neighbouring knots of one status that run one point stand together."""
    steps = [list(same) for _, same in groupby(knots, key=lambda knot: (knot.status, knot.point))]
    return [
        _line(made, step[0], f"{name} {step[0].level:g}" + (f" to {step[-1].level:g}" if len(step) > 1 else ""))
        for step in steps
    ]


def _line(made: CalibrationMap, knot: Knot, promise: str) -> str:
    point = made.points[knot.point]
    runs = f"worth {point.worth:.4g} USD" if point.allowed is None else ", ".join(point.allowed)
    share = point.cost_usd / made.points[0].cost_usd
    return (
        f"{promise:<18} {knot.status:<22} {runs:<26} {point.quality:8.4f} {point.quality_lower:8.4f} "
        f"{1000 * point.cost_usd:9.4f} {share:8.1%} {point.share_best:8.1%}"
    )


def _say(message: str) -> None:
    print(f"ipr calibrate: {message}", file=sys.stderr, flush=True)
