"""The plot of error against support (support.support_figures)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ipr_engine.evaluation.plot_style import BLUE, GREEN, ORANGE, PINK
from ipr_engine.evaluation.summary import Summary

# Of a panel: figure of the router, what ignoring the prompt gives, heading.
PANELS = (
    ("brier", "brier_of_means", "Squared error of predicted quality\n(dotted: of the training means)"),
    ("regret", "regret_of_best_single", "Regret of the candidate predicted best\n(dotted: of always the best single)"),
)
COLOURS = ((BLUE, "o"), (ORANGE, "s"), (GREEN, "^"), (PINK, "D"))  # a source each


def support(pyplot: Any, summary: Summary, title: str) -> Any:
    """Squared error and regret over support: bins of every source with intervals, and what ignoring the prompt gives."""
    sources: Sequence[Mapping[str, Any]] = summary.figures["support"]
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
