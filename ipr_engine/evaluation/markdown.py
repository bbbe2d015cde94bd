"""This file writes figures as Markdown: tables, and numbers with their intervals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def number(estimate: Mapping[str, Any] | None, digits: int = 3, *, signed: bool = False, percent: bool = False) -> str:
    """Return "value [low, high]"; "-" where undefined; "(in x % of draws)" where some draws were."""
    if estimate is None or estimate["value"] is None:
        return "-"
    sign, scale, unit = ("+" if signed else ""), (100 if percent else 1), ("%" if percent else "")

    def show(value: float) -> str:
        return f"{round(scale * value, digits) + 0.0:{sign}.{digits}f}{unit}"  # + 0.0: no "-0.0"

    text = show(estimate["value"])
    if estimate["low"] is not None:
        text += f" [{show(estimate['low'])}, {show(estimate['high'])}]"
        if estimate["defined"] < 1:
            text += f" (in {estimate['defined']:.0%} of draws)"
    return text


def digits_off(estimate: Mapping[str, Any], at: float, least: int, most: int = 5) -> int:
    """Return how many digits tell the ends of an interval from `at`, `least` or more: rounded onto it they would belie a verdict."""
    ends = [estimate[end] for end in ("low", "high") if estimate[end] is not None and estimate[end] != at]
    return next((d for d in range(least, most) if all(round(end, d) != round(at, d) for end in ends)), most)


def plain(value: float | None, form: str = ".3f") -> str:
    """Return a figure without an interval; "-" where undefined."""
    return "-" if value is None else f"{value:{form}}"


def per_1000(estimate: Mapping[str, Any]) -> dict[str, Any]:
    """Return an estimate of 1,000 prompts from that of one."""
    return {k: v if k == "defined" or v is None else 1000 * v for k, v in estimate.items()}
