"""The studies' plots follow the style of `ipr eval`: marker and line style tell colours apart as well (Okabe and Ito)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ipr_engine._extras import need_pyplot
from ipr_engine.evaluation.plot_style import BLACK, BLUE, GREEN, GREY, ORANGE, PINK, RED, STYLE
from ipr_engine.measures.resampling import Estimate

# Colour, marker and line of the first, second, ... series of a plot.
SERIES: tuple[dict[str, Any], ...] = (
    {"color": BLUE, "marker": "o", "ls": "-"},
    {"color": RED, "marker": "D", "ls": "--"},
    {"color": GREEN, "marker": "s", "ls": "-."},
    {"color": ORANGE, "marker": "^", "ls": (0, (1, 1))},
    {"color": PINK, "marker": "v", "ls": (0, (5, 1, 1, 1, 1, 1))},
    {"color": BLACK, "marker": "P", "ls": ":"},
)


@dataclass(frozen=True)
class PlotLine:
    """A `PlotLine` is a curve with its band: x, y, low, high, of equal length."""

    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


def intervals(
    path: Path,
    panels: Mapping[str, Mapping[str, Sequence[Estimate]]],
    names: Sequence[str],
    xlabel: str,
    *,
    title: str,
    zero: float | None = None,
    per_row: int = 5,
) -> Path:
    """Draw dots with intervals: a panel a source, a row a name, a colour a series; `zero` draws a line there.

    Args:
        panels: {panel: {series: one figure a name}}; every panel has the same series.
    """
    columns = min(per_row, len(panels))
    rows = -(-len(panels) // columns)
    size = (3.1 * columns + 2.6, rows * (0.46 * len(names) + 1.0) + 1.5)
    with saved_figure(path, (rows, columns), size, sharey=True) as (figure, grid):
        for axes, (panel, series) in zip(grid.flat, panels.items(), strict=False):
            _dots(axes, series)
            if zero is not None:
                axes.axvline(zero, color=GREY, lw=1, ls=":", zorder=0)
            axes.set_title(panel, loc="left", fontsize=12)
            axes.grid(axis="y", visible=False)
            axes.locator_params(axis="x", nbins=5)
        for axes in grid.flat[len(panels) :]:
            axes.set_visible(False)
        grid[0][0].set_yticks(range(len(names)), list(reversed(names)))
        figure.suptitle(title, x=0.01, ha="left", fontsize=13)
        legend_below(figure, grid[0][0], xlabel)
    return path


def _dots(axes: Any, series: Mapping[str, Sequence[Estimate]]) -> None:
    """Draw series beside each other around each name, the first name on top."""
    places = np.linspace(0.25, -0.25, len(series)) if len(series) > 1 else [0.0]
    for style, place, (label, figures) in zip(SERIES, places, series.items(), strict=False):
        for row, figure in enumerate(figures):
            y = len(figures) - 1 - row + place
            axes.plot([figure.low, figure.high], [y, y], color=style["color"], lw=1.6)
            axes.plot(
                figure.value, y, style["marker"], color=style["color"], ms=6, label=None if row else label, ls="none"
            )


def curves(
    path: Path,
    panels: Mapping[str, Mapping[str, Mapping[str, PlotLine]]],
    xlabel: str,
    *,
    title: str,
    log: bool = True,
) -> Path:
    """Draw lines with bands: a column a source, a row a measure, a colour a series; x on a log scale with a tick a point unless
    `log` is false.

    Args:
        panels: {source: {measure: {series: line}}}; every source has the same measures and series.
    """
    measures = list(next(iter(panels.values())))
    with saved_figure(path, (len(measures), len(panels)), (3.9 * len(panels), 3.1 * len(measures) + 1.2)) as (
        figure,
        grid,
    ):
        for column, (source, rows) in enumerate(panels.items()):
            for row, (measure, lines) in enumerate(rows.items()):
                axes = grid[row][column]
                for number, (label, line) in enumerate(lines.items()):
                    style = SERIES[number]
                    axes.fill_between(line.x, line.low, line.high, color=style["color"], alpha=0.12, lw=0)
                    axes.plot(line.x, line.y, label=label, ms=5, lw=1.8, **style)
                if log:
                    axes.set_xscale("log")
                    ticks = list(next(iter(lines.values())).x)
                    axes.set_xticks(ticks, [f"{tick:,.0f}" for tick in ticks], fontsize=9)
                    axes.minorticks_off()
                if row == 0:
                    axes.set_title(source, loc="left", fontsize=12)
                if column == 0:
                    axes.set_ylabel(measure)
        figure.suptitle(title, x=0.01, ha="left", fontsize=13)
        legend_below(figure, grid[0][0], xlabel)
    return path


@contextmanager
def saved_figure(
    path: Path, shape: tuple[int, int], size: tuple[float, float], **options: Any
) -> Iterator[tuple[Any, Any]]:
    """Open a figure and its (rows, columns) of axes, saved at the end."""
    pyplot = need_pyplot()
    path.parent.mkdir(parents=True, exist_ok=True)
    with pyplot.rc_context(STYLE):
        figure, grid = pyplot.subplots(*shape, figsize=size, layout="constrained", squeeze=False, **options)
        yield figure, grid
        figure.savefig(path, metadata={"Software": None})
        pyplot.close(figure)


def legend_below(figure: Any, axes: Any, title: str) -> None:
    """Put the names of the series below all panels, under the label of their common x axis."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=len(handles), fontsize=11, title=title, title_fontsize=12
    )


def band(values: Sequence[float]) -> tuple[float, float, float]:
    """Return mean, least and greatest."""
    array = np.asarray(values, np.float64)
    return float(array.mean()), float(array.min()), float(array.max())
