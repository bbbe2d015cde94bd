"""This file draws quality over cost: a curve for each contender, a named dot for each candidate alone, the line of equal quality."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine._extras import need
from ipr_engine.evaluation.equal_quality import lines_at
from ipr_engine.evaluation.equal_quality_text import QUOTED, percent, whole
from ipr_engine.evaluation.plot_style import (
    BLACK,
    BLUE,
    BROWN,
    GREEN,
    GREY,
    INDIGO,
    OLIVE,
    ORANGE,
    PINK,
    RED,
    SKY,
    WINE,
    log_cost_axis,
    short_name,
)
from ipr_engine.evaluation.summary import Summary
from ipr_engine.measures.routing import Curve

# Where a dot's name may stand, in points from the dot; the first that fits best is taken.
OFFSETS = (
    (8, 6), (8, -14), (-8, 6), (-8, -14), (0, 12), (0, -20), (14, 24), (-14, 24), (14, -32), (-14, -32),
    (0, 34), (0, -34), (0, -44), (-60, -62), (30, 44), (-30, 44), (30, -54), (-30, -54),
)  # fmt: skip


STEPS = 40  # of each piece of a curve
LINES: dict[str, dict[str, Any]] = {
    "router, worth": {"color": BLUE, "lw": 2.8, "zorder": 6},
    "router, minmax": {"color": RED, "lw": 2.2, "zorder": 5},
    "kNN, worth": {"color": GREEN, "lw": 1.6, "ls": "--"},
    "k-means, worth": {"color": PINK, "lw": 1.6, "ls": "-."},
    "ridge, worth": {"color": ORANGE, "lw": 1.6, "ls": (0, (1, 1))},
    "hull of singles": {"color": BLACK, "lw": 1.4, "ls": ":"},
    "hindsight hull": {"color": GREY, "lw": 1.2, "ls": (0, (1, 3))},
    "oracle": {"color": GREY, "lw": 1.6, "ls": (0, (6, 2))},
}


# Of other routers, in turn; no colour of LINES. A marker each, since some have one setting alone: 30 pairs before one comes again.
OTHER_COLOURS, MARKERS = (WINE, SKY, OLIVE, INDIGO, BROWN), ("^", "v", "P", "X", "*", "d")
OTHER_LINES: tuple[dict[str, Any], ...] = tuple(
    {"color": colour, "lw": 1.2, "marker": marker, "ms": 5, "markevery": 4 * STEPS}
    for colour, marker in zip(6 * OTHER_COLOURS, 5 * MARKERS, strict=True)
)

Array = npt.NDArray[np.float64]


def quality_cost(pyplot: Any, summary: Summary, title: str) -> Any:
    """Draw curves of realised quality over cost, single candidates as labelled dots, the oracle above, and the line of equal quality."""
    others = [c["name"] for c in summary.figures["contenders"] if c["kind"] == "other router"]
    figure, axes = pyplot.subplots(figsize=(14, 6.8), layout="constrained")
    singles = summary.singles
    for name, style in {**LINES, **dict(zip(others, cycle(OTHER_LINES)))}.items():
        curve = summary.curves.get(name)
        if curve is not None:
            # Dense: between two of its points a curve is straight in USD, and on the log scale it is not.
            line = _dense(np.stack([1000 * curve.cost[0], 100 * curve.quality[0]], axis=1), steps=STEPS)
            alone = {"ms": 9, "zorder": 7} if curve.points == 1 and name in others else {}
            axes.plot(*line.T, label=_label(summary, name), **style | alone)
    main = next((n for n in ("router, worth", "router, minmax") if n in summary.curves), None)
    if main is not None and len(singles.cost) > 1:
        cost, low, high = _band(summary.curves[main])
        axes.fill_between(
            1000 * cost,
            100 * low,
            100 * high,
            color=LINES[main]["color"],
            alpha=0.13,
            lw=0,
            label=f"95 % interval of {main}",
        )
    cost, quality = 1000 * singles.cost[0], 100 * singles.quality[0]
    axes.scatter(cost, quality, s=46, color="white", edgecolor=BLACK, zorder=7, label="one candidate alone")
    ends_are = "cheapest and best single" + ("" if "cross_fit" in summary.figures else ", of train")
    ends = [summary.axis.cheapest, summary.axis.best]
    axes.scatter(cost[ends], quality[ends], s=46, color=BLACK, zorder=7.5, label=ends_are)
    unit = "mean cost, USD per 1,000 prompts"
    # Beyond a factor of 15 the cheap candidates would lie on one another.
    if cost.min() > 0 and cost.max() / cost.min() > 15:
        unit += " (log scale; areas are taken on the linear one)"
        log_cost_axis(axes)
    axes.margins(x=0.09)  # room for the names of the dearest
    axes.set_xlabel(f"{unit}\nbetter: up and to the left")
    axes.set_ylabel("mean quality, % of the maximum")
    figure.suptitle(title, x=0.01, ha="left", fontsize=13)
    axes.legend(fontsize=10, loc="upper left", bbox_to_anchor=(1, 1))  # beside the curves, which may run anywhere
    _place_names(
        figure, axes, cost, quality, [short_name(n) for n in summary.models], _mark_equal_quality(axes, summary)
    )
    return figure


def _mark_equal_quality(axes: Any, summary: Summary) -> list[Any]:
    """Draw the line of QUOTED of the best single candidate's quality, and what the router saves at the quality that it kept.

    What it saves is told above the axes; returned is the text within them, if any.
    """
    section = summary.figures["equal_quality"]
    own = lines_at(section, QUOTED).get(section["router"])
    if section["reason"] is not None or own is None or not (whole(own["cost"]) and whole(own["kept"])):
        return []
    effects = need("matplotlib.patheffects", "plots", "eval")
    best, share, name = summary.axis.best, f"{100 * QUOTED:g} %", short_name(section["best"])
    full, dear = 100 * summary.singles.quality[0, best], 1000 * summary.singles.cost[0, best]
    level, kept = QUOTED * full, own["kept"]["value"] * full
    axes.axhline(level, color=GREY, lw=1.0, ls=(0, (5, 3)), zorder=1)
    # Its shaft is a line too: names keep off lines.
    shaft = np.linspace(dear, own["cost"]["value"] * dear, 10 * STEPS)
    axes.plot(shaft, np.full_like(shaft, kept), color=BLUE, lw=2.0, zorder=7)
    arrow = {"arrowstyle": "-|>", "color": BLUE, "lw": 2.0, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", xy=(own["cost"]["value"] * dear, kept), xytext=(dear, kept), arrowprops=arrow, zorder=7)
    line = axes.annotate(
        f"{share} of the best single",
        (0.01, level),
        xycoords=("axes fraction", "data"),
        xytext=(0, 3),
        textcoords="offset points",
        color=GREY,
        fontsize=9,
        path_effects=[effects.withStroke(linewidth=3, foreground="white")],
    )
    axes.set_title(
        f"asked for {share} of the quality of {name}, the router kept {percent(own['kept'])},\n"
        f"and costs {percent(own['cost'])} of {name} alone",
        loc="left",
        color=BLUE,
        fontsize=11.5,
    )
    return [line]


def _label(summary: Summary, name: str) -> str:
    """Return the name of a contender with its area."""
    line = next(c for c in summary.figures["contenders"] if c["name"] == name)
    area = line["area"]["value"]
    return short_name(name) if area is None else f"{short_name(name)}  (area {area:.2f})"


def _band(curve: Curve, points: int = 80) -> tuple[Array, Array, Array]:
    """Return the 95 % band of quality at given cost, over the cost that the sample's curve spans."""
    # At given cost: the draws' curves have their points at different costs.
    cost = np.geomspace(max(curve.cost[0].min(), 1e-12), max(curve.cost[0].max(), 2e-12), points)
    levels = []
    for c, q in zip(curve.cost[1:], curve.quality[1:], strict=True):
        order = np.argsort(c, kind="stable")
        levels.append(np.interp(cost, c[order], q[order]))
    low, high = np.percentile(levels, [2.5, 97.5], axis=0)
    return cost, low, high


def _place_names(figure: Any, axes: Any, x: Array, y: Array, names: Sequence[str], texts: Sequence[Any]) -> None:
    """Name every dot where its name covers no other name, dot or text and as little of the curves as can be."""
    effects = need("matplotlib.patheffects", "plots", "eval")
    figure.canvas.draw()  # places the legend, and with it the pixels that a name must not cover
    dots = axes.transData.transform(np.stack([x, y], axis=1))
    frame = axes.get_window_extent()
    taken: list[Any] = [one.get_window_extent() for one in (axes.get_legend(), *texts)]
    # Close enough that a name cannot slip between two of them: curves are dense as they are drawn.
    drawn = np.concatenate([axes.transData.transform(line.get_xydata()) for line in axes.get_lines()])
    # From the best candidate down: whoever comes first finds the places free.
    for m in np.argsort(-y):
        best: tuple[float, Any, Any] | None = None
        for dx, dy in OFFSETS:
            side = "left" if dx > 0 else "right" if dx < 0 else "center"
            text = axes.annotate(
                names[m],
                (x[m], y[m]),
                xytext=(dx, dy),
                textcoords="offset points",
                ha=side,
                fontsize=9,
                zorder=8,
                path_effects=[effects.withStroke(linewidth=3, foreground="white")],
                arrowprops={"arrowstyle": "-", "lw": 0.6, "color": GREY} if abs(dy) > 20 else None,
            )
            box = text.get_window_extent(figure.canvas.get_renderer())
            inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
            covered = sum(box.overlaps(other) for other in taken)
            covered += sum(box.contains(*dot) for i, dot in enumerate(dots) if i != m)
            crossed = ((drawn > [box.x0, box.y0]) & (drawn < [box.x1, box.y1])).all(axis=1).sum()
            # In this order: inside the frame, off other names and dots, off the curves, near the dot.
            penalty = 1e6 * (not inside) + 1e4 * covered + crossed + 0.1 * abs(dy)
            if best is None or penalty < best[0]:
                if best is not None:
                    best[1].remove()
                best = (penalty, text, box)
            else:
                text.remove()
        assert best is not None
        taken.append(best[2])


def _dense(points: Array, steps: int) -> Array:
    """Return points along a polyline (points, 2) in its order, `steps` on each of its pieces."""
    if len(points) < 2:
        return points
    part = np.linspace(0, 1, steps)[None, :, None]
    return np.asarray(((1 - part) * points[:-1, None] + part * points[1:, None]).reshape(-1, 2))
