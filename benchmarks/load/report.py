"""A report is a measurement as JSON, one object a run, and as a table; recorded runs are read back here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ipr_engine.cli.text_table import TextTable
from ipr_engine.errors import InvalidInputError

from ..harness import results
from ..harness.machine import machine
from .measure import Measured
from .noise import unsteady
from .quantiles import LEVELS, Quantile, level_name, quantiles
from .slo import duration_text

SCHEMA_VERSION = 2  # 1 left answers to requests of the warm-up out of the throughput, though not their time
BEHIND = "BEHIND: not all that arrived was answered in time; the latencies are those of a backlog, and grow with the run's length"
CASE_KEYS = ("mode", "callers", "arrivals", "rate", "burst", "mix", "seed")  # runs that agree in these are of one case


def document(measured: Measured, command: str) -> dict[str, Any]:
    """Return all of a run, in plain JSON types."""
    run = measured.run
    warm = run.warm_up
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "load",
        "target": measured.target.name,
        "settings": dict(measured.settings),
        "case": measured.case.to_dict(),
        "requests": len(run.measured),
        "answers": run.answers,
        "seconds": round(run.seconds, 3),
        "throughput_rps": round(run.throughput, 2),
        "kept_up": run.kept_up,
        "quantiles": {
            stage: {q.name: q.to_dict() for q in quantiles(values)} for stage, values in run.measured.by_stage().items()
        },
        "stages_apart": {stage: {q.name: q.to_dict() for q in quantiles(v)} for stage, v in measured.split.items()},
        "stages_counted": {
            stage: {level_name(level): measured.counted_at(level)[stage] for level in LEVELS}
            for stage in measured.counted
        },
        "warm_up": {
            "requests": len(warm),
            **asdict(run.lost_in_warm_up),
            "p50_us": round(float(np.median(warm.total)) / 1e3, 3) if len(warm) else None,
            "longest_us": round(float(warm.total.max()) / 1e3, 3) if len(warm) else None,
        },
        "errors": dict(run.errors),
        **asdict(run.lost),
        "stopped": run.stopped,
        "turns": len(measured.rounds),
        "subruns": measured.subruns(),
        "harness": {q.name: q.to_dict() for q in measured.floor},
        "noise": measured.noise,
        **machine(),
        "command": command,
    }


def table(measured: Measured) -> TextTable:
    """Return stages in rows, quantiles with their intervals in columns."""
    run, case = measured.run, measured.case
    shape = (
        f"closed loop, {case.callers} caller(s)"
        if case.mode == "closed"
        else f"open loop, {case.arrivals} at {case.rate:,.0f}/s, at most {case.callers} at once"
    )
    settings = ", ".join(f"{name} {value}" for name, value in measured.settings.items())
    rows = TextTable(
        f"{run.target}: {run.throughput:,.0f} answers/s, {shape}, {case.mix.label}"
        + (f"\n{settings}" if settings else ""),
        ["stage", *map(level_name, LEVELS)],
    )
    for stage, values in run.measured.by_stage().items():
        rows.add(stage, *(_cell(q) for q in quantiles(values)), style="bold" if stage == "total" else "")
    for stage, values in measured.split.items():
        rows.add(f"{stage} (apart)", *(_cell(q) for q in quantiles(values)), style="dim")
    for stage in measured.counted:
        cells = (f"<= {duration_text(1e3 * measured.counted_at(level)[stage])}" for level in LEVELS)
        rows.add(f"{stage} (counted)", *cells, style="dim")
    rows.add("harness alone", *(_cell(q) for q in measured.floor), style="dim")
    rows.caption = "\n".join(notes(measured))
    return rows


def side_by_side(results: Sequence[Measured]) -> TextTable:
    """Return targets that took turns, a row each."""
    totals = (f"total {level_name(level)}" for level in LEVELS[:3])
    rows = TextTable("in turns, the same load", ["target", "answers/s", *totals, "service p50", "not served"])
    for one in results:
        run = one.run
        lost = run.lost.count
        rows.add(
            run.target,
            f"{run.throughput:,.0f}",
            *(_cell(q) for q in quantiles(run.measured.total, LEVELS[:3])),
            duration_text(float(np.median(run.measured.service))),
            f"{lost:,}" if lost else "-",
        )
    return rows


def notes(measured: Measured) -> list[str]:
    run = measured.run
    warm = run.warm_up
    lines = ["total: from the intended send time; service: the call alone; queue: between them; [95 % interval]"]
    if measured.split:
        lines.append("apart: in a pass of its own, one caller, each stage a call of its own")
    if measured.counted:
        lines.append("counted: by the target's own counters, warm-up included, up to a quarter too high")
    before = f"{duration_text(float(np.median(warm.total)))} p50" if len(warm) else "none"
    lines.append(
        f"{len(run.measured):,} requests; {run.answers:,} answers in {run.seconds:.3g} s; in the warm-up, not counted, "
        f"{len(warm):,} requests ({before})"
    )
    for when, lost in (("", run.lost), ("in the warm-up ", run.lost_in_warm_up)):
        if lost.count:
            lines.append(f"{when}failed {lost.failed:,}, rejected {lost.rejected:,}, not sent {lost.unsent:,}")
    lines += [f"  {count:,} x {text}" for text, count in run.errors.most_common(3)]
    if run.kept_up is False:
        lines.append(BEHIND)
    if run.stopped:
        lines.append(f"ended early: {run.stopped}")
    noise = measured.noise
    lines.append(
        f"machine: load {noise['load_1m']:g} on {noise['cores']} cores, spin p99 {noise['after']['spin_p99_ratio']:.2f} of its median, "
        f"{noise['involuntary_switches_per_s']:g} involuntary switches/s, steal {noise['steal_share'] or 0:.2%}"
    )
    return lines + [f"NOISY: {reason}" for reason in unsteady(noise)]


def _cell(q: Quantile) -> str:
    if q.value is None or q.low is None or q.high is None:
        return f"needs {q.needed:,}"
    return f"{duration_text(q.value)} [{duration_text(q.low)}, {duration_text(q.high)}]"


def append(path: Path, documents: Sequence[Mapping[str, Any]]) -> None:
    try:
        results.append(path, documents)
    except OSError as error:
        raise InvalidInputError(f"--record: cannot write {path}: {error.strerror}") from None


def read(path: Path, option: str) -> list[dict[str, Any]]:
    """Read recorded runs of a file.

    Raises:
        InvalidInputError: it cannot be read, or a line is no run of a known version.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{option}: cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
    runs = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InvalidInputError(
                f"{option}: {path}, line {number}: expected one JSON object a line, got {error}"
            ) from None
        if not isinstance(found, dict) or found.get("kind") != "load" or found.get("schema_version") != SCHEMA_VERSION:
            raise InvalidInputError(
                f"{option}: {path}, line {number}: expected a run that `ipr bench load --record` wrote, schema_version "
                f"{SCHEMA_VERSION}; version 1 counted throughput otherwise: record it anew"
            )
        missing = [
            key for key in ("target", "case", "settings", "subruns", "noise", "machine", "date") if key not in found
        ]
        if missing:
            raise InvalidInputError(f"{option}: {path}, line {number}: the run lacks {', '.join(missing)}")
        runs.append(found)
    if not runs:
        raise InvalidInputError(f"{option}: {path}: expected recorded runs, one a line, got none")
    return runs


def same_case(one: Mapping[str, Any], runs: Sequence[dict[str, Any]], option: str) -> list[dict[str, Any]]:
    """Return the recorded runs of the same target under the same load; the error lists what there is instead."""
    key = case_key(one)
    found = [run for run in runs if case_key(run) == key]
    if not found:
        there = "; ".join(sorted({case_text(run) for run in runs}))
        raise InvalidInputError(f"{option}: no recorded run of this case ({case_text(one)}); there are: {there}")
    return found


def case_key(one: Mapping[str, Any]) -> tuple[Any, ...]:
    return one["target"], *(one["case"].get(name) for name in CASE_KEYS)


def case_text(one: Mapping[str, Any]) -> str:
    case = one["case"]
    shape = f"{case['arrivals']} at {case['rate']:g}/s" if case["mode"] == "open" else "closed loop"
    return f"{one['target']}, {shape}, {case['callers']} caller(s), {case['mix']}, seed {case['seed']}"
