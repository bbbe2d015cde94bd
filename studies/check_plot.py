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
    ALONE: {"color": BLUE, "ls": "-", "lw": 2.2},
    GRADED: {"color": GREEN, "ls": "-", "lw": 2.2},
    READ: {"color": ORANGE, "ls": "--", "lw": 2.2},
}
LABELS = {
    HULL: "mix of single models, drawn blindly",
    ALONE: "router alone",
    GRADED: "router with plans: ask, and ask another by whether it abstains (as graded)",
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
        figure.suptitle(title, x=0.01, ha="left", fontsize=14.5, fontweight="bold")
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
        shown = {"xytext": (8, -13), "textcoords": "offset points", "fontsize": 10}
        axes.annotate(name.removeprefix("claude-"), (x, y), **shown)
    level = SHARE * best
    axes.axhline(level, color=GREY, lw=1, ls=(0, (2, 2)), zorder=0)
    marks = [(line, dear * line.costs[SHARES.index(SHARE), 0]) for line in lines if line.name in (ALONE, GRADED)]
    for line, cost in marks:
        axes.plot(cost, level, "D", color=STYLES[line.name]["color"], ms=9, zorder=6)
    (_, alone), (_, checked) = marks
    axes.annotate(
        f"98 % of the best single model's quality:\n{alone:.2f} USD alone, {checked:.2f} with plans",
        (min(alone, checked), level),
        xytext=(0.03, 0.97),
        textcoords="axes fraction",
        va="top",
        fontsize=11,
        arrowprops={"arrowstyle": "-", "color": GREY, "lw": 0.8},
    )
    _limits(axes, case, lines)


def _limits(axes: Any, case: CheckCase, lines: Sequence[Any]) -> None:
    """Show from nothing to a little beyond the dearest candidate that is worth its price, with room for the text above."""
    singles, axis = case.measured.singles, case.measured.axis
    top = max(float(np.max(line.curve.quality[0])) for line in lines)
    low = float(singles.quality[0].min())
    axes.set_xlim(0, 1000 * 1.18 * float(singles.cost[0].max()))
    axes.set_ylim(low - 0.12 * (top - low), top + 0.3 * (top - low))
    axes.axvline(1000 * singles.cost[0, axis.best], color=GREY, lw=0.6, ls=":", zorder=0)
