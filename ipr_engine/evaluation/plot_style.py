"""This file holds the colours (Okabe and Ito's), the matplotlib settings and the log axis of every plot."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

from ipr_engine._extras import need

BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, RED, PINK = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip
GREY = "#777777"
WINE, OLIVE, INDIGO, BROWN = "#882255", "#999933", "#332288", "#8B5A2B"  # what stands beside them, by others
LONGEST_NAME = 34  # characters
NEAR_DECADES, FAR_DECADES = 0.7, 3.2  # below and above which a log axis has other numbers than 1, 2 and 5
STYLE = {
    "font.size": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "figure.dpi": 100,
    "savefig.dpi": 150,
}


def short_name(name: str) -> str:
    """Return the name as a plot has room for it: of a long one the begin and the end. Tables have it whole."""
    half = (LONGEST_NAME - 1) // 2
    return name if len(name) <= LONGEST_NAME else f"{name[:half]}…{name[-half:]}"


def log_cost_axis(axes: Any) -> None:
    """Make the x axis a log one with plain numbers: 1, 2 and 5 of each decade, fewer over many decades, more within a part of one."""
    ticker = need("matplotlib.ticker", "plots", "eval")
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(_cost_locator(ticker)())
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.minorticks_off()


@cache
def _cost_locator(ticker: Any) -> Any:
    """Return the class of what places the numbers: matplotlib's own has one or none where limits are near or far."""

    class CostLocator(ticker.LogLocator):  # type: ignore[misc]  # any, to mypy
        def tick_values(self, vmin: float, vmax: float) -> Any:
            low, high = self.nonsingular(vmin, vmax)
            decades = math.log10(high / low)
            if decades < NEAR_DECADES:
                return ticker.MaxNLocator(nbins=6, steps=[1, 2, 5, 10]).tick_values(low, high)
            subs = (1, 2, 5) if decades <= FAR_DECADES else (1,)
            return ticker.LogLocator(subs=subs, numticks=9).tick_values(low, high)

    return CostLocator
