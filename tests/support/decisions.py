"""A decision as one comparable value."""

from __future__ import annotations

from typing import Any

from ipr_engine import Decision


def bits(decision: Decision) -> tuple[Any, ...]:
    """All that a decision says, as one comparable value."""
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
