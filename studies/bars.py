"""`intervals` draws figures with their intervals, a row each: the picture of a table of differences. It needs the extra `[eval]`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ipr_engine._extras import need_pyplot
from ipr_engine.evaluation.plot_style import BLUE, GREEN, GREY, ORANGE, PINK, RED, STYLE
from ipr_engine.measures.resampling import Estimate

COLOURS = (BLUE, RED, GREEN, ORANGE, PINK)
MARKERS = ("D", "o", "s", "^", "v")
APART = 0.16  # of a row, between the series in it


@dataclass(frozen=True)
class Series:
    """A `Series` is one mark a row.

    Attributes:
        name: in the legend. values: by row; a row it lacks stays empty.
    """

    name: str
    values: Mapping[str, Estimate]


def intervals(
    path: Path,
    rows: Sequence[str],
    series: Sequence[Series],
    *,
    title: str,
    axis: str,
    lines: Sequence[float] = (0.0,),
    limits: tuple[float, float] | None = None,
) -> Path:
    """Draw marks with their 95 % intervals, rows from the top down.

    Args:
        axis: what is measured. lines: values worth a vertical line. limits: cut the axis; a cut interval gets an arrow.
    """
    pyplot = need_pyplot()
    path.parent.mkdir(parents=True, exist_ok=True)
    with pyplot.rc_context(STYLE):
        height = (0.26 + APART * len(series)) * len(rows) + 2.0
        width = 8.5 + 0.075 * max(len(row) for row in rows)  # inches; names need room beside the marks
        figure, axes = pyplot.subplots(figsize=(width, height), layout="constrained")
        for value in lines:
            axes.axvline(value, color=GREY, lw=1, ls=":", zorder=0)
        for s, one in enumerate(series):
            named = one.name
            for r, row in enumerate(rows):
                if row not in one.values:
                    continue
                value, low, high, _ = one.values[row]
                at = r + APART * (s - (len(series) - 1) / 2)
                colour = COLOURS[s % len(COLOURS)]
                axes.plot([low, high], [at, at], color=colour, lw=1.8)
                axes.plot(value, at, MARKERS[s % len(MARKERS)], color=colour, ms=6.5, label=named)
                named = "_" + one.name  # once in the legend
                for end, bound, arrow in () if limits is None else ((low, limits[0], "<"), (high, limits[1], ">")):
                    if (end < bound) if arrow == "<" else (end > bound):
                        axes.plot(bound, at, arrow, color=colour, ms=6, clip_on=False)
        if limits is not None:
            axes.set_xlim(*limits)
        axes.set_yticks(range(len(rows)), rows)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(axis)
        figure.suptitle(title, x=0.01, ha="left", fontsize=13)
        if len(series) > 1:
            figure.legend(loc="outside lower right", ncols=len(series), fontsize=10.5)
        figure.savefig(path, metadata={"Software": None})
        pyplot.close(figure)
    return path
