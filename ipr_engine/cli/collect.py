"""`ipr collect` asks every candidate of a plan, grades the answers, and writes outcome tables; what it may spend is the plan's."""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

from ipr_engine.cli.text_table import Page, TextTable
from ipr_engine.errors import InvalidInputError

EVERY_S = 1.0  # between two states of the line on a terminal
EVERY_S_ELSEWHERE = 30.0


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "collect",
        help="ask candidates, grade their answers, write outcome tables (extra [collect])",
        description="Ask every candidate of a plan all its prompts, grade the answers and write the outcome tables that `ipr train` takes "
        "(docs/collecting.md). Every call is noted in a ledger beside them: the same command goes on where it stopped, and pays for "
        "nothing twice. No more is spent than the plan's budget_usd.",
    )
    parser.add_argument("plan", metavar="PLAN", help="YAML: prompts, candidates, providers, budget_usd, graders")
    parser.add_argument(
        "--dry-run", action="store_true", help="say what is still to be asked and what it costs; send nothing"
    )
    parser.add_argument(
        "--no-ask",
        action="store_true",
        help="send nothing: grade and write what the ledger has, after an edit of the plan, say",
    )
    parser.add_argument(
        "--retry-failed",
        action="store_true",
        help="send again what a provider called a wrong request; what failed otherwise always is",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from ipr_engine.collection.collect import CollectOptions, collect
    from ipr_engine.collection.collection_plan import read_plan
    from ipr_engine.collection.sources import read_prompts

    if arguments.dry_run and arguments.no_ask:
        raise InvalidInputError("--no-ask: stands beside --dry-run, which sends nothing either; give one of them")
    plan = read_plan(arguments.plan)
    options = CollectOptions(
        dry_run=arguments.dry_run, retry_failed=arguments.retry_failed, ask=not (arguments.dry_run or arguments.no_ask)
    )
    line = _Line()
    try:
        made = collect(plan, read_prompts(plan), options, tell=line.tell)
    finally:
        line.end()
    facts = _facts(made, plan)
    if arguments.json:
        print(json.dumps(facts))
    elif made.estimates is not None:
        _print_estimates(facts)
    else:
        _print_outcomes(facts)
    for notice in facts["notices"]:
        print(f"ipr collect: {notice}", file=sys.stderr)
    done = made.done
    return 3 if done is not None and (done.failed or done.stopped or done.overrun or done.interrupted) else 0


class _Line:
    """The line on stderr that says how far the calls are."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._start = self._last = time.monotonic()
        self._shown = False

    def tell(self, done: Any, budget: Any) -> None:
        now = time.monotonic()
        if now - self._last < (EVERY_S if self._terminal else EVERY_S_ELSEWHERE):
            return
        self._last, self._shown = now, True
        rate = (done.answered + done.failed) / (now - self._start)
        text = f"ipr collect: {done.answered:,} answers, {done.failed:,} failed, {rate:,.1f} a second, "
        text += f"USD {budget.charged / 1e9:,.4f} spent, {budget.reserved / 1e9:,.4f} in flight at most"
        sys.stderr.write(f"\r\x1b[K{text}" if self._terminal else f"{text}\n")
        sys.stderr.flush()

    def end(self) -> None:
        if self._shown and self._terminal:
            sys.stderr.write("\n")


def _facts(made: Any, plan: Any) -> dict[str, Any]:
    """Return what a run did as plain JSON types."""
    done = made.done
    facts: dict[str, Any] = {
        "folder": str(made.folder),
        "prompts": made.taken.prompts,
        "answers_of_logs": made.taken.answers,
        "labels": made.taken.labels,
        "budget_usd": plan.budget_usd,
        "spent_usd": round(made.spent_usd, 9),
        "charged_without_an_answer_usd": round(made.unbilled_usd, 9),
    }
    if made.estimates is not None:
        facts["candidates"] = [
            {
                "candidate": name,
                "calls": one.calls,
                "settled": one.settled,
                "expected_usd": round(one.expected_usd, 9),
                "most_usd": round(one.most_usd, 9),
                "mean_output_tokens": one.mean_output_tokens,
                "spent_usd": round(one.spent_usd, 9),
            }
            for name, one in made.estimates.items()
        ]
    else:
        facts["candidates"] = [
            {
                "candidate": name,
                "answers": one.answers,
                "outcomes": one.outcomes,
                "mean_quality": one.mean_quality,
                "mean_cost_usd": one.mean_cost_usd,
                "mean_output_tokens": one.mean_output_tokens,
                "truncated": one.truncated,
                "refused": one.refused,
                "ungraded": one.ungraded,
                "labels": one.labels,
            }
            for name, one in made.candidates.items()
        ]
    if done is not None:
        facts["calls"] = {
            "answered": done.answered,
            "failed": done.failed,
            "retried": done.retried,
            "reasons": [
                {"candidate": candidate, "reason": reason, "calls": count}
                for (candidate, reason), count in done.reasons.most_common()
            ],
            "stopped": dict(done.stopped),
            "budget_spent": done.budget_spent,
            "overrun": done.overrun,
            "interrupted": done.interrupted,
        }
    return {**facts, "notices": _notices(made, plan)}


def _notices(made: Any, plan: Any) -> list[str]:
    """Return what whoever reads the result should know."""
    told, done = [], made.done
    if made.estimates is not None:
        most = sum(one.most_usd for one in made.estimates.values())
        left = plan.budget_usd - made.spent_usd
        if most > left:
            told.append(
                f"the calls can cost USD {most:.4f} at most and the budget leaves USD {left:.4f}: "
                "it stops before a call that might not fit"
            )
        if any(one.calls and one.mean_output_tokens is None for one in made.estimates.values()):
            told.append("expected costs of candidates without answers so far count every answer at max_tokens")
        return told
    for name, one in made.candidates.items():
        if one.truncated and plan.truncated == "missing":
            told.append(
                f"{name}: {one.truncated} of {one.answers} answers were cut at max_tokens and have no outcome; raise its max_tokens, "
                "or say `truncated: graded` if your router cuts answers there too"
            )
        if one.ungraded:
            told.append(f"{name}: {one.ungraded} of {one.answers} answers could not be graded")
        if one.answers and not one.outcomes:
            told.append(
                f"{name}: no answer has a quality; name graders in the plan, or give labels (docs/collecting.md)"
            )
    if done is not None:
        told += [f"{name} was asked no more: {why}" for name, why in done.stopped.items()]
        told += [f"{name}: {count} calls failed: {reason}" for (name, reason), count in done.reasons.most_common(10)]
        if done.budget_spent:
            told.append(
                f"the budget of USD {plan.budget_usd:g} is spent; raise budget_usd and give the same command to go on"
            )
        if done.overrun:
            told.append(f"stopped: {done.overrun}")
        if done.interrupted:
            told.append("interrupted; the same command goes on where it stopped")
    if made.unbilled_usd:
        told.append(
            f"USD {made.unbilled_usd:.4f} is charged at the most for calls that failed or were lost on the way and may be billed"
        )
    return told


def _print_estimates(facts: dict[str, Any]) -> None:
    table = TextTable(
        f"{facts['prompts']:,} prompts; nothing is sent",
        ["candidate", "calls", "settled", "expected USD", "most USD", "spent USD"],
    )
    for one in facts["candidates"]:
        figures = (one["expected_usd"], one["most_usd"], one["spent_usd"])
        table.add(one["candidate"], f"{one['calls']:,}", f"{one['settled']:,}", *(f"{usd:,.4f}" for usd in figures))
    names = ("expected_usd", "most_usd", "spent_usd")
    table.add(
        "all",
        *(f"{sum(one[name] for one in facts['candidates']):,}" for name in ("calls", "settled")),
        *(f"{sum(one[name] for one in facts['candidates']):,.4f}" for name in names),
        style="bold",
    )
    Page().table(table)


def _print_outcomes(facts: dict[str, Any]) -> None:
    table = TextTable(
        f"{facts['prompts']:,} prompts, USD {facts['spent_usd']:,.4f} of {facts['budget_usd']:g} spent",
        ["candidate", "answers", "outcomes", "mean quality", "USD an answer", "output tokens", "cut", "refused"],
    )
    for one in facts["candidates"]:
        table.add(
            one["candidate"],
            f"{one['answers']:,}",
            f"{one['outcomes']:,}",
            _figure(one["mean_quality"], ".3f"),
            _figure(one["mean_cost_usd"], ".6f"),
            _figure(one["mean_output_tokens"], ",.0f"),
            f"{one['truncated']:,}",
            f"{one['refused']:,}",
        )
    page = Page()
    page.table(table)
    page.text(facts["folder"])


def _figure(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
