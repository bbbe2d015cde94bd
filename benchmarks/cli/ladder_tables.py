"""This module shows the steps of `ipr bench load --ladder` and `--saturate` as tables, JSON and a plot."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

from ipr_engine.cli.text_table import PIPED, Page, TextTable

from ..harness.machine import machine
from ..load import ladder
from ..load.curves import latency_over_throughput
from ..load.lengths import fixed_lengths
from ..load.measure import LoadCase
from ..load.noise import Noise, unsteady
from ..load.quantiles import Quantile
from ..load.report import SCHEMA_VERSION
from ..load.slo import duration_text
from .options import Prepared, Reporter, command_line, whole_numbers

SHOWN = ("p50", "p90", "p99", "p99.9")


def run_ladder(arguments: argparse.Namespace, prepared: Prepared, case: LoadCase, reporter: Reporter) -> int:
    lengths = list(ladder.LENGTHS) if arguments.lengths is None else whole_numbers("--lengths", arguments.lengths)
    count = prepared.engine.encoder.count_tokens
    mixes = [(length, fixed_lengths([length], count, seed=arguments.seed)) for length in lengths]
    with Noise() as noise:
        steps = ladder.concurrency(prepared.target, mixes, case, reporter)
    series = {f"{length} tokens": [step for step in steps if step.tokens == length] for length in lengths}
    extra: dict[str, Any] = {"published": list(ladder.PUBLISHED)}
    return _report(arguments, prepared, "ladder", series, noise.to_dict(), extra, "closed loop; marks: callers")


def run_saturation(arguments: argparse.Namespace, prepared: Prepared, case: LoadCase, reporter: Reporter) -> int:
    with Noise() as noise:
        series = {"closed loop": ladder.most(prepared.target, case, reporter)}
        extra = _open_loops(prepared, case, reporter, series) if series["closed loop"] else {}
    return _report(
        arguments, prepared, "saturation", series, noise.to_dict(), extra, "marks: callers, or share of the most"
    )


def _open_loops(
    prepared: Prepared, case: LoadCase, reporter: Reporter, series: dict[str, list[ladder.Step]]
) -> dict[str, Any]:
    """Add the search for the most that an open loop sustains, and shares of it; return the most for the report."""
    top = ladder.best(series["closed loop"])
    callers = ladder.at_once(prepared.target, top)
    series["search, open loop"] = tried = ladder.sustained(prepared.target, case, top, reporter)
    if not tried:
        return {}
    most = ladder.sustained_rate(tried)
    reporter.say(f"the most: {most:,.0f}/s sustained in an open loop")
    if tried[-1].run.stopped != "interrupted":
        series["open loop"] = ladder.shares(prepared.target, case, most, callers, reporter)
    return {
        "most": {
            "sustained_rps": round(most, 2),
            "kept_up": any(step.run.kept_up for step in tried),
            "callers": callers,
            "closed_loop_rps": round(top.run.throughput, 2),
            "closed_loop_callers": top.callers,
        }
    }


def _report(
    arguments: argparse.Namespace,
    prepared: Prepared,
    kind: str,
    series: dict[str, list[ladder.Step]],
    noise: dict[str, Any],
    extra: dict[str, Any],
    note: str,
) -> int:
    steps = [step for one in series.values() for step in one]
    if not steps:
        return 130
    code = 130 if any(step.run.stopped == "interrupted" for step in steps) else 0
    title = f"{prepared.target.name}, {', '.join(f'{name} {value}' for name, value in prepared.settings.items())}\n{machine()['machine']}"
    if arguments.plot is not None:
        drawn = {
            name: [step.to_dict() for step in one]
            for name, one in series.items()
            if one and not name.startswith("search")
        }
        latency_over_throughput(drawn, arguments.plot, title, note)
    if arguments.json:
        document = {"schema_version": SCHEMA_VERSION, "kind": kind, "target": prepared.target.name, "settings": prepared.settings,
                    "steps": {name: [step.to_dict() for step in one] for name, one in series.items()}, **extra,
                    "noise": noise, **machine(), "command": command_line(arguments)}  # fmt: skip
        print(json.dumps(document, allow_nan=False))
        return code
    page = Page(narrowest=PIPED)
    for name, one in series.items():
        if one:
            page.table(_table(f"{prepared.target.name}, {name}", one))
    if "most" in extra:
        most = extra["most"]
        page.text(
            f"the most: {most['sustained_rps']:,.0f} arrivals/s in an open loop"
            + ("" if most["kept_up"] else " (it kept up with none of the rates tried)")
            + f"; {most['closed_loop_rps']:,.0f} answers/s with {most['closed_loop_callers']} caller(s) in a closed one"
        )
    if "published" in extra:
        page.text("published elsewhere, on other machines, with other models:")
        for row in extra["published"]:
            page.text(
                f"  {row['system']} on {row['machine']}: {row['callers']} x {row['tokens']} tokens: {row['latency']}"
            )
    for reason in unsteady(noise):
        page.text(f"NOISY: {reason}")
    return code


def _table(title: str, steps: Sequence[ladder.Step]) -> TextTable:
    totals = (f"total {name}" for name in SHOWN)
    rows = TextTable(title, ["step", "offered/s", "answers/s", *totals, "service p50", "not served"])
    for step in steps:
        found = step.to_dict()
        lost = found["failed"] + found["rejected"] + found["unsent"]
        rows.add(
            step.label,
            "-" if step.offered is None else f"{step.offered:,.0f}",
            f"{step.run.throughput:,.0f}",
            *(_cell(q) for q in step.quantiles),
            "-" if found["service"]["p50"]["us"] is None else duration_text(1e3 * found["service"]["p50"]["us"]),
            f"{lost:,}" if lost else "-",
        )
    return rows


def _cell(q: Quantile) -> str:
    return f"needs {q.needed:,}" if q.value is None else duration_text(q.value)
