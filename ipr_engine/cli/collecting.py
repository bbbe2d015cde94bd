"""What a collection tells on a terminal: the cost before, the line while it runs, how candidates did (`ipr collect`, `ipr init`)."""

from __future__ import annotations

import os
import shutil
import sys
import time
from typing import Any

from ipr_engine._validate import shown
from ipr_engine.cli.options import GOES_ON
from ipr_engine.cli.text_table import Page, TextTable

EVERY_S = 1.0  # between two states of the line on a terminal
EVERY_S_ELSEWHERE = 30.0
MOST_TASKS_TOLD = 8


class SpendingLine:
    """A `SpendingLine` says on stderr how far the calls of a command are and what they cost, then how far it is with grading."""

    def __init__(self, command: str) -> None:
        self._command = command
        self._terminal = sys.stderr.isatty()
        self._start = self._last = time.monotonic()
        self._shown = False

    def tell(self, done: Any, budget: Any) -> None:
        """Show what is done and spent so far, now and then."""
        if not self._due():
            return
        rate = (done.answered + done.failed) / (self._last - self._start)
        parts = [
            f"{self._command}: {done.answered:,} answers",
            f"USD {budget.charged / 1e9:,.4f} spent",
            f"{budget.reserved / 1e9:,.4f} in flight at most",
            f"{done.failed:,} failed",
            f"{rate:,.1f} a second",
        ]
        self._show(parts)

    def say(self, message: str) -> None:
        """Show what is done besides calls, now and then."""
        if self._due():
            text = f"{self._command}: {message}"
            self._show([text[: max(1, _columns_of_stderr() - 1)] if self._terminal else text])

    def _due(self) -> bool:
        now = time.monotonic()
        if now - self._last < (EVERY_S if self._terminal else EVERY_S_ELSEWHERE):
            return False
        self._last, self._shown = now, True
        return True

    def _show(self, parts: list[str]) -> None:
        if self._terminal:
            # A line that wraps could not be written over, and half a figure would be another one.
            while len(parts) > 1 and len(", ".join(parts)) >= _columns_of_stderr():
                parts.pop()
            sys.stderr.write(f"\r\x1b[K{', '.join(parts)}")
        else:
            sys.stderr.write(f"{', '.join(parts)}\n")
        sys.stderr.flush()

    def end(self) -> None:
        """End the line."""
        if self._shown and self._terminal:
            sys.stderr.write("\n")


def _columns_of_stderr() -> int:
    """Return how wide the terminal is that stderr is shown on: stdout may be a file."""
    try:
        own = os.get_terminal_size(sys.stderr.fileno())
    except (ValueError, OSError):
        own = os.terminal_size((80, 24))
    return shutil.get_terminal_size(own).columns


def collected_facts(made: Any, plan: Any) -> dict[str, Any]:
    """Return what a run did as plain JSON types."""
    done = made.done
    facts: dict[str, Any] = {
        "folder": str(made.folder),
        "prompts": made.taken.prompts,
        "answers_of_logs": made.taken.answers,
        "labels": made.taken.labels,
        "tasks": dict(made.taken.tasks),
        "conversations": made.taken.conversations,
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
                "spent_usd": round(made.spent_by_usd[name], 9),
                "truncated": one.truncated,
                "refused": one.refused,
                "ungraded": one.ungraded,
                "labels": one.labels,
            }
            for name, one in made.candidates.items()
        ]
        facts["label_noise"] = None if made.noise is None else made.noise.to_json()
        facts["judges"] = [
            {"judge": one.name, "spent_usd": round(made.spent_by_usd[one.name], 9)} for one in plan.judges.values()
        ]
    facts["graders"] = [
        {
            "grader": name,
            "graded": one.counts.graded,
            "ungraded": dict(one.counts.reasons),
            "ece": None if one.calibration is None else one.calibration.report.ece,
            "labels": None if one.calibration is None else one.calibration.report.rows,
            "not_calibrated": one.lacking,
        }
        for name, one in made.graders.items()
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
    return {**facts, "notices": notices_of(made, plan)}


def notices_of(made: Any, plan: Any) -> list[str]:
    """Return what whoever reads the result should know."""
    told, done = _of_prompts(made, plan), made.done
    told += [f"{count:,} answers are taken from {folder}" for folder, count in made.copied.items()]
    if made.estimates is not None:
        most = sum(one.most_usd for one in made.estimates.values())
        left = plan.budget_usd - made.spent_usd
        if most > left:
            told.append(
                f"the calls can cost USD {most:.4f} at most and the budget leaves USD {left:.4f}: "
                "it stops before a call that might not fit"
            )
        if plan.acquisition is not None:
            told.append(f"acquisition buys at most {plan.acquisition.calls_share:.0%} of these calls of candidates")
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
            told.append(f"{name}: no answer has a quality, and `ipr train` has nothing to learn of it")
    told += _of_graders(made)
    if plan.samples > 1:
        told += _of_samples(made)
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
            told.append(f"interrupted{GOES_ON}")
    if made.unbilled_usd:
        told.append(
            f"USD {made.unbilled_usd:.4f} is charged at the most for calls that failed or were lost on the way and may be billed"
        )
    return told


def _of_prompts(made: Any, plan: Any) -> list[str]:
    """Return what the plan's prompts lack: answers that can get no quality are paid all the same."""
    taken, told = made.taken, []
    if taken.tasks:
        named = ", ".join(f"{shown(task)} {count:,}" for task, count in taken.tasks.most_common(MOST_TASKS_TOLD))
        more = " ..." if len(taken.tasks) > MOST_TASKS_TOLD else ""
        told.append(
            f"{sum(taken.tasks.values()):,} of {taken.prompts:,} prompts say what they are for: {named}{more}; column task"
        )
    if taken.conversations:
        told.append(
            f"{taken.conversations:,} of {taken.prompts:,} prompts hold several turns of a user, which the tables hold as one text: "
            "so does a bundle of --conversation all encode them"
        )
    told += [
        f"{count:,} labels are of {shown(name)}, which is no candidate of the plan"
        for name, count in taken.strange_labels.most_common(5)
    ]
    told += [
        f"grader {name}: {count:,} of {taken.prompts:,} prompts have no reference, and their answers no grade"
        for name, count in taken.unreferenced.items()
    ]
    if not plan.graders:
        labelled = f"only its {taken.labels:,} labels are outcomes" if taken.labels else "no answer will have a quality"
        told.append(f"the plan has no graders: {labelled} (docs/grading.md)")
    return told


def _of_graders(made: Any) -> list[str]:
    told = []
    for name, one in made.graders.items():
        told += [
            f"grader {name}: {count} answers have no grade: {reason}"
            for reason, count in one.counts.reasons.most_common(5)
        ]
        if one.lacking is not None:
            told.append(
                f"grader {name}: not calibrated, scores of its own are taken as they are and rewards are none: {one.lacking}"
            )
        if one.calibration is not None:
            report = one.calibration.report
            told.append(
                f"grader {name}: calibrated on {report.rows} labels of {report.questions} questions, "
                f"ECE {report.ece:.3f} on labels it had not seen"
            )
    return told


def _of_samples(made: Any) -> list[str]:
    """Return what samples tell of outcomes."""
    if made.noise is None:
        return [
            "label noise: not told, no two prompts have two graded samples of every candidate, or there is one candidate"
        ]
    return [f"label noise: {sentence}" for sentence in made.noise.sentences()]


def print_estimates(facts: dict[str, Any], *, sent: bool = False) -> None:
    """Print what a dry run says. sent: calls follow."""
    table = TextTable(
        f"{facts['prompts']:,} prompts" + ("" if sent else "; nothing is sent"),
        ["candidate", "calls", "settled", "expected USD", "most USD", "spent USD"],
    )
    for one in facts["candidates"]:
        figures = (one["expected_usd"], one["most_usd"], one["spent_usd"])
        table.add(one["candidate"], f"{one['calls']:,}", f"{one['settled']:,}", *(f"{usd:,.4f}" for usd in figures))
    table.caption = "settled: calls that need not be sent, as they have an answer or failed for good"
    names = ("expected_usd", "most_usd", "spent_usd")
    table.add(
        "all",
        *(f"{sum(one[name] for one in facts['candidates']):,}" for name in ("calls", "settled")),
        *(f"{sum(one[name] for one in facts['candidates']):,.4f}" for name in names),
        style="bold",
    )
    Page().table(table)


def print_outcomes(facts: dict[str, Any]) -> None:
    """Print how the candidates did."""
    lost = [name for name in ("truncated", "refused") if any(one[name] for one in facts["candidates"])]
    table = TextTable(
        f"{facts['prompts']:,} prompts, USD {facts['spent_usd']:,.4f} of {facts['budget_usd']:g} spent",
        [
            "candidate",
            "answers",
            "outcomes",
            "mean quality",
            "USD/1k",
            "mean tokens",
            *("cut" if name == "truncated" else name for name in lost),
            "USD spent",
        ],
    )
    for one in facts["candidates"]:
        table.add(
            one["candidate"],
            f"{one['answers']:,}",
            f"{one['outcomes']:,}",
            _figure(one["mean_quality"], ".3f"),
            _figure(None if one["mean_cost_usd"] is None else 1000 * one["mean_cost_usd"], ",.3f"),
            _figure(one["mean_output_tokens"], ",.0f"),
            *(f"{one[name]:,}" for name in lost),
            f"{one['spent_usd']:,.4f}",
        )
    for one in facts["judges"]:
        table.add(one["judge"], *("-" for _ in range(5 + len(lost))), f"{one['spent_usd']:,.4f}")
    table.caption = "USD/1k: per 1,000 answers; tokens: of the output"
    page = Page()
    page.table(table)
    page.text(f"outcome tables: {facts['folder']}")


def _figure(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
