"""An `Explanation` lays a decision out per candidate, as text and as plain JSON types: why this one, and why not another."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from typing import Any, NamedTuple

from ipr_engine.bundle.origin import prior_of
from ipr_engine.bundle.reliability import RealisedInBin, read_reliability
from ipr_engine.decide.numpy_rule import threshold
from ipr_engine.decision.decision import Decision
from ipr_engine.decision.frontier import FrontierStep
from ipr_engine.decision.result_row import CandidateView
from ipr_engine.errors import InvalidInputError
from ipr_engine.policy.policy import Policy
from ipr_engine.policy.rules import BEST, PATH
from ipr_engine.prompts import is_one_prompt

MOST_DIGITS = 6  # of a tau
WHY = {
    "best_quality": "it has the highest predicted quality",
    "within_tolerance": "it has the least cost - worth * quality among those whose predicted quality reaches the threshold",
    "only_allowed": "it is the only candidate allowed",
    "below_fixed_level": "nobody reaches the fixed level, so the best predicted candidate answers",
    "unsupported": "the prompt is unlike the fitting data",
    "deadline": "the fallback answered past the deadline",
    "failed": "the row could not be decided",
}


class HoldsFor(NamedTuple):
    """A `HoldsFor` is the range of tau, around the policy's own, in which the choice stays; `until` None means to 1."""

    since: float
    until: float | None


class Explanation:
    """An `Explanation` lists the candidates of one decision, the choice first, then by cost.

    `str()` is a table, `to_dict()` plain JSON types.

    Attributes:
        realised: candidate -> how often it was right in fitting prompts that were predicted about as high, each predicted
            by heads that had not seen it, with the Clopper-Pearson interval; empty where the bundle has no such table, and
            without the candidates that it leaves out.
        priors: candidate -> what stands in for outcomes of its own, for those without any.
        tokenizers: candidate -> the profile that counted its input tokens, for those that name one and were not given theirs.
        given: candidates whose input tokens the caller gave.
    """

    def __init__(self, decision: Decision) -> None:
        self.decision = decision
        self.candidates: tuple[CandidateView, ...] = tuple(
            sorted(decision.candidates, key=lambda view: (not view.chosen, view.cost_usd))
        )
        bundle = decision.bundle
        tables = read_reliability(bundle, second=decision.escalated) or {}
        self.realised: dict[str, RealisedInBin] = {
            view.name: tables[view.name].at(view.quality)
            for view in self.candidates
            if view.name in tables and math.isfinite(view.quality)
        }
        found = {view.name: prior_of(bundle, view.name) for view in self.candidates}
        self.priors: dict[str, str] = {name: prior for name, prior in found.items() if prior is not None}
        given = decision.inputs.tokens_in_given
        self.given: tuple[str, ...] = () if given is None else tuple(n for m, n in enumerate(bundle.names) if given[m])
        # a given bill is multiplied by token_ratio, whatever tokenizer a candidate names
        by_ratio = decision.own_tokens is None or "billed_tokens" in decision.inputs.moved
        named = {} if by_ratio else {c.name: c.tokenizer for c in bundle.candidates if c.name not in self.given}
        self.tokenizers: dict[str, str] = {name: own.name for name, own in named.items() if own is not None}

    @cached_property
    def gaps(self) -> dict[str, float]:
        """Return candidate -> how far its own quality must move, all others held, for the choice to change; infinite if nothing does.

        The chosen one's way out is the threshold without it, or an objective that another beats (docs/decide.md);
        another's way in is to reach the threshold and a better objective.
        """
        d = self.decision
        if d.model is None:
            return {}
        chosen = next(view for view in self.candidates if view.chosen)
        if d.by_support:  # no quality decides
            return {view.name: math.inf for view in self.candidates if view.allowed}
        worth, gaps = d.policy.worth, dict[str, float]()
        for view in self.candidates:
            if view.allowed and not view.chosen:
                # how much worse its objective, cost - worth * quality, is than the choice's, in USD
                extra = (view.cost - worth * view.quality) - (chosen.cost - worth * chosen.quality)
                away = max(d.threshold - view.quality, 0.0)
                gaps[view.name] = away if extra <= 0 else max(away, extra / worth) if worth > 0 else math.inf
        others = [view.quality for view in self.candidates if view.allowed and not view.chosen]
        if not others:
            return {chosen.name: math.inf}
        # where the choice has the highest quality the threshold falls with it, down to that of the others alone
        c, hi, lo = d.coefficients, max(others), min(others)
        level = float(threshold(c, hi, lo, float)) if chosen.quality >= hi else d.threshold
        out = max(chosen.quality - level, 0.0)
        beaten = [gaps[view.name] for view in self.candidates if view.feasible and not view.chosen and worth > 0]
        return {chosen.name: min([out, *beaten]), **gaps}

    @cached_property
    def _steps(self) -> tuple[FrontierStep, ...]:
        return self.decision.frontier  # computed anew at each look, in milliseconds

    @property
    def holds_for(self) -> HoldsFor | None:
        """Return between which taus this choice stays; None when the row failed, or no tau near the policy's leads to it.

        A target in place of tau (a share of quality, say) need not run what its equivalent tau runs.
        """
        before = [step for step in self._steps if step.tau <= self.decision.policy.tau]
        after = [step.tau for step in self._steps if step.tau > self.decision.policy.tau]
        if not before or before[-1].model != self.decision.model:
            return None
        return HoldsFor(before[-1].tau, after[0] if after else None)

    @property
    def flips_at(self) -> dict[str, float]:
        """Return candidate -> the smallest tau at which it is chosen, for those that ever are."""
        result: dict[str, float] = {}
        for step in self._steps:
            result.setdefault(step.model, step.tau)
        return result

    @property
    def summary(self) -> str:
        d = self.decision
        if d.model is None:
            return f"no decision: {d.status} ({d.reason})"
        worth = f", worth {d.policy.worth:g} USD" if d.policy.worth else ""
        figures = f"quality {d.quality:.3f}, threshold {d.threshold:.3f}"
        prior = f"; its quality is a guess: {d.prior}, no outcomes of its own" if d.prior is not None else ""
        if d.cause == "unsupported":
            return f"{d.model}: {WHY[d.cause]} (support {d.support:.2f} below {d.policy.unsupported.min_support:g}){self._sent_to}"
        why = WHY[d.cause]
        if d.policy.rule == PATH and d.cause == "within_tolerance":
            why = "it has the least cost - worth * quality" if d.policy.worth else "it is the cheapest"
        return f"{d.model}: {why} ({figures} under rule {d.policy.rule}, tau {d.policy.tau:g}{worth}){prior}"

    @property
    def _sent_to(self) -> str:
        """Return why this candidate answers a prompt of little support."""
        d, to = self.decision, self.decision.policy.unsupported
        if to.candidate is None:
            return ", so the cheapest candidate answers"
        best = "the best single candidate" if to.asked == BEST else "the one named for that"
        if d.by_support:
            return f", so {best} answers"
        why = next((view.excluded_because for view in self.candidates if view.name == to.candidate), None)
        return f"; {to.candidate}, {best}, cannot ({why}), so the plain decision stands"

    def state(self, view: CandidateView) -> str:
        """Return the state of a candidate: chosen, feasible, below threshold, or why it was excluded."""
        if view.chosen:
            return "chosen"
        if not view.allowed:
            return view.excluded_because or "not allowed"
        return "feasible" if view.feasible else "below threshold"

    def to_dict(self) -> dict[str, Any]:
        flips, holds = self.flips_at, self.holds_for
        return {
            "decision": self.decision.to_dict(),
            "summary": self.summary,
            "candidates": [
                {
                    **view._asdict(),
                    "cost": view.cost if math.isfinite(view.cost) else None,
                    "state": self.state(view),
                    "gap": gap if math.isfinite(gap := self.gaps.get(view.name, math.inf)) else None,
                    "chosen_from_tau": flips.get(view.name),
                    "realised": self.realised[view.name]._asdict() if view.name in self.realised else None,
                    "prior": self.priors.get(view.name),
                    "tokenizer": self.tokenizers.get(view.name),
                }
                for view in self.candidates
            ],
            "holds_for_tau": None if holds is None else holds._asdict(),
            "frontier": [step._asdict() for step in self._steps],
        }

    def __str__(self) -> str:
        flips, holds = self.flips_at, self.holds_for
        width = max(len(view.name) for view in self.candidates)
        head = f"{'realised [95 %], n':>24}  " if self.realised else ""
        weighed = self.decision.policy.weighing is not None
        sums = "  weighed cost" if weighed else ""
        lines = [
            self.summary,
            f"{'candidate':<{width}}  quality  {head}  cost USD{sums}      in     out     gap  from tau  state",
        ]
        for view in self.candidates:
            found = self.realised.get(view.name)
            text = "-" if found is None else f"{found.mean:.3f} [{found.low:.3f}, {found.high:.3f}] {found.prompts:>4}"
            gap = self.gaps.get(view.name, math.inf)
            prior = f" · {self.priors[view.name]}, no outcomes of its own" if view.name in self.priors else ""
            parts = [
                f"{view.name:<{width}}",
                f"{view.quality:7.3f}",
                *([f"{text:>24}"] if self.realised else []),
                f"{view.cost_usd:10.6f}",
                *([f"{view.cost:12.6f}" if math.isfinite(view.cost) else f"{'-':>12}"] if weighed else []),
                f"{view.tokens_in:6.0f}",
                f"{view.tokens_out:6.0f}",
                f"{gap:6.3f}" if math.isfinite(gap) else "     -",
                f"{_border(flips[view.name]):>8}" if view.name in flips else "       -",
                f"{self.state(view)}{prior}",
            ]
            lines.append("  ".join(parts))
        d = self.decision
        if d.escalated:
            below = d.policy.escalate_below
            why = f": the first gap was below {below:g}" if below and math.isfinite(below) else ""
            lines.append(f"decided by the second heads ({d.heads.id} on encoder {d.heads.encoder}){why}")
        if self.tokenizers:
            lines.append(
                f"in: input tokens by {', '.join(dict.fromkeys(self.tokenizers.values()))}; `ipr info` says whose each is"
            )
        if self.given:
            lines.append(f"in: input tokens as tokens_in= gives them of {', '.join(self.given)}")
        if d.task is not None:
            said = "the heads tell it apart" if d.task_known else "not known to this bundle, decided as without a task"
            lines.append(f"task {d.task!r}: {said}")
        if holds is not None:
            until = "1" if holds.until is None else _border(holds.until)
            lines.append(f"the choice stays for tau from {_border(holds.since)} to {until}")
        if d.cost_terms is not None:
            known = {name: value for name, value in d.cost_terms._asdict().items() if value is not None}
            terms = ", ".join(f"{name} {value:.4g}" for name, value in known.items())
            lines.append(
                f"cost is weighed ({d.policy.weighing.weights if d.policy.weighing else ''}): {d.model} has {terms}"
            )
        if d.policy.promise is not None:
            lines.append(f"policy: {d.policy.promise}")
        if d.support == 0 and d.cause != "unsupported":
            lines.append(
                "support 0: the prompt is unlike the fitting data, so its predicted qualities say little; "
                "min_support decides such prompts otherwise"
            )
        support = "unknown" if d.support is None else f"{d.support:.2f}"
        lines.append(
            f"{d.calibration}: {d.calibration_reason}\n"
            f"gap {d.gap:.4f} · support {support} · {d.billed_tokens} tokens by the bundle's tokenizer"
            f"{' · truncated' if d.truncated else ''}"
        )
        return "\n".join(lines)


def explained(decision: Decision, policy: Policy | None, options: Mapping[str, object]) -> Explanation:
    """Explain a decision; InvalidInputError where a policy or an option is given besides."""
    if policy is not None or options:
        raise InvalidInputError(
            "policy: a Decision is explained under the policy it was made with; pass the prompt instead"
        )
    return Explanation(decision)


def check_explainable(prompt: Any, options: Mapping[str, object]) -> None:
    """Raise InvalidInputError for what is no call of `explain` on one prompt."""
    if "on_error" in options:
        raise InvalidInputError("on_error: explain always shows the status; leave it out")
    if not is_one_prompt(prompt) and isinstance(prompt, (list, tuple)):
        raise InvalidInputError("prompt: explain takes one prompt, got a list of prompts")


def _border(tau: float) -> str:
    """Return a tau at which a choice changes, so that one between 0 and 1 reads as neither; the least is the neighbour of 0 in float32."""
    for digits in range(3, MOST_DIGITS + 1):
        text = f"{tau:.{digits}f}"
        if tau in (0, 1) or float(text) not in (0, 1):
            return text
    return "> 0" if tau < 0.5 else "< 1"
