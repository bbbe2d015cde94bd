"""This module draws two pictures: latency over quantile, and latency over throughput. It needs the extra `[bench]`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ipr_engine._extras import need_pyplot
from ipr_engine.errors import InvalidInputError
from ipr_engine.evaluation.plot_style import BLACK, BLUE, GREEN, ORANGE, PINK, RED, SKY, STYLE

from .quantiles import Nanoseconds, level_name, quantiles

COLOURS = (BLUE, RED, GREEN, ORANGE, PINK, SKY, BLACK)
DASHES = ("-", "--", "-.", (0, (1, 1)), (0, (5, 1, 1, 1)), (0, (3, 1)), ":")
POINTS = 400  # of a curve


def check_available() -> None:
    """Raise if matplotlib is missing: before a long run, not after it."""
    need_pyplot("bench")


def latency_over_quantile(
    curves: Mapping[str, tuple[Nanoseconds, Nanoseconds]],
    path: Path,
    title: str,
    *,
    limits: Sequence[tuple[float, float]] = (),
) -> None:
    """Draw latency at every quantile, on an axis that gives each nine the same room.

    Args:
        curves: name -> (total, service), (n,) ns each: from the intended send time (thick), of the call alone (thin).
        limits: (quantile, ns) of objectives, drawn as marks.
    """
    pyplot = need_pyplot("bench")
    with pyplot.rc_context(STYLE):
        figure, axes = pyplot.subplots(figsize=(11, 6), layout="constrained")
        most = max(len(total) for total, _ in curves.values())
        for (name, (total, service)), colour, dash in zip(
            curves.items(), _cycle(COLOURS), _cycle(DASHES), strict=False
        ):
            axes.plot(*_curve(total), color=colour, ls=dash, lw=2.4, label=name)
            axes.plot(*_curve(service), color=colour, ls=dash, lw=1.0, alpha=0.75)
            for q in quantiles(total):
                if q.value is not None and q.low is not None and q.high is not None:
                    x = 1 / (1 - q.level)
                    axes.errorbar(
                        x, q.value / 1e3, yerr=[[(q.value - q.low) / 1e3], [(q.high - q.value) / 1e3]],
                        color=colour, capsize=4, lw=1.6, fmt="o", ms=4,
                    )  # fmt: skip
        for level, ns in ((level, ns) for level, ns in limits if 1 / (1 - level) <= max(10, most)):
            axes.plot(
                1 / (1 - level), ns / 1e3, marker="v", ms=11, color=BLACK, ls="none", label=f"SLO {level_name(level)}"
            )
        axes.set_xscale("log")
        axes.set_yscale("log")
        nines = [level for level in (0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999) if 1 / (1 - level) <= max(10, most)]
        axes.set_xticks([1 / (1 - level) for level in nines], [level_name(level) for level in nines])
        axes.minorticks_off()
        axes.set_xlim(1, max(10, most))
        axes.yaxis.set_major_formatter(lambda value, _: _unit(value))
        axes.set_xlabel("quantile of requests (axis: log of 1 - q); bars: 95 % intervals")
        axes.set_ylabel("latency")
        axes.set_title(title, loc="left", fontsize=13)
        figure.legend(
            loc="outside right center",
            fontsize=10,
            title="thick: from the\nintended send time\nthin: of the call alone",
        )
        _save(figure, path)
        pyplot.close(figure)


def latency_over_throughput(
    series: Mapping[str, Sequence[Mapping[str, Any]]], path: Path, title: str, note: str
) -> None:
    """Draw p50 and p99 against answers a second, a step of a ladder each.

    Args:
        series: name -> steps with throughput_rps, p50_us, p99_us (None where not told) and mark, what is written at them.
    """
    pyplot = need_pyplot("bench")
    with pyplot.rc_context(STYLE):
        figure, axes = pyplot.subplots(figsize=(11, 6), layout="constrained")
        for (name, steps), colour in zip(series.items(), _cycle(COLOURS), strict=False):
            for level, dash, marker in (("p50", "-", "o"), ("p99", "--", "^")):
                known = [step for step in steps if step[f"{level}_us"] is not None]
                axes.plot(
                    [step["throughput_rps"] for step in known],
                    [step[f"{level}_us"] for step in known],
                    color=colour, ls=dash, marker=marker, lw=2, label=f"{name}, {level}",
                )  # fmt: skip
            for step in steps:
                at = step["p99_us"] or step["p50_us"]
                if at is not None:
                    axes.annotate(
                        step["mark"], (step["throughput_rps"], at), xytext=(7, 3), textcoords="offset points",
                        fontsize=9, color=colour,
                    )  # fmt: skip
        axes.set_yscale("log")
        axes.set_xlim(left=0)
        axes.margins(y=0.12)
        axes.yaxis.set_major_formatter(lambda value, _: _unit(value))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.set_xlabel(f"answers a second ({note})")
        axes.set_ylabel("latency from the intended send time")
        axes.set_title(title, loc="left", fontsize=13)
        figure.legend(loc="outside right center", fontsize=10)
        _save(figure, path)
        pyplot.close(figure)


def _curve(values: Nanoseconds) -> tuple[Any, Any]:
    """Return 1 / (1 - q) and latency in us, at ranks that are even on the log axis, down to the longest of n."""
    ordered = np.sort(values)
    n = len(ordered)
    x = np.geomspace(1.0, n, min(n, POINTS))
    ranks = np.clip(np.ceil((1 - 1 / x) * n).astype(int), 1, n) - 1
    return x, np.maximum(ordered[ranks], 1) / 1e3


def _unit(us: float) -> str:
    for unit, size in (("s", 1e6), ("ms", 1e3), ("us", 1.0)):
        if us >= size:
            return f"{us / size:g} {unit}"
    return f"{us * 1e3:g} ns"


def _cycle(items: Sequence[Any]) -> list[Any]:
    return list(items) * 8


def _save(figure: Any, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Software": None})
    except OSError as error:
        raise InvalidInputError(f"--plot: cannot write {path}: {error.strerror}") from None
