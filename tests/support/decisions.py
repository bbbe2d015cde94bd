"""Decisions are compared to the bit here."""

from __future__ import annotations

from typing import Any

from ipr_engine import Decision


def bits(decision: Decision) -> tuple[Any, ...]:
    """Return all that a decision says, as one comparable value."""
    return (
        decision.bundle_hash,
        decision.policy.bundle_hash,
        decision.model,
        tuple(view.name for view in decision.candidates),
        decision.qualities.tobytes(),
        decision.costs_usd.tobytes(),
        decision.threshold,
        decision.billed_tokens,
        decision.cause,
    )


def same_row(a: Any, b: Any) -> bool:
    """Return whether two are equal to the bit in everything that the heads decided."""
    scalars = ("model", "index", "status", "cause", "threshold", "gap", "cost_usd")
    return (
        all(str(getattr(a, name)) == str(getattr(b, name)) for name in scalars)
        and a.qualities.tobytes() == b.qualities.tobytes()
        and a.costs_usd.tobytes() == b.costs_usd.tobytes()
    )
