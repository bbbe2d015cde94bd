"""This file draws cost at equal quality: a dot with its interval for each contender."""

from __future__ import annotations

from typing import Any

from ipr_engine.evaluation.equal_quality import lines_at
from ipr_engine.evaluation.equal_quality_text import QUOTED, percent
from ipr_engine.evaluation.plot_style import BLACK, BLUE, GREY, short_name
from ipr_engine.evaluation.summary import Summary


def equal_quality(pyplot: Any, summary: Summary, title: str) -> Any:
    """Draw what each contender costs at QUOTED of the best single candidate's quality, the dearest on top."""
    section = summary.figures["equal_quality"]
    kinds = {contender["name"]: contender["kind"] for contender in section["contenders"]}
    lines = [(name, kinds[name], line) for name, line in lines_at(section, QUOTED).items()]
    shown = sorted(
        (one for one in lines if one[2]["cost"]["value"] is not None), key=lambda one: -one[2]["cost"]["value"]
    )
    short = {name: (high := line["kept"]["high"]) is not None and high < QUOTED for name, _, line in shown}
    figure, axes = pyplot.subplots(figsize=(10.5, 0.55 * len(shown) + 2.4), layout="constrained")
    for i, (name, kind, line) in enumerate(reversed(shown)):
        own, cost = kind == "router", {key: line["cost"][key] for key in ("value", "low", "high")}
        colour = BLUE if own else BLACK
        if cost["low"] is not None:
            axes.plot([100 * cost["low"], 100 * cost["high"]], [i, i], color=colour, lw=2.6 if own else 1.6)
        face = "white" if short[name] else colour
        marker, size = ("D", 9) if own else ("o", 7)
        axes.plot(100 * cost["value"], i, marker, color=colour, markerfacecolor=face, ms=size, clip_on=False)
        # Beside the axis: inside it an interval may end anywhere.
        said = f"{percent(line['cost'])}, kept {percent(line['kept'])}" if cost["low"] is not None else ""
        axes.annotate(
            said,
            (1.02, i),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=10.5,
            color=colour,
            fontweight="bold" if name == section["router"] else "normal",
            annotation_clip=False,
        )
    axes.axvline(100, color=GREY, lw=1.2, ls=":", zorder=0)
    axes.annotate(
        f"{section['best']} alone",
        (100, 1.005),
        xycoords=("data", "axes fraction"),
        ha="center",
        fontsize=10.5,
        color=GREY,
    )
    axes.set_yticks(range(len(shown)), [short_name(name) for name, *_ in reversed(shown)])
    for label, (name, *_) in zip(axes.get_yticklabels(), reversed(shown), strict=True):
        label.set_fontweight("bold" if name == section["router"] else "normal")
    axes.set_ylim(-0.6, len(shown) - 0.4)
    axes.set_xlim(0, max(104.0, 100 * max(one[2]["cost"]["high"] or 0 for one in shown) + 4))
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(
        f"cost, % of always using {section['best']},\nwhere {100 * QUOTED:g} % of its quality is asked for\n"
        "lines: 95 % intervals, the choice of the setting included"
        + (f"\nhollow: shown to have kept less than {100 * QUOTED:g} %" if any(short.values()) else "")
    )
    figure.suptitle(title, x=0.01, ha="left", fontsize=13)
    return figure
