"""This file draws mean quality over mean USD of routers with and without a check, a panel a case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ipr_engine.evaluation.plot_style import BLACK, BLUE, GREEN, GREY, ORANGE
from ipr_engine.measures.routing import SHARE, SHARES
from studies.answer_checks import GRADED, READ
from studies.check_cases import ALONE, HULL, CheckCase
from studies.plots import saved_figure

STYLES: Mapping[str, dict[str, Any]] = {
    HULL: {"color": GREY, "ls": ":", "lw": 1.8},
    ALONE: {"color": BLUE, "ls": "-", "lw": 3.6},
    GRADED: {"color": GREEN, "ls": "-", "lw": 2.2},
    READ: {"color": ORANGE, "ls": "--", "lw": 2.2},
}
LABELS = {
    HULL: "mix of single models, drawn blindly",
    ALONE: "router alone",
    GRADED: "router with plans: ask, ask another by whether the first abstains (as graded)",
    READ: "the same, abstentions read off the text",
}


def plot_checks(path: Path, panels: Mapping[str, CheckCase], title: str) -> Path:
    """Draw a panel a case: single candidates, curves, and what 98 % of the best single one's quality costs.

    Args:
        panels: {heading: case}.
    """
    with saved_figure(path, (1, len(panels)), (6.6 * len(panels), 5.9)) as (figure, grid):
        for axes, (heading, case) in zip(grid[0], panels.items(), strict=True):
            _panel(axes, case)
            axes.set_title(heading, loc="left", fontsize=12.5)
            axes.set_xlabel("USD per 1,000 questions")
        grid[0][0].set_ylabel("mean quality")
        figure.suptitle(title, x=0.01, ha="left", fontsize=14.5)
        handles, labels = grid[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=11.5)
    return path


def _panel(axes: Any, case: CheckCase) -> None:
    singles, axis = case.measured.singles, case.measured.axis
    dear, best = 1000 * singles.cost[0, axis.best], singles.quality[0, axis.best]
    lines = [case.line(name) for name in STYLES]
    for line in lines:
        axes.plot(1000 * line.curve.cost[0], line.curve.quality[0], label=LABELS[line.name], **STYLES[line.name])
    for m, name in enumerate(case.answers.models):
        x, y = 1000 * singles.cost[0, m], singles.quality[0, m]
        axes.plot(x, y, "o", color=BLACK, ms=6, zorder=5)
        far = x > 1000 * singles.cost[0].max() * 0.8
        place: dict[str, Any] = (
            {"ha": "right", "xytext": (0, 9)} if far else {"ha": "left", "xytext": (9, -17 if m == 0 else -34)}
        )
        axes.annotate(name, (x, y), textcoords="offset points", fontsize=10, **place)
    level = SHARE * best
    axes.axhline(level, color=GREY, lw=1, ls=(0, (2, 2)), zorder=0)
    marks = [(line, dear * line.costs[SHARES.index(SHARE), 0]) for line in lines if line.name in (ALONE, GRADED)]
    for line, cost in marks:
        axes.plot(cost, level, "D", color=STYLES[line.name]["color"], ms=9, zorder=6)
    (_, alone), (_, checked) = marks
    less = 1 - checked / alone
    verdict = f"{less:.0%} less" if less >= 0.005 else "nothing saved"
    axes.text(
        0.98,
        0.40,
        f"98 % of the best single model's\nquality, per 1,000 questions:\n{alone:.2f} USD by the router alone\n"
        f"{checked:.2f} USD with plans: {verdict}",
        transform=axes.transAxes,
        ha="right",
        va="top",
        fontsize=12,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8},
    )
    _limits(axes, case, lines)


def _limits(axes: Any, case: CheckCase, lines: Sequence[Any]) -> None:
    """Show from nothing to a little beyond the dearest candidate that is worth its price, with a margin."""
    singles, axis = case.measured.singles, case.measured.axis
    top = max(float(np.max(line.curve.quality[0])) for line in lines)
    low = float(singles.quality[0].min())
    axes.set_xlim(0, 1000 * 1.08 * float(singles.cost[0].max()))
    axes.set_ylim(low - 0.12 * (top - low), top + 0.1 * (top - low))
    axes.axvline(1000 * singles.cost[0, axis.best], color=GREY, lw=0.6, ls=":", zorder=0)
