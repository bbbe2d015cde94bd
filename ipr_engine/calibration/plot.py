"""`draw` draws one map as a PNG: certified quality over cost. It needs the extra `[eval]`."""

from __future__ import annotations

from pathlib import Path

from ipr_engine._extras import need_pyplot
from ipr_engine._files import writable_file
from ipr_engine.bundle import CalibrationMap
from ipr_engine.bundle.calibration import INSUFFICIENT
from ipr_engine.evaluation.plot_style import BLUE, GREY, RED, log_cost_axis


def draw(made: CalibrationMap, path: Path) -> None:
    """Draw the map: certified quality over cost.

    Raises:
        InvalidInputError: the path does not end in .png or cannot be written.
        BackendUnavailableError: matplotlib is missing.
    """
    writable_file(path, "plot", suffix=".png")
    pyplot = need_pyplot()
    figure, axes = pyplot.subplots(figsize=(9.5, 6), layout="constrained")
    cost = [1000 * point.cost_usd for point in made.points]
    quality = [100 * point.quality for point in made.points]
    lower = [100 * (point.quality - point.quality_lower) for point in made.points]
    axes.errorbar(
        cost, quality, yerr=[lower, [0] * len(cost)], color=GREY, ecolor="#cccccc", fmt=".-", lw=1.2,
        label=f"path: mean on {made.sample.prompts} prompts, lower bound at risk {made.risk:g}",
    )  # fmt: skip
    certified = [knot for knot in made.knots if knot.status != INSUFFICIENT]
    promised = [100 * ((1 - k.level) * made.best_quality + k.level * made.cheapest_quality) for k in certified]
    at = [cost[knot.point] for knot in certified]
    axes.plot(at, promised, "D", color=BLUE, ms=6, label="certified: (1 - tau) * best + tau * cheapest, sample means")
    for x, y, knot, after in zip(at, promised, certified, [*certified[1:], None], strict=True):
        if after is not None and after.point == knot.point:
            continue  # the loosest tau of a step names it
        axes.annotate(f"{knot.level:g}", (x, y), xytext=(6, -12), textcoords="offset points", color=BLUE, fontsize=9)
    axes.plot(
        [cost[0], cost[-1]], [quality[0], quality[-1]], "o", color=RED, ms=9, zorder=1,
        label=f"singles: {made.best} (best), {made.cheapest} (cheapest)",
    )  # fmt: skip
    log_cost_axis(axes)
    axes.set_xlabel("mean expected cost, USD per 1,000 prompts (log scale)")
    axes.set_ylabel("mean quality, %")
    axes.grid(alpha=0.25)
    axes.legend(loc="lower right", frameon=False)
    axes.set_title(f"Certified quality over cost; numbers are tau ({made.sample.source})", loc="left")
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
