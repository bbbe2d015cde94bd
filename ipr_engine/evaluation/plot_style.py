"""This file holds the colours (Okabe and Ito's), the matplotlib settings and the log axis of every plot."""

from __future__ import annotations

from typing import Any

from ipr_engine._extras import need

BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, RED, PINK = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip
GREY = "#777777"
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


def log_cost_axis(axes: Any) -> None:
    """Make the x axis a log one with plain numbers at 1, 2 and 5 of each decade: costs often span less than one."""
    ticker = need("matplotlib.ticker", "plots", "eval")
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.minorticks_off()
