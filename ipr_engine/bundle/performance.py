"""A `Performance` holds measured figures of a candidate's speed and energy; this file also has their form in JSON (docs/usage.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

# Every figure, and its unit as errors and `ipr info` tell it.
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
    """A `Performance` holds what one candidate's answers were measured to take: seconds and energy.

    Every number is >= 0 and finite, None where not known; tokens are by its own count.

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


def performance_of(row: Mapping[str, Any]) -> Performance:
    """Return the figures of a JSON form in which `checks.performance_problem` finds nothing wrong."""
    known: dict[str, Any] = {key: float(row[key]) for key in UNITS if row.get(key) is not None}
    return Performance(**known, **({"basis": row["basis"]} if "basis" in row else {}))


def performance_json(figures: Performance) -> dict[str, Any]:
    """Return the JSON form: what is known, and its basis."""
    known = {key: value for key in UNITS if (value := getattr(figures, key)) is not None}
    return {**known, "basis": figures.basis}
