"""Why this candidate: a decision laid out per candidate, as text and as plain JSON types."""

from __future__ import annotations

from typing import Any

from ipr_engine.decision import CandidateView, Decision

WHY = {
    "best_quality": "it has the highest predicted quality",
    "within_tolerance": "it has the least cost - worth * quality among those whose predicted quality reaches the threshold",
    "only_allowed": "it is the only candidate allowed",
    "below_fixed_level": "nobody reaches the fixed level, so the best predicted candidate answers",
    "failed": "the row could not be decided",
}


class Explanation:
    """Candidates of one decision, the choice first, then by cost; `str()` is a table, `to_dict()` plain JSON types."""

    def __init__(self, decision: Decision) -> None:
        self.decision = decision
        self.candidates: tuple[CandidateView, ...] = tuple(
            sorted(decision.candidates, key=lambda view: (not view.chosen, view.cost_usd))
        )

    @property
    def flips_at(self) -> dict[str, float]:
        """Candidate -> the smallest tau at which it is chosen, for those that ever are."""
        result: dict[str, float] = {}
        for step in self.decision.frontier:
            result.setdefault(step.model, step.tau)
        return result

    @property
    def summary(self) -> str:
        d = self.decision
        if d.model is None:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in d.excluded.items())
            return f"no decision: {d.status}{f' ({reasons})' if reasons else ''}"
        worth = f", worth {d.policy.worth:g} USD" if d.policy.worth else ""
        return f"{d.model}: {WHY[d.cause]} ({d.threshold:.3f} under rule {d.policy.rule}, tau {d.policy.tau:g}{worth})"

    def state(self, view: CandidateView) -> str:
        """One word or the reason: chosen, feasible, below threshold, or why it was excluded."""
        if view.chosen:
            return "chosen"
        if not view.allowed:
            return view.excluded_because or "not allowed"
        return "feasible" if view.feasible else "below threshold"

    def to_dict(self) -> dict[str, Any]:
        flips = self.flips_at
        return {
            "decision": self.decision.to_dict(),
            "summary": self.summary,
            "candidates": [
                {**view._asdict(), "state": self.state(view), "chosen_from_tau": flips.get(view.name)}
                for view in self.candidates
            ],
            "frontier": [step._asdict() for step in self.decision.frontier],
        }

    def __str__(self) -> str:
        flips = self.flips_at
        width = max(len(view.name) for view in self.candidates)
        lines = [self.summary, f"{'candidate':<{width}}  quality    cost USD  tokens  from tau  state"]
        for view in self.candidates:
            from_tau = f"{flips[view.name]:8.3f}" if view.name in flips else "       -"
            lines.append(
                f"{view.name:<{width}}  {view.quality:7.3f}  {view.cost_usd:10.6f}  {view.tokens_out:6.0f}  {from_tau}  {self.state(view)}"
            )
        d = self.decision
        support = "unknown" if d.support is None else f"{d.support:.2f}"
        lines.append(
            f"{d.calibration}: {d.calibration_reason}\n"
            f"gap {d.gap:.4f} · support {support} · {d.billed_tokens} tokens billed{' · truncated' if d.truncated else ''}"
        )
        return "\n".join(lines)
