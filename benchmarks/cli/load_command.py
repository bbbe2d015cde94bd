"""`ipr bench load` measures one case, several side by side, a ladder, or the most a target bears."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ipr_engine._files import writable_file
from ipr_engine.cli.options import load_engine, load_keywords
from ipr_engine.cli.text_table import PIPED, Page
from ipr_engine.engine import Engine
from ipr_engine.errors import InvalidInputError

from ..load import compare, report, slo
from ..load.arrivals import KINDS, at_least_one, duration, positive
from ..load.attribution import attribute
from ..load.curves import check_available, latency_over_quantile
from ..load.ladder import MOST_AT_ONCE
from ..load.measure import LoadCase, Measured, measure
from ..load.samples import TOTAL
from ..load.targets import Target, is_async
from ..load.targets_registry import TARGETS, make_target
from ..peers.registry import PEERS, Setup, open_peers
from .ladder_tables import run_ladder, run_saturation
from .options import (
    EXIT_CODES,
    MISSED,
    UNTOLD,
    Prepared,
    Reporter,
    add_shared_options,
    command_line,
    limits_of,
    prepare,
    settings_of,
    split_targets,
)


def add_parser(benches: Any) -> None:
    parser = benches.add_parser(
        "load",
        help="latency under a closed or an open loop, objectives, comparisons, ladders",
        description="Latency from the intended send time and of the call alone, per stage, with 95 % intervals. Without --rate the loop is "
        "closed: --callers send their next request when they have their answer. With --rate it is open: a schedule made before the run.",
        epilog=EXIT_CODES,
    )
    add_shared_options(parser)
    group = parser.add_argument_group("load")
    group.add_argument(
        "--callers", type=int, help="closed loop: callers; open: served at once at most (default 1; async 10,000)"
    )
    group.add_argument("--rate", type=float, metavar="N", help="open loop: requests a second")
    group.add_argument("--arrivals", choices=KINDS, default="poisson", help="of an open loop (default poisson)")
    group.add_argument("--burst", type=int, default=32, metavar="N", help="requests of a burst (default 32)")
    group.add_argument("--seconds", type=float, default=5.0, help="measured, of each target or step (default 5)")
    group.add_argument(
        "--warm-up", type=float, default=1.0, metavar="S", help="the same load before, not counted (default 1)"
    )
    group = parser.add_argument_group("verdicts")
    group.add_argument(
        "--slo",
        action="append",
        default=[],
        metavar="[STAGE.]pQ=TIME",
        help="an objective, e.g. p99=5ms; a,b or repeat",
    )
    group.add_argument(
        "--compare", type=Path, metavar="FILE", help="recorded runs of the same case: slower than they were?"
    )
    group.add_argument(
        "--against",
        metavar="WHAT=X",
        help="in turns with target=NAME, isa=NAME, bundle=PATH ...: are we slower than that?",
    )
    group.add_argument("--record", type=Path, metavar="FILE", help="append the run to FILE, for --compare")
    group = parser.add_argument_group("more")
    names = ", ".join(peer.name for peer in PEERS)
    group.add_argument(
        "--peers", action="append", metavar="NAME", help=f"other routers in turns with the target: {names}, or all"
    )
    group.add_argument("--peer-encoder", type=Path, metavar="DIR", help="transformers folder of the peers' encoder")
    group.add_argument(
        "--ladder", action="store_true", help="1, 8, 20, 32, 128 callers x 64, 512 tokens (--lengths others)"
    )
    group.add_argument("--saturate", action="store_true", help="find the most, then open loops at shares of it")
    group.add_argument(
        "--plot", type=Path, metavar="PNG", help="latency over quantile, or over throughput (extra [bench])"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    slos = slo.parse_slos(arguments.slo)
    _check(arguments)
    recorded = None if arguments.compare is None else report.read(arguments.compare, "--compare")
    prepared = prepare(arguments)
    case = _case(arguments, prepared)
    reporter = Reporter("load", quiet=arguments.quiet)
    if recorded is not None:
        recorded = report.same_case({"target": prepared.target.name, "case": case.to_dict()}, recorded, "--compare")
    if arguments.ladder:
        return run_ladder(arguments, prepared, case, reporter)
    if arguments.saturate:
        return run_saturation(arguments, prepared, case, reporter)
    targets, settings, absent = _targets(arguments, prepared)
    for name, why in absent.items():
        reporter.say(f"peer {name}: {why}")
    splits = split_targets(prepared)
    results = measure(targets, case, settings=settings, splits=splits, progress=reporter)
    if not results:
        reporter.say("interrupted before anything was measured")
        return 130
    return _report(arguments, results, slos, recorded, absent)


def _check(arguments: argparse.Namespace) -> None:
    duration("--seconds", arguments.seconds)
    if arguments.warm_up:
        duration("--warm-up", arguments.warm_up)
    if arguments.callers is not None:
        at_least_one("--callers", arguments.callers)
    at_least_one("--burst", arguments.burst)
    if arguments.rate is not None:
        positive("--rate", arguments.rate)
    elif arguments.arrivals != "poisson":
        raise InvalidInputError(f"--arrivals: {arguments.arrivals} needs --rate, requests a second")
    stepped = "--ladder" if arguments.ladder else "--saturate" if arguments.saturate else None
    if arguments.ladder and arguments.saturate:
        raise InvalidInputError("--ladder: give either --ladder or --saturate")
    if stepped is not None:
        for option in ("slo", "compare", "against", "record", "rate", "peers"):
            if getattr(arguments, option):
                raise InvalidInputError(f"--{option}: is of one case; leave it out with {stepped}")
    if arguments.against is not None and arguments.peers:
        raise InvalidInputError("--peers: give either --against or --peers, so that each turn has one meaning")
    if arguments.record is not None:
        writable_file(arguments.record, "--record")
    if arguments.plot is not None:
        writable_file(arguments.plot, "--plot", suffix=".png")
        check_available()


def _case(arguments: argparse.Namespace, prepared: Prepared) -> LoadCase:
    usual = MOST_AT_ONCE if arguments.rate is not None and is_async(prepared.target) else 1
    return LoadCase(
        mix=prepared.mix,
        mode="closed" if arguments.rate is None else "open",
        callers=arguments.callers or usual,
        seconds=arguments.seconds,
        warm_up=arguments.warm_up,
        seed=arguments.seed,
        arrivals=arguments.arrivals,
        rate=arguments.rate,
        burst=arguments.burst,
    )


def _targets(
    arguments: argparse.Namespace, prepared: Prepared
) -> tuple[list[Target], list[dict[str, Any]], dict[str, str]]:
    targets: list[Target] = [prepared.target]
    settings = [prepared.settings]
    if arguments.against is not None:
        other, its_settings = _other(arguments, prepared)
        return [*targets, other], [*settings, its_settings], {}
    if not arguments.peers:
        return targets, settings, {}
    asked = [name.strip() for item in arguments.peers for name in item.split(",")]
    setup = Setup(prepared.engine, prepared.policy, prepared.mix.prompts, arguments.peer_encoder)
    peers, absent = open_peers(asked, setup)
    differs = {peer.name: peer.differs for peer in PEERS}
    return [*targets, *peers], [*settings, *({"differs": differs[peer.name]} for peer in peers)], absent


def _other(arguments: argparse.Namespace, prepared: Prepared) -> tuple[Target, dict[str, Any]]:
    """Return the reference of --against, called by what sets it apart."""
    what, _, value = arguments.against.partition("=")
    loads = [name for name in ("isa", "bundle", "tier", "device") if hasattr(arguments, name)]
    if not value or not (what in loads or (what == "target" and value in TARGETS)):
        raise InvalidInputError(
            f"--against: expected target=NAME ({', '.join(TARGETS)}), or another {', '.join(f'{name}=X' for name in loads)}, got "
            f"{arguments.against!r}"
        )
    engine, policy = prepared.engine, prepared.policy
    if what != "target":
        other = argparse.Namespace(**{**vars(arguments), what: value})
        # another bundle may leave unheeded what the first one heeds
        engine = load_engine(other, Engine) if what != "bundle" else Engine.load(other.bundle, **load_keywords(other))
        policy = engine.policy(tau=arguments.tau)
    target = make_target(value if what == "target" else arguments.target, engine, policy, limits_of(arguments))
    if is_async(target) != is_async(prepared.target) and arguments.rate is not None and arguments.callers is None:
        raise InvalidInputError(
            "--callers: needed where one target is async and the other is not; say how many are served at once"
        )
    target.name = f"{target.name} [{arguments.against}]"
    return target, settings_of(engine, policy)


def _report(
    arguments: argparse.Namespace,
    results: list[Measured],
    slos: tuple[slo.Slo, ...],
    recorded: list[dict[str, Any]] | None,
    absent: dict[str, str],
) -> int:
    ours = results[0]
    command = command_line(arguments)
    documents = [report.document(one, command) for one in results]
    judgements = [slo.judge(one, ours.stages) for one in slos]
    causes = [
        attribute(one, ours.parts(), ours.run.measured.total, ours.split, ours.counted_at(one.slo.level))
        if one.slo.stage == TOTAL and one.verdict == slo.MISSED
        else None
        for one in judgements
    ]
    fixed = ours.case.mode == "open"
    comparisons = [
        compare.paired(ours.subruns(), other.subruns(), other.target.name, fixed_rate=fixed) for other in results[1:]
    ]
    if recorded is not None:
        comparisons.append(compare.unpaired(documents[0], recorded))
    if arguments.record is not None:
        report.append(arguments.record, documents)
    if arguments.plot is not None:
        curves = {one.target.name: (one.run.measured.total, one.run.measured.service) for one in results}
        limits = [(one.level, one.limit_ns) for one in slos if one.stage == TOTAL]
        title = f"{report.case_text(documents[0])}\n{documents[0]['machine']}"
        latency_over_quantile(curves, arguments.plot, title, limits=limits)
    code = _code(ours, judgements, comparisons if arguments.peers is None else comparisons[len(results) - 1 :])
    if arguments.json:
        judged = [
            one.to_dict() | ({} if found is None else {"blame": found.to_dict()})
            for one, found in zip(judgements, causes, strict=True)
        ]
        print(json.dumps({"runs": documents, "slo": judged, "compare": [one.to_dict() for one in comparisons],
                          "peers_absent": absent, "exit_code": code}, allow_nan=False))  # fmt: skip
        return code
    page = Page(narrowest=PIPED)
    page.table(report.table(ours))
    if len(results) > 1:
        page.table(report.side_by_side(results))
    for line in _lines(ours, results, absent, comparisons):
        print(line)
    for one, found in zip(judgements, causes, strict=True):
        print(str(one) + ("" if found is None else f"\n  {found}"))
    return code


def _lines(
    ours: Measured, results: list[Measured], absent: dict[str, str], comparisons: list[compare.Comparison]
) -> list[str]:
    lines = [f"{one.target.name}: {one.settings['differs']}" for one in results[1:] if "differs" in one.settings]
    lines += [f"peer {name}: {why}" for name, why in absent.items()]
    for comparison in comparisons:
        kind = "in turns with" if comparison.paired else "against the recorded run of"
        lines.append(f"{ours.target.name} {kind} {comparison.against}: {comparison.verdict}")
        lines += [f"  {line}" for line in (*comparison.changes, *comparison.caveats)]
    return lines


def _code(ours: Measured, judgements: list[slo.Judgement], comparisons: list[compare.Comparison]) -> int:
    verdicts = [one.verdict for one in judgements]
    changes = [one.verdict for one in comparisons]
    if slo.MISSED in verdicts or compare.SLOWER in changes:
        return MISSED
    if ours.run.stopped == "interrupted":
        return 130
    return UNTOLD if slo.UNTOLD in verdicts or {compare.UNTOLD, compare.INCOMPARABLE} & set(changes) else 0
