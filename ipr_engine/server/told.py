"""A `Told` gathers what is known of a request while it is answered; headers, log lines and spans tell it. It holds no text of a prompt."""

from __future__ import annotations

import math
from time import time
from typing import Any

from ipr_engine.decision.reply_headers import header_value, reply_headers
from ipr_engine.server.decided import Decided
from ipr_engine.server.server_metrics import ServerMetrics

MOST_USD = 1e4
"""A request that is predicted to cost more states tokens that cannot be."""


class Told:
    """A `Told` is what is known of one request.

    Attributes:
        path: of its URL. tenant, tags: who asks. asked: the model it names.
        decided: its decision. served: who answered; None where nobody was asked. cause: why that one.
        attempts: (candidate, outcome), in the order in which they were asked.
        refused: why it was refused, without anything that it made up. begun: seconds since the epoch.
        left: the client left before its reply ended.
    """

    tenant = ""
    tags: Any = None
    asked: str | None = None
    decided: Decided | None = None
    served: str | None = None
    cause: str | None = None
    attempts: list[tuple[str, str]] | None = None
    refused: str | None = None
    left = False

    def __init__(self, path: str) -> None:
        self.path = path
        self.begun = time()

    def fields(self) -> dict[str, Any]:
        """Return what a log line and a span tell, plain JSON types."""
        found: dict[str, Any] = {"path": self.path, "tenant": self.tenant, "asked": self.asked, "served": self.served}
        if self.tags:
            found["tags"] = dict(self.tags)
        if self.attempts:
            found["attempts"] = [f"{candidate}={outcome}" for candidate, outcome in self.attempts]
        if self.refused is not None:
            found["refused"] = self.refused
        decided = self.decided
        if decided is not None:
            decision = decided.decision
            index = decided.position if self.served is None else decision.bundle.names.index(self.served)
            found |= {
                "id": decided.id,
                "chosen": decision.model,
                "cause": self.cause or decided.cause,
                "tau": decision.policy.tau,
                "quality": _finite(float(decision.qualities[index])),
                "cost_usd": _finite(decision.usd_of(index)),
                "saved_usd": decided.saved_usd(index),
                "support": decision.support,
                "calibration": decision.calibration,
                "bundle": decision.bundle_hash,
            }
            if decided.exploration is not None and self.served in (None, decided.model):  # of another it says nothing
                found["propensity"] = decided.exploration.propensity
        elif self.cause is not None:
            found["cause"] = self.cause
        return found


def decision_headers(decided: Decided | None, candidate: str, cause: str) -> list[tuple[bytes, bytes]]:
    """Return the headers that tell why a candidate answers, and what that is predicted to cost."""
    told = {"x-ipr-cause": cause}
    if decided is not None:
        decision = decided.decision
        if candidate == decided.model:
            index, saved = decided.position, decided.saved
            told |= _exploration_headers(decided)
        else:
            index = decision.bundle.names.index(candidate)
            saved = decided.saved_usd(index)
        told |= reply_headers(decision, index, saved, decided.assumed)
        told["x-ipr-decision-id"] = decided.id
    return [(name.encode(), text.encode()) for name, text in told.items()]


def _exploration_headers(decided: Decided) -> dict[str, str]:
    """Return the headers that tell with what chance this candidate was asked, and whom the policy chose where it is another."""
    if decided.exploration is None:
        return {}
    chosen = {"x-ipr-explored": header_value(decided.decision.model)} if decided.explored else {}
    return {"x-ipr-propensity": f"{decided.exploration.propensity:.6g}", **chosen}


def count_cost(metrics: ServerMetrics, decided: Decided, candidate: str) -> None:
    """Count what the candidate that answers is predicted to cost and to save.

    A request that brings its own costs (`extra_usd`) is left out: they steer the choice, and nobody spends them. So is one of
    figures that cannot be: a sum that they entered would be lost.
    """
    if "extra_usd" in decided.question.controls.given:
        return
    decision, tenant = decided.decision, decided.question.tenant.name
    if decided.exploration is None and candidate == decision.model:
        cost, saved = decision.cost_usd, decided.saved
    else:
        index = decision.bundle.names.index(candidate)
        cost, saved = decision.usd_of(index), decided.saved_usd(index)
    if not 0 <= cost <= MOST_USD:  # one that is not known, NaN, is not
        return
    metrics.cost(candidate, tenant).inc(cost)
    if saved is not None and abs(saved) <= MOST_USD:
        metrics.saved(tenant).inc(saved)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
