"""How fast a candidate answers and what energy that takes: measured figures, and their form in JSON (docs/usage.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any

from ipr_engine._validate import MOST, shown
from ipr_engine.bundle.price_check import Problem, amount_problem

UNITS: Mapping[str, str] = {
    "ttft_s": "seconds to the first token",
    "tpot_s": "seconds per output token",
    "wh_per_request": "Wh per request",
    "wh_per_1m_input": "Wh per 1 M input tokens",
    "wh_per_1m_output": "Wh per 1 M output tokens",
}

# Above these a number is hardly one of seconds: nobody waits five for a token, and clients of LLMs give up after ten minutes.
MOST_SECONDS: Mapping[str, float] = MappingProxyType({"ttft_s": 600.0, "tpot_s": 5.0})
IN_SECONDS = "in seconds: if these are milliseconds, divide by 1,000"


@dataclass(frozen=True, kw_only=True)
class Performance:
    """What one candidate was measured at. Every number is >= 0 and finite, None where not known; tokens are by its own count.

    Attributes:
        ttft_s: seconds from the request to the first token (TTFT), at most 600.
        tpot_s: seconds per output token (TPOT, inter-token latency), at most 5; the first token counts as well.
        wh_per_request: energy of any request, in Wh. wh_per_1m_input, wh_per_1m_output: of tokens, in Wh per 1 M.
        basis: says where the numbers come from.
    """

    ttft_s: float | None = None
    tpot_s: float | None = None
    wh_per_request: float | None = None
    wh_per_1m_input: float | None = None
    wh_per_1m_output: float | None = None
    basis: str = "given by the caller"


def performance_problem(row: Mapping[str, Any]) -> Problem | None:
    """The first thing wrong with figures in their JSON form; None where nothing is. This is the one place that judges them."""
    known = [field.name for field in fields(Performance)]
    for key in row:
        if key not in known:
            told = ", ".join(f"{name} ({unit})" for name, unit in UNITS.items())
            advice = f"; times are {IN_SECONDS}" if str(key).casefold().endswith("_ms") else ""
            return Problem(str(key), f"one of {told}, or basis", f"unknown key {key!r}{advice}")
    for key in UNITS:
        if row.get(key) is not None:
            found = amount_problem(key, row[key])
            if found is None and row[key] > MOST:
                found = Problem(key, f"a number up to {MOST:g}", shown(row[key]), True)
            if found is None and row[key] > MOST_SECONDS.get(key, MOST):
                most = f"a number of {UNITS[key]}, at most {MOST_SECONDS[key]:g}"
                found = Problem(key, most, f"{shown(row[key])}; it is {IN_SECONDS}", True)
            if found is not None:
                return found
    if all(row.get(key) is None for key in UNITS):
        return Problem(next(iter(UNITS)), f"at least one of {', '.join(UNITS)}", "none")
    basis = row.get("basis", "-")
    if not isinstance(basis, str) or not basis.strip():
        return Problem("basis", "a text that is not empty", shown(basis))
    return None


def performance_of(row: Mapping[str, Any]) -> Performance:
    """The figures of a JSON form in which `performance_problem` finds nothing wrong."""
    known: dict[str, Any] = {key: float(row[key]) for key in UNITS if row.get(key) is not None}
    return Performance(**known, **({"basis": row["basis"]} if "basis" in row else {}))


def performance_json(figures: Performance) -> dict[str, Any]:
    """The JSON form: what is known, and its basis."""
    known = {key: value for key in UNITS if (value := getattr(figures, key)) is not None}
    return {**known, "basis": figures.basis}
