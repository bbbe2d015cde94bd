"""The plot of promised against kept (promised.promised_figures)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ipr_engine.evaluation.plot_style import BLACK, BLUE, GREY
from ipr_engine.evaluation.summary import Summary


def promised(pyplot: Any, summary: Summary, title: str) -> Any:
    """Kept quality over tau beside the promised line, and cost over tau beside that of the two single candidates."""
    section = summary.figures["path"]
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
    _marks(lower, lines, [line["of_best_cost"] for line in lines], "realised, 95 % interval")
    lower.axhline(100, color=GREY, lw=1.2, ls=":", label=f"{section['best']} alone")
    upper.set_ylabel("mean quality, %")
    lower.set_ylabel("mean cost, % of the best single's")
    lower.set_ylim(bottom=0)
    lower.set_xlabel("tau (rule path): share of the way from the best to the cheapest that may be lost")
    lower.set_xlim(-0.02, 1.02)
    upper.legend(loc="lower left", fontsize=10.5)
    lower.legend(loc="center right", fontsize=10.5)
    upper.set_title(title, loc="left", fontsize=13)
    return figure


def _moved(estimate: Mapping[str, Any], by: float) -> dict[str, Any]:
    return {key: None if estimate[key] is None else estimate[key] + by for key in ("value", "low", "high")}


def _marks(axes: Any, lines: Sequence[Mapping[str, Any]], figures: Sequence[Mapping[str, Any]], label: str) -> None:
    """Marks in per cent with their intervals; hollow where nothing is promised."""
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
