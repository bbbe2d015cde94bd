"""`reply_headers` tells a decision in the headers of a reply, `x-ipr-NAME`."""

from __future__ import annotations

from ipr_engine.decision.decision import Decision
from ipr_engine.request.controls import HEADER

BUNDLE_DIGITS = 16  # of the bundle's hash


def reply_headers(decision: Decision, index: int, saved: float | None, assumed: int = 0) -> dict[str, str]:
    """Return the headers that tell what the candidate that answers is predicted to be.

    Args:
        index: its position. saved: its `saved_usd`. assumed: tokens that were billed by assumption.
    """
    told = {
        "tau": f"{decision.policy.tau:.6g}",
        "quality": f"{decision.result.quality_at(decision.row, index):.4f}",
        "cost-usd": f"{decision.usd_of(index):.6g}",
        "bundle": decision.bundle_hash[:BUNDLE_DIGITS],
    }
    if saved is not None:
        told["saved-usd"] = f"{saved:.6g}"
    if decision.support is not None:
        told["support"] = f"{decision.support:.3f}"
    if decision.task is not None:
        told["task"] = "known" if decision.task_known else "unknown"
    if assumed:
        told["assumed-tokens"] = str(assumed)
    return {HEADER + name: text for name, text in told.items()}


def header_value(text: str) -> str:
    """Return a text as the value of a header: what is not printable ASCII becomes a question mark."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(letter if " " <= letter <= "~" else "?" for letter in text)
