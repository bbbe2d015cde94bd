"""This file draws plots for a talk, as PNG: cost at equal quality, quality over cost, areas, tau's promise, reliability, support.

Extra `[eval]`. Lines are told apart by colour, style and marker; every axis says its unit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ipr_engine._extras import need_pyplot
from ipr_engine.evaluation.equal_quality_plot import equal_quality
from ipr_engine.evaluation.plot_style import BLACK, BLUE, GREEN, GREY, ORANGE, PINK, RED, SKY, STYLE, short_name
from ipr_engine.evaluation.quality_cost_plot import quality_cost
from ipr_engine.evaluation.summary import Summary
from ipr_engine.measures import prediction
from ipr_engine.measures.sweeps import TAUS

# Of a panel: figure of the router, what ignoring the prompt gives, heading.
PANELS = (
    ("brier", "brier_of_means", "Squared error of predicted quality\n(dotted: of the training means)"),
    ("regret", "regret_of_best_single", "Regret of the candidate predicted best\n(dotted: of always the best single)"),
)
# A legend over its axes: within them a curve may run anywhere.
ABOVE: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0.2, "fontsize": 10.5}
COLOURS = ((BLUE, "o"), (ORANGE, "s"), (GREEN, "^"), (PINK, "D"))  # a source each


def draw_all(summary: Summary, out: Path, title: str) -> list[Path]:
    """Write every plot below `out` and return the paths."""
    pyplot = need_pyplot()
    out.mkdir(parents=True, exist_ok=True)
    paths = []
    with pyplot.rc_context(STYLE):
        for name, draw in (
            ("equal_quality", equal_quality),
            ("quality_cost", quality_cost),
            ("areas", areas),
            ("path", promised),
            ("reliability", reliability),
            ("tau", tau),
            ("support", support),
        ):
            if name in ("tau", "support") and not summary.figures.get(name):
                continue
            if name == "equal_quality" and summary.figures[name]["reason"] is not None:
                continue
            if name == "path" and not summary.figures.get("path", {}).get("taus"):
                continue
            figure = draw(pyplot, summary, title)
            paths.append(out / f"{name}.png")
            figure.savefig(paths[-1], metadata={"Software": None})
            pyplot.close(figure)
    return paths


def promised(pyplot: Any, summary: Summary, title: str) -> Any:
    """Draw kept quality over tau beside the promised line, and cost over tau beside that of the two single candidates."""
    section = summary.figures["path"]  # `promised.promised_figures`
    lines: Sequence[Mapping[str, Any]] = section["taus"]
    taus = [line["tau"] for line in lines]
    figure, (upper, lower) = pyplot.subplots(2, 1, figsize=(9.5, 7.6), layout="constrained", sharex=True)
    upper.plot(
        taus,
        [100 * line["promised"]["value"] for line in lines],
        color=BLACK,
        lw=1.8,
        ls="--",
        label=f"promised: from {section['best']} (0) to {section['cheapest']} (1)",
    )
    best, cheapest = lines[0]["promised"]["value"], lines[-1]["promised"]["value"]
    # The interval is that of the difference, which is paired: it crosses the dashed line iff the promise is not told apart.
    about = [_moved(line["kept_minus_promised"], (1 - line["tau"]) * best + line["tau"] * cheapest) for line in lines]
    _marks(upper, lines, about, "kept, 95 % interval of the difference to the promise")
    costs = [line["of_best_cost"] for line in lines]
    if all(cost["value"] is not None for cost in costs):
        _marks(lower, lines, costs, "realised, 95 % interval")
        lower.axhline(100, color=GREY, lw=1.2, ls=":", label=f"{section['best']} alone")
        lower.legend(**ABOVE, ncols=3)
    else:
        said = f"undefined: {section['best']} costs nothing"
        lower.text(0.5, 0.5, said, transform=lower.transAxes, ha="center", color=GREY)
    upper.set_ylabel("mean quality, %")
    lower.set_ylabel("mean cost, % of the best single's")
    lower.set_ylim(bottom=0)
    lower.set_xlabel("tau (rule path): share of the way from the best to the cheapest that may be lost")
    lower.set_xlim(-0.02, 1.02)
    upper.legend(**ABOVE)
    figure.suptitle(title, x=0.01, ha="left", fontsize=13)
    return figure


def _moved(estimate: Mapping[str, Any], by: float) -> dict[str, Any]:
    """Return the estimate with its value and interval moved."""
    return {key: None if estimate[key] is None else estimate[key] + by for key in ("value", "low", "high")}


def _marks(axes: Any, lines: Sequence[Mapping[str, Any]], figures: Sequence[Mapping[str, Any]], label: str) -> None:
    """Draw marks in per cent with their intervals; hollow where nothing is promised."""
    for promise, face, name in ((True, BLUE, label), (False, "white", "the same where no level is promised")):
        shown = [figure for line, figure in zip(lines, figures, strict=True) if line["promise"] == promise]
        ends = [
            [100 * abs(f["value"] - (f["value"] if f[end] is None else f[end])) for f in shown]
            for end in ("low", "high")
        ]
        axes.errorbar(
            [line["tau"] for line in lines if line["promise"] == promise],
            [100 * figure["value"] for figure in shown],
            yerr=ends,
            fmt="o",
            color=BLUE,
            markerfacecolor=face,
            capsize=3,
            lw=1.6,
            label=name,
        )


def areas(pyplot: Any, summary: Summary, title: str) -> Any:
    """Draw Bounded-ARQGC of every contender with its interval; the router's stands out by colour, not by place."""
    lines = [c for c in summary.figures["contenders"] if c["area"]["value"] is not None and c["name"] != "oracle"]
    lines.sort(key=lambda c: c["area"]["value"])
    figure, axes = pyplot.subplots(figsize=(10, 0.38 * len(lines) + 1.6), layout="constrained")
    for i, line in enumerate(lines):
        value, low, high = (line["area"][k] for k in ("value", "low", "high"))
        colour = {"router": BLUE, "other router": RED, "baseline": BLACK, "bound": GREY}[line["kind"]]
        marker = {"router": "D", "other router": "^", "baseline": "o", "bound": "s"}[line["kind"]]
        if low is not None:
            axes.plot([low, high], [i, i], color=colour, lw=2 if line["kind"] == "router" else 1.2)
        axes.plot(value, i, marker, color=colour, ms=7)
    axes.axvline(0.5, color=GREY, lw=1, ls=":", zorder=0)
    axes.axvline(1.0, color=GREY, lw=1, ls=":", zorder=0)
    axes.set_yticks(range(len(lines)), [short_name(line["name"]) for line in lines])
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
    """Draw predicted against realised quality: of every pair, and of the candidate predicted best alone."""
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
        # How many pairs lie where, as bars of at most 14 % of the height.
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
            clip_on=False,
        )
        error = prediction.expected_calibration_error(predicted, quality)
        counted = "one bin" if len(bins) == 1 else f"{len(bins)} bins of equal count"
        axes.set_title(f"{name}\nECE {100 * error:.1f} points, {counted}", loc="left", fontsize=11.5)
        axes.set_xlabel("predicted quality, %")
        axes.set_aspect("equal")
        axes.set_xlim(0, 100)
        axes.set_ylim(0, 101)
    all_axes[0].set_ylabel("realised quality, %  (bars below: how many)")
    figure.suptitle(title, x=0.01, ha="left", fontsize=13)
    return figure


def tau(pyplot: Any, summary: Summary, title: str) -> Any:
    """Draw realised quality and cost over tau under `minmax`, with the router's own expectation beside them."""
    curve = summary.curves["router, minmax"]
    taus = TAUS[: curve.points]  # falling from 1 to 0, as the sweep
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
    upper.legend(**ABOVE, ncols=2)
    figure.suptitle(title, x=0.01, ha="left", fontsize=13)
    return figure


def support(pyplot: Any, summary: Summary, title: str) -> Any:
    """Draw squared error and regret over support: bins of every source with intervals, and what ignoring the prompt gives."""
    sources: Sequence[Mapping[str, Any]] = summary.figures["support"]  # `error_by_support.support_figures`
    figure, all_axes = pyplot.subplots(1, 2, figsize=(11, 5.8), layout="constrained", sharex=True)
    for axes, (name, reference, heading) in zip(all_axes, PANELS, strict=True):
        for number, source in enumerate(sources):
            colour, marker = COLOURS[number % len(COLOURS)]
            x = [line["support"][1] for line in source["bins"]]
            lines = [line[name] for line in source["bins"]]
            values = [line["value"] for line in lines]
            # The interval of a bin of one prompt, say, can miss its value: no bar points inwards.
            below = [max(0.0, v - (v if e["low"] is None else e["low"])) for v, e in zip(values, lines, strict=True)]
            above = [max(0.0, (v if e["high"] is None else e["high"]) - v) for v, e in zip(values, lines, strict=True)]
            axes.errorbar(
                x,
                values,
                yerr=[below, above],
                fmt=f"{marker}-",
                color=colour,
                lw=1.8,
                capsize=3,
                label=f"{source['name']}, {source['overall']['prompts']} prompts, {source['models']} candidates",
            )
            unread = [line[reference]["value"] for line in source["bins"]]
            axes.plot(x, unread, color=colour, lw=1.2, ls=":", marker=marker, ms=3)
        axes.set_xlim(-0.03, 1.03)
        axes.set_ylim(bottom=0)
        axes.set_title(heading, loc="left", fontsize=11.5)
        axes.set_xlabel("support (0 = far from the fitting prompts)")
    all_axes[0].set_ylabel("mean of a bin, 95 % interval")
    figure.legend(*all_axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=10.5)
    figure.suptitle(title, x=0.01, ha="left", fontsize=13)
    return figure
