"""This module draws the plots of the study of performance: answers with their lines, and the trade over the weight on seconds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ipr_engine.evaluation.plot_style import BLUE, RED
from ipr_engine.performance import TimingFit
from studies.performance_answers import RatedAnswers
from studies.performance_trade import ASKED, MEASURES, WEIGHTS, Trade
from studies.plots import SERIES, legend_below, saved_figure


def plot_answers(path: Path, answers: RatedAnswers, timing: Sequence[TimingFit]) -> Path:
    """Draw a panel a model: its answers and its line."""
    columns = min(3, len(answers.models))
    rows = -(-len(answers.models) // columns)
    with saved_figure(path, (rows, columns), (3.9 * columns, 2.7 * rows + 0.9)) as (figure, grid):
        for m, (axes, fit) in enumerate(zip(grid.flat, timing, strict=False)):
            tokens, seconds = answers.output_tokens[:, m], answers.seconds[:, m]
            axes.plot(tokens, seconds, "o", color=BLUE, ms=4, alpha=0.6)
            ends = np.array([0.0, np.nanmax(tokens)])
            axes.plot(ends, fit.ttft_s.value + fit.tpot_s.value * ends, color=RED, lw=1.8)
            axes.set_title(answers.models[m], loc="left", fontsize=11)
            axes.set_xlim(left=0)
            axes.set_ylim(bottom=0)
        for axes in grid.flat[len(answers.models) :]:
            axes.set_visible(False)
        figure.supxlabel("output tokens", fontsize=12)
        figure.supylabel("seconds of the whole answer", fontsize=12)
        figure.suptitle("Seconds over output tokens", x=0.01, ha="left", fontsize=13)
    return path


def plot_trade(path: Path, trade: Trade) -> Path:
    """Draw a column a set of candidates, a row a measure, a line a way to ask."""
    sets = list(dict.fromkeys(key[0] for key in trade.lines))
    with saved_figure(path, (len(MEASURES), len(sets)), (5.2 * len(sets), 2.7 * len(MEASURES) + 1.2)) as (figure, grid):
        for column, name in enumerate(sets):
            for row, part in enumerate(("quality", "usd", "seconds")):
                axes = grid[row][column]
                for style, asked in zip(SERIES, ASKED, strict=False):
                    points = [getattr(point, part) for point in trade.lines[name, asked]]
                    axes.fill_between(
                        WEIGHTS,
                        [p.low for p in points],
                        [p.high for p in points],
                        color=style["color"],
                        alpha=0.1,
                        lw=0,
                    )
                    axes.plot(WEIGHTS, [p.value for p in points], label=asked, ms=5, lw=1.8, **style)
                axes.set_xscale("symlog", linthresh=1e-5, linscale=0.5)
                axes.set_xticks([0, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1], ["0", "1e-5", "1e-4", "0.001", "0.01", "0.1", "1"])
                axes.set_ylim(bottom=0)
                if row == 0:
                    axes.set_title(f"candidates: {name}", loc="left", fontsize=12)
                if column == 0:
                    axes.set_ylabel(MEASURES[row])
        figure.suptitle("What weighing seconds buys (realised)", x=0.01, ha="left", fontsize=13)
        legend_below(figure, grid[0][0], "weight on seconds, USD per second (95 % bootstrap bands)")
    return path
