"""`ipr bench soak` makes a long run at a share of the most, then at twice the most."""

from __future__ import annotations

import argparse
import json
from typing import Any

from ..harness.machine import machine
from ..load import ladder
from ..load.arrivals import at_least_one, duration, positive
from ..load.measure import LoadCase
from ..load.noise import Noise, unsteady
from ..load.report import SCHEMA_VERSION
from ..load.slo import duration_text
from ..load.soak import FLAT_MB_PER_HOUR, OVERLOAD, OVERLOAD_P99, Soak, soak
from .options import EXIT_CODES, MISSED, UNTOLD, Reporter, add_shared_options, command_line, prepare, share

SEARCH_S = 1.0  # of each step of the search for the most
OVERLOAD_SHARE = 0.2  # of the soak's time, at most a minute
MOST_OVERLOAD_S = 60.0


def add_parser(benches: Any) -> None:
    parser = benches.add_parser(
        "soak",
        help="memory, errors and drops over minutes at a share of the most, then overload",
        description="Find the most that an open loop of the target sustains, offer a share of it for --minutes "
        "(Poisson arrivals), and then twice the most. Memory is flat when its slope's 95 % interval ends below "
        f"{FLAT_MB_PER_HOUR:g} MB an hour. Ctrl-C ends it with the report so far.",
        epilog=EXIT_CODES,
    )
    add_shared_options(parser)
    parser.add_argument("--minutes", type=float, default=10.0, help="of the soak (default 10)")
    parser.add_argument("--load", type=float, default=0.7, help="share of the most (default 0.7)")
    parser.add_argument("--rate", type=float, metavar="N", help="requests a second, instead of a share of the most")
    parser.add_argument(
        "--callers", type=int, help="served at once at most (default: as the search found; async 10,000)"
    )
    parser.add_argument("--no-overload", action="store_true", help="leave out the second part")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    seconds = duration("--minutes", positive("--minutes", arguments.minutes) * 60)
    load = share("--load", arguments.load, 1.0)
    if arguments.rate is not None:
        positive("--rate", arguments.rate)
    if arguments.callers is not None:
        at_least_one("--callers", arguments.callers)
    prepared = prepare(arguments)
    reporter = Reporter("soak", quiet=arguments.quiet)
    case = LoadCase(mix=prepared.mix, mode="closed", callers=1, seconds=SEARCH_S, warm_up=0.2, seed=arguments.seed)
    closed = ladder.most(prepared.target, case, reporter)
    if not closed or closed[-1].run.stopped == "interrupted":
        reporter.say("interrupted in the search for the most")
        return 130
    top = ladder.best(closed)
    at_once = arguments.callers or ladder.at_once(prepared.target, top)
    tried = ladder.sustained(prepared.target, case, top, reporter, callers=at_once)
    if not tried or tried[-1].run.stopped == "interrupted":
        reporter.say("interrupted in the search for the most")
        return 130
    most = ladder.sustained_rate(tried)
    rate = arguments.rate or load * most
    reporter.say(
        f"the most: {most:,.0f}/s sustained in an open loop ({top.run.throughput:,.0f}/s with {top.callers} caller(s) in a closed "
        f"one); {rate:,.0f}/s for {seconds:g} s"
    )
    case = LoadCase(
        mix=prepared.mix, mode="open", callers=at_once, seconds=seconds, warm_up=1.0, seed=arguments.seed, rate=rate
    )
    overload = None
    with Noise() as noise:
        steady = soak(prepared.target, case, rate=rate, most=most, seconds=seconds, progress=reporter)
        if steady.stopped != "interrupted" and not arguments.no_overload:
            reporter.say(f"overload: {OVERLOAD * most:,.0f}/s")
            short = min(MOST_OVERLOAD_S, OVERLOAD_SHARE * seconds)
            overload = soak(prepared.target, case, rate=OVERLOAD * most, most=most, seconds=short, progress=reporter)
    return _report(arguments, prepared.settings, steady, overload, noise.to_dict())


def judge_soak(steady: Soak, overload: Soak | None) -> tuple[dict[str, Any], int]:
    slope = steady.slope
    memory = "cannot tell" if slope is None else slope.verdict
    verdicts: dict[str, Any] = {
        "memory": memory,
        "errors": "none" if not steady.lost.failed else f"{steady.lost.failed:,}",
        "schedule": "kept up with" if not steady.behind else f"behind in {steady.behind} of {len(steady.rows)} windows",
        "drops": "none"
        if not steady.lost.rejected + steady.lost.unsent
        else f"{steady.lost.rejected + steady.lost.unsent:,}",
    }
    code = MISSED if memory == "grows" or steady.lost.count or 2 * steady.behind > len(steady.rows) else 0
    if overload is not None and overload.rows:
        before, during = steady.p99_us, overload.p99_us
        verdicts["overload_refused"] = overload.lost.rejected
        verdicts["overload_errors"] = overload.lost.failed
        if before is None or during is None:
            verdicts["overload_p99"] = "cannot tell"
        else:
            kept = during <= OVERLOAD_P99 * before
            verdicts["overload_p99"] = f"{during / before:.3g} times the p99 before ({'kept' if kept else 'not kept'})"
            if (
                not overload.lost.rejected and not overload.lost.failed
            ):  # such a target waits for its callers: no bound, no promise of p99
                verdicts["overload_p99"] += "; not judged: this target refuses nothing"
            else:
                code = code or (0 if kept and not overload.lost.failed else MISSED)
    if not code and "cannot tell" in verdicts.values():
        code = UNTOLD
    return verdicts, 130 if steady.stopped == "interrupted" and not code else code


def _report(
    arguments: argparse.Namespace, settings: dict[str, Any], steady: Soak, overload: Soak | None, noise: dict[str, Any]
) -> int:
    verdicts, code = judge_soak(steady, overload)
    if arguments.json:
        document = {"schema_version": SCHEMA_VERSION, "kind": "soak", "settings": settings, "soak": steady.to_dict(),
                    "overload": None if overload is None else overload.to_dict(), "verdicts": verdicts, "noise": noise,
                    **machine(), "command": command_line(arguments), "exit_code": code}  # fmt: skip
        print(json.dumps(document, allow_nan=False))
        return code
    print(f"{steady.target}, {', '.join(f'{name} {value}' for name, value in settings.items())}")
    for name, part in (("soak", steady), ("overload", overload)):
        if part is not None:
            print(_text(name, part))
    if overload is not None and overload.rows and not overload.lost.rejected:
        print("nothing was refused: as called here this target has no bound, and overload makes its callers wait")
    for name, verdict in verdicts.items():
        print(f"{name.replace('_', ' ')}: {verdict}")
    for reason in unsteady(noise):
        print(f"NOISY: {reason}")
    return code


def _text(name: str, part: Soak) -> str:
    p99 = "-" if part.p99_us is None else duration_text(1e3 * part.p99_us)
    slope = part.slope
    lines = [
        f"{name}: {part.rate:,.0f}/s offered ({part.rate / part.most:.0%} of the most), {part.answered:,} answered in {len(part.rows)} "
        f"windows, p99 {p99} (median over windows); failed {part.lost.failed:,}, "
        f"rejected {part.lost.rejected:,}, not sent {part.lost.unsent:,}"
    ]
    if part.rss:
        slope_text = "too few windows for a slope" if slope is None else (
            f"slope {slope.mb_per_hour:+.2f} MB/hour [{slope.low:+.2f}, {slope.high:+.2f}]"
        )  # fmt: skip
        lines.append(f"  memory: {part.rss[0][1]:.1f} to {part.rss[-1][1]:.1f} MB resident, {slope_text}")
    lines += [f"  {count:,} x {text}" for text, count in part.errors.most_common(5)]
    if part.stopped:
        lines.append(f"  ended early: {part.stopped}")
    return "\n".join(lines)
