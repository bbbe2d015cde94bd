"""Plots for a talk, as PNG: what tau promises, quality against cost, areas, reliability, what support says. Extra `[eval]`.

Lines are told apart by colour, style and marker; every axis says its unit.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine._extras import need, need_pyplot
from ipr_engine.evaluation.plot_promised import promised
from ipr_engine.evaluation.plot_style import BLACK, BLUE, GREEN, GREY, ORANGE, PINK, RED, SKY, STYLE
from ipr_engine.evaluation.plot_support import support
from ipr_engine.evaluation.summary import Summary
from ipr_engine.measures import prediction
from ipr_engine.measures.routing import Curve
from ipr_engine.measures.sweeps import TAUS

Array = npt.NDArray[np.float64]

# Where a dot's name may stand, in points from the dot; the first that fits best is taken.
OFFSETS = (
    (8, 6), (8, -14), (-8, 6), (-8, -14), (0, 12), (0, -20), (14, 24), (-14, 24), (14, -32), (-14, -32),
    (0, 34), (0, -34), (0, -44), (-60, -62), (30, 44), (-30, 44), (30, -54), (-30, -54),
)  # fmt: skip
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


def draw_all(summary: Summary, out: Path, title: str) -> list[Path]:
    """Write every plot below `out` and return the paths."""
    pyplot = need_pyplot()
    out.mkdir(parents=True, exist_ok=True)
    paths = []
    with pyplot.rc_context(STYLE):
        for name, draw in (
            ("path", promised),
            ("quality_cost", quality_cost),
            ("areas", areas),
            ("reliability", reliability),
            ("tau", tau),
            ("support", support),
        ):
            if name in ("tau", "support") and not summary.figures.get(name):
                continue
            if name == "path" and not summary.figures.get("path", {}).get("taus"):
                continue
            figure = draw(pyplot, summary, title)
            paths.append(out / f"{name}.png")
            figure.savefig(paths[-1], metadata={"Software": None})
            pyplot.close(figure)
    return paths


def quality_cost(pyplot: Any, summary: Summary, title: str) -> Any:
    """Curves of realised quality over cost, single candidates as labelled dots, the oracle above."""
    figure, axes = pyplot.subplots(figsize=(11, 6.6), layout="constrained")
    singles = summary.singles
    for name, style in LINES.items():
        curve = summary.curves.get(name)
        if curve is not None:
            axes.plot(1000 * curve.cost[0], 100 * curve.quality[0], label=_label(summary, name), **style)
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
    ends = [summary.axis.cheapest, summary.axis.best]
    axes.scatter(cost[ends], quality[ends], s=46, color=BLACK, zorder=7.5, label="cheapest and best single, of train")
    unit = "mean cost, USD per 1,000 prompts"
    if cost.min() > 0 and cost.max() / cost.min() > 15:
        unit += " (log scale; areas are taken on the linear one)"
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.margins(x=0.09)  # room for the names of the dearest
    axes.set_xlabel(unit)
    axes.set_ylabel("mean quality, % of the maximum")
    axes.set_title(title, loc="left", fontsize=13)
    axes.legend(loc="lower right", fontsize=10)
    _place_names(figure, axes, cost, quality, summary.models)
    axes.text(0.01, 0.985, "better: up and to the left", transform=axes.transAxes, va="top", color=GREY, fontsize=10.5)
    return figure


def _label(summary: Summary, name: str) -> str:
    line = next(c for c in summary.figures["contenders"] if c["name"] == name)
    area = line["area"]["value"]
    return name if area is None else f"{name}  (area {area:.2f})"


def _band(curve: Curve, points: int = 80) -> tuple[Array, Array, Array]:
    """95 % band of quality at given cost, over the cost the sample's curve spans."""
    cost = np.geomspace(max(curve.cost[0].min(), 1e-12), max(curve.cost[0].max(), 2e-12), points)
    levels = []
    for c, q in zip(curve.cost[1:], curve.quality[1:], strict=True):
        order = np.argsort(c, kind="stable")
        levels.append(np.interp(cost, c[order], q[order]))
    low, high = np.percentile(levels, [2.5, 97.5], axis=0)
    return cost, low, high


def _place_names(figure: Any, axes: Any, x: Array, y: Array, names: Sequence[str]) -> None:
    """Name every dot where its name covers no other name or dot and as little of the curves as can be."""
    effects = need("matplotlib.patheffects", "plots", "eval")
    figure.canvas.draw()
    dots = axes.transData.transform(np.stack([x, y], axis=1))
    frame = axes.get_window_extent()
    taken: list[Any] = [axes.get_legend().get_window_extent()]
    drawn = np.concatenate([_dense(axes.transData.transform(line.get_xydata())) for line in axes.get_lines()])
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
            penalty = 1e6 * (not inside) + 1e4 * covered + crossed + 0.1 * abs(dy)
            if best is None or penalty < best[0]:
                if best is not None:
                    best[1].remove()
                best = (penalty, text, box)
            else:
                text.remove()
        assert best is not None
        taken.append(best[2])


def _dense(points: Array, steps: int = 12) -> Array:
    """Points along a polyline (points, 2), close enough that a name cannot slip between two of them."""
    if len(points) < 2:
        return points
    part = np.linspace(0, 1, steps)[:, None, None]
    return np.asarray(((1 - part) * points[:-1] + part * points[1:]).reshape(-1, 2))


def areas(pyplot: Any, summary: Summary, title: str) -> Any:
    """Bounded-ARQGC of every contender with its interval; the router's above the rest by colour, not by place."""
    lines = [c for c in summary.figures["contenders"] if c["area"]["value"] is not None and c["name"] != "oracle"]
    lines.sort(key=lambda c: c["area"]["value"])
    figure, axes = pyplot.subplots(figsize=(10, 0.38 * len(lines) + 1.6), layout="constrained")
    for i, line in enumerate(lines):
        value, low, high = (line["area"][k] for k in ("value", "low", "high"))
        colour = {"router": BLUE, "baseline": BLACK, "bound": GREY}[line["kind"]]
        marker = {"router": "D", "baseline": "o", "bound": "s"}[line["kind"]]
        if low is not None:
            axes.plot([low, high], [i, i], color=colour, lw=2 if line["kind"] == "router" else 1.2)
        axes.plot(value, i, marker, color=colour, ms=7)
    axes.axvline(0.5, color=GREY, lw=1, ls=":", zorder=0)
    axes.axvline(1.0, color=GREY, lw=1, ls=":", zorder=0)
    axes.set_yticks(range(len(lines)), [line["name"] for line in lines])
    for label, line in zip(axes.get_yticklabels(), lines, strict=True):
        if line["kind"] == "router":
            label.set_fontweight("bold")
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(
        "Bounded-ARQGC, with 95 % bootstrap intervals\n0.5 = random mix, 1 = best single's quality at every cost"
    )
    axes.set_title(title, loc="left", fontsize=13)
    return figure


def reliability(pyplot: Any, summary: Summary, title: str) -> Any:
    """Predicted against realised quality: every pair, and only the candidate a sweep setting would choose."""
    test = summary.test
    top = test.predicted.argmax(axis=1)
    panels = [("every candidate on every prompt", test.predicted, test.outcomes.quality)]
    panels.append(
        (
            "the candidate predicted best, a prompt each",
            prediction.of_chosen(test.predicted, top),
            prediction.of_chosen(test.outcomes.quality, top),
        )
    )
    figure, all_axes = pyplot.subplots(1, 2, figsize=(11, 5.6), layout="constrained", sharex=True, sharey=True)
    for axes, (name, predicted, quality) in zip(all_axes, panels, strict=True):
        bins = prediction.reliability(predicted, quality)
        axes.plot([0, 100], [0, 100], color=GREY, lw=1, ls=":")
        shares = np.histogram(predicted[np.isfinite(quality)], bins=40, range=(0, 1))
        heights = 14 * shares[0] / shares[0].max()
        axes.bar(100 * (shares[1][1:] + shares[1][:-1]) / 2, heights, width=2.4, color=SKY, alpha=0.55, zorder=1)
        axes.errorbar(
            [100 * b.predicted for b in bins],
            [100 * b.realised for b in bins],
            yerr=[
                [100 * min(1.96 * b.standard_error, b.realised) for b in bins],
                [100 * min(1.96 * b.standard_error, 1 - b.realised) for b in bins],
            ],
            fmt="o-",
            color=BLUE,
            lw=1.6,
            capsize=3,
            zorder=3,
        )
        error = prediction.expected_calibration_error(predicted, quality)
        axes.set_title(
            f"{name}\nECE {100 * error:.1f} points, {len(bins)} bins of equal count", loc="left", fontsize=11.5
        )
        axes.set_xlabel("predicted quality, %")
        axes.set_aspect("equal")
        axes.set_xlim(0, 100)
        axes.set_ylim(0, 101)
    all_axes[0].set_ylabel("realised quality, %  (bars below: how many)")
    figure.suptitle(title, x=0.01, ha="left", fontsize=13)
    return figure


def tau(pyplot: Any, summary: Summary, title: str) -> Any:
    """Realised quality and cost over tau under `minmax`, with the router's own expectation beside them."""
    curve = summary.curves["router, minmax"]
    taus = TAUS[: curve.points]
    table = {line["tau"]: line for line in summary.figures["tau"]}
    expected = [table[float(t)] for t in taus]
    best = summary.axis.best
    figure, (upper, lower) = pyplot.subplots(2, 1, figsize=(9.5, 7.6), layout="constrained", sharex=True)
    for axes, values, scale, key, unit, single in (
        (upper, curve.quality, 100, "predicted_quality", "mean quality, %", summary.singles.quality[0, best]),
        (
            lower,
            curve.cost,
            1000,
            "predicted_cost_usd",
            "mean cost, USD per 1,000 prompts",
            summary.singles.cost[0, best],
        ),
    ):
        if len(values) > 1:
            low, high = np.percentile(values[1:], [2.5, 97.5], axis=0)
            axes.fill_between(taus, scale * low, scale * high, color=RED, alpha=0.15, lw=0, label="95 % interval")
        axes.plot(taus, scale * values[0], color=RED, lw=2.4, label="realised")
        axes.plot(
            taus, [scale * e[key] for e in expected], color=BLACK, lw=1.5, ls="--", label="expected by the router"
        )
        axes.axhline(scale * single, color=GREY, lw=1.2, ls=":", label=f"best single: {summary.models[best]}")
        axes.set_ylabel(unit)
    lower.set_ylim(bottom=0)
    lower.set_xlabel("tau (rule minmax): 0 = best predicted quality, 1 = cheapest")
    lower.set_xlim(0, 1)
    upper.legend(loc="lower left", fontsize=10.5)
    upper.set_title(title, loc="left", fontsize=13)
    return figure
