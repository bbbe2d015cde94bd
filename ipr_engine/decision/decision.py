"""A `Decision` says which candidate answers one prompt, why, what that costs, and what would change the choice."""

from __future__ import annotations

import json
import math
from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from ipr_engine._C import DecideResult, decision_json
from ipr_engine.bundle import BundleSpec, HeadsSpec
from ipr_engine.bundle.origin import prior_of
from ipr_engine.decide.contract import CAUSE, PARTS, STATUS, result_of_parts
from ipr_engine.decide.numpy_rule import order
from ipr_engine.decision.frontier import FrontierStep, frontier
from ipr_engine.decision.result_row import ResultRow
from ipr_engine.decision.written_policy import WrittenPolicy
from ipr_engine.errors import RowError
from ipr_engine.policy.calibrated import CalibrationStatus
from ipr_engine.policy.cost_weights import CostTerms
from ipr_engine.policy.policy import Policy
from ipr_engine.policy.rules import Coefficients
from ipr_engine.request.row_inputs import PLAIN_ROW

OK = STATUS.index("ok")


class Decision(ResultRow):
    """A `Decision` is the answer for one prompt. Making one costs little: it reads everything from the result when asked.

    Attributes:
        model: name of the chosen candidate; None in a `FailedRow`, of `Decisions` whose rows may have failed.
        quality, cost_usd, tokens_out: of the chosen candidate; NaN when the row failed.
        cost: what the policy trades against quality: cost_usd, or the weighted sum of its `cost_weights` (USD per unit).
        cost_terms: USD, seconds and Wh of the chosen candidate, where the policy weighs more than USD; else None.
        tokens_in: input tokens of the whole request by the chosen candidate's own tokenizer: as the caller gave them; else estimated,
            where the candidate names it (docs/tokens.md); else billed_tokens times its token_ratio. NaN when the row failed.
        threshold: the quality a candidate had to reach.
        cause: "best_quality", "within_tolerance", "only_allowed", "below_fixed_level" or "failed"; "unsupported" where the
            prompt's support is below the policy's min_support; "deadline" where ipr_engine.serving answered by its fallback.
        degraded: None; which fallback answered instead, "static" or "candidate" (docs/operations.md).
        status: "ok", or why the row failed: "nonfinite_quality", "nonfinite_cost", "none_allowed"; "invalid_input" where the
            prompt itself is bad, as `reason` tells.
        gap: how far one candidate's quality must move before the choice flips (docs/decide.md).
        support: in [0, 1], how close the prompt is to the fitting data: 0 is farther than every prompt held out, or no
            token of it was known. None when the bundle has no centroids.
        billed_tokens: tokens of the whole request by the bundle's tokenizer; what is charged for are `tokens_in`.
        calibration: "calibrated", "insufficient_evidence", "estimated", "stale" or "uncalibrated" (docs/calibration.md);
            calibration_reason says what is certified, or why nothing is.
        truncated: the prompt was longer than the encoder reads; head and tail were encoded.
        task: what the caller said that the prompt is for; None where nothing was said. task_known: whether the heads tell it apart: False
            where the prompt was decided as without a task; None without one.
        escalated: the second heads of a two-tier bundle decided (docs/two-tiers.md): quality, cost, threshold, gap and all else
            are theirs, but for billed_tokens and support, which are the first encoder's.
        bundle, policy: those that decided.

    A decision can be pickled: another process reads all of it where there is no bundle. Its `bundle` is a `BundleDescription` there.
    """

    __slots__ = ("escalated", "support", "truncated")

    degraded: str | None = None

    def __init__(
        self,
        result: DecideResult,
        row: int,
        policy: Policy,
        bundle: BundleSpec,
        billed_tokens: int,
        truncated: bool,
        support: float | None,
        own_tokens: npt.NDArray[np.float32] | bytes | None = None,
    ) -> None:
        """Keep one row of a result. own_tokens: (models,) float32, or its bytes; None where nobody's own count is known."""
        self.result = result
        self.row = row
        self.policy = policy
        self.bundle = bundle
        self.billed_tokens = billed_tokens
        self.truncated = truncated
        self.support = support
        self._own = own_tokens
        # `Decisions` sets these two, where a row of a batch has more: a plain row must not pay for them
        self.escalated = False
        self.inputs = PLAIN_ROW

    def __getstate__(self) -> tuple[None, dict[str, Any]]:
        """Return this row alone, as the only one of its result: the batch that it was decided in stays behind."""
        slots = cast(tuple[None, dict[str, Any]], super().__getstate__())[1]
        result, row = self.result, self.row
        if len(result) > 1:
            alone = result_of_parts(*(getattr(result, part)[row : row + 1] for part in PARTS))
            slots |= {"result": alone, "row": 0}
        return None, slots

    @property
    def index(self) -> int:
        """Return the position of the chosen candidate in the bundle, -1 when the row failed."""
        return self.result.index_at(self.row)

    @property
    def model(self) -> str:
        index = self.result.index_at(self.row)
        if index < 0:  # a FailedRow stands for such a row
            raise RowError([self.row], [self.status])
        return self.bundle.candidates[index].name

    @property
    def prior(self) -> str | None:
        """Return what stands in for outcomes of the chosen candidate's own ("prior from ..."); None where it has some.

        With a prior its quality is a guess.
        """
        index = self.result.index_at(self.row)
        return None if index < 0 else prior_of(self.bundle, self.bundle.candidates[index].name)

    @property
    def quality(self) -> float:
        index = self.result.index_at(self.row)
        return float("nan") if index < 0 else self.result.quality_at(self.row, index)

    @property
    def cost_usd(self) -> float:
        index = self.result.index_at(self.row)
        return float("nan") if index < 0 else self.usd_of(index)

    @property
    def cost(self) -> float:
        index = self.result.index_at(self.row)
        return float("nan") if index < 0 else self.result.cost_at(self.row, index)

    @property
    def cost_terms(self) -> CostTerms | None:
        index = self.result.index_at(self.row)
        return None if index < 0 else self.cost_terms_of(index, self.usd_of(index))

    @property
    def tokens_out(self) -> float:
        index = self.result.index_at(self.row)
        return float("nan") if index < 0 else self.result.tokens_at(self.row, index)

    @property
    def tokens_in(self) -> float:
        index = self.result.index_at(self.row)
        return float("nan") if index < 0 else self.input_tokens(index)

    @property
    def threshold(self) -> float:
        return self.result.threshold_at(self.row)

    @property
    def gap(self) -> float:
        return self.result.gap_at(self.row)

    @property
    def status(self) -> str:
        return STATUS[self.result.status_at(self.row)]

    @property
    def cause(self) -> str:
        return CAUSE[self.result.cause_at(self.row)]

    @property
    def task(self) -> str | None:
        asked = self.inputs.task
        return None if asked is None else asked.name

    @property
    def task_known(self) -> bool | None:
        asked = self.inputs.task
        return None if asked is None else asked.known

    @property
    def calibration(self) -> str:
        return self.calibration_status.status

    @property
    def calibration_reason(self) -> str:
        return self.calibration_status.reason

    @property
    def calibration_status(self) -> CalibrationStatus:
        """Return the policy's status, unless the request keeps out a candidate that the policy allows, or its costs are the caller's."""
        status, moved = self.policy.calibration, self.inputs.moved
        if status.status == "uncalibrated" or not (self.may_keep_out or self.by_support or moved):
            return status
        if self.by_support:
            return CalibrationStatus("uncalibrated", "its support is below min_support: no operating point decided it")
        kept_out = [
            f"{candidate.name}: {reason}"
            for m, candidate in enumerate(self.bundle.candidates)
            if candidate.name in self.policy.allowed and (reason := self.unable(m)) is not None
        ]
        away = "; ".join(kept_out)
        reasons = [f"this request keeps out {away}"] if away else []
        if moved:
            reasons.append(f"{' and '.join(moved)} moved its predicted costs, and no policy is tested so")
        return CalibrationStatus("uncalibrated", "; ".join(reasons)) if reasons else status

    @property
    def bundle_hash(self) -> str:
        return self.bundle.hash

    @property
    def heads(self) -> HeadsSpec:
        """Return the heads that decided."""
        again = self.bundle.escalation_heads
        return again if self.escalated and again is not None else self.bundle.quality_heads

    @property
    def encoder(self) -> str:
        """Return the identity of the encoder whose embedding was decided on."""
        return self.bundle.encoder(self.heads.encoder).identity

    @property
    def coefficients(self) -> Coefficients:
        """Return the policy's rule as it was compiled for the heads that decided."""
        second = self.policy.second
        return second.coefficients if self.escalated and second is not None else self.policy.coefficients

    @property
    def ranked(self) -> tuple[str, ...]:
        """Return every allowed candidate, for failover: the choice, then who would be chosen were all before it away.

        The rule is applied anew without those before, so the threshold moves with who is left (`reference.failover`).
        The policy's reserve comes last, the better predicted first.
        """
        policy, names = self.policy, self.bundle.names
        second = policy.second
        # the op ranks by the mask that it was compiled with, unless this request narrows or widens it
        compiled = second.compiled if self.escalated and second is not None else policy.compiled
        allowed = self.could_serve(self.open_to) if self.may_keep_out or self.open_to is not policy.allowed else None
        found = self.result.ranked(self.row, compiled, names, allowed)
        if not found or not policy.reserve:
            return found
        reserve = [m for m in np.flatnonzero(self.reserve).tolist() if names[m] not in found]
        return (*found, *(names[m] for m in sorted(reserve, key=lambda m: -self.qualities[m])))

    @property
    def feasible(self) -> tuple[str, ...]:
        """Return the candidates that reach the threshold, best objective (cost - worth * quality) first."""
        if self.result.status_at(self.row) != OK:
            return ()
        reaches = self.allowed & (self.qualities >= np.float32(self.threshold))
        preferred = order(self.qualities, self.costs, self.policy.worth, self.bundle.tie_rank)
        return tuple(self.bundle.names[m] for m in preferred if reaches[m])

    @property
    def frontier(self) -> tuple[FrontierStep, ...]:
        """Return every tau at which this prompt's choice changes under its rule, with who is chosen from there on.

        Computed when asked for, by bisection on the float32 grid: some milliseconds. In a two-tier bundle it is that of the
        heads that decided: at another tau the gap is another, and the other heads may decide.
        """
        if self.result.status_at(self.row) != OK:
            return ()
        if self.by_support:
            return (FrontierStep(0.0, self.model, self.quality, self.cost_usd),)
        constants = self.heads.rule_constants
        allowed = self.allowed | self.reserve  # another knot may choose whom this operating point leaves out
        steps = frontier(self.policy, self.bundle, self.qualities, self.costs, allowed, constants=constants)
        if self.policy.weighing is None:
            return steps
        # the steps were found on weighed costs; what a step costs is told in USD
        usd = dict(zip(self.bundle.names, self.costs_usd.tolist(), strict=True))
        return tuple(step._replace(cost_usd=usd[step.model]) for step in steps)

    @property
    def reason(self) -> str | None:
        """Return why the row failed, in words; None where a candidate was chosen. It never holds text of the prompt."""
        status = self.status
        if status == "ok":
            return None
        if self.inputs.error is not None:
            return self.inputs.error
        if status == "none_allowed":
            return "; ".join(f"{name}: {reason}" for name, reason in self.excluded.items())
        return f"{status.removeprefix('nonfinite_')} of an allowed candidate is not finite"

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types: what `ipr route --json` prints. `task` and `task_known` are among them where a task was given."""
        result, row, index = self.result, self.row, self.index
        ok, gap, support, calibration = index >= 0, result.gap_at(row), self.support, self.calibration_status
        usd = self.usd_of(index) if ok else None
        terms = None if usd is None else self.cost_terms_of(index, usd)
        return {
            "model": self.model,
            "status": self.status,
            "reason": self.reason,
            "cause": self.cause,
            "prior": self.prior,
            "quality": result.quality_at(row, index) if ok else None,
            "cost_usd": usd,
            "cost": result.cost_at(row, index) if ok else None,
            "cost_terms": None if terms is None else terms._asdict(),
            "tokens_in": self.input_tokens(index) if ok else None,
            "tokens_out": result.tokens_at(row, index) if ok else None,
            "threshold": result.threshold_at(row) if ok else None,
            "gap": gap if ok and math.isfinite(gap) else None,
            "support": support if support is None or math.isfinite(support) else None,
            "billed_tokens": self.billed_tokens,
            "truncated": self.truncated,
            "escalated": self.escalated,
            "ranked": list(self.ranked),
            "excluded": self.excluded,
            "tau": self.policy.tau,
            "rule": self.policy.rule,
            "worth": self.policy.worth,
            "promise": None if self.policy.promise is None else self.policy.promise.to_dict(),
            "calibration": calibration.status,
            "calibration_reason": calibration.reason,
            "bundle": self.bundle_hash,
            **({} if self.inputs.task is None else {"task": self.task, "task_known": self.task_known}),
        }

    def to_json(self) -> bytes:
        """Return `to_dict` as JSON, without a key or value of its own. C++ writes what is plain: see `own_json`."""
        own = self.own_json()
        if own is None:
            return json.dumps(self.to_dict(), allow_nan=False, separators=(",", ":")).encode()
        return b"{%b,%b}" % (own, WrittenPolicy.of(self.policy, self.bundle).rest)

    def own_json(self) -> bytes | None:
        """Return the JSON of `to_dict` up to "ranked", without braces; None where its policy alone does not tell the rest, or its costs."""
        policy, own = self.policy, self._own
        if (
            self.may_keep_out
            or self.inputs.moved
            or self.inputs.task is not None
            or self.escalated
            or self.degraded is not None
            or policy.weighing is not None
            or policy.reserve
            or policy.drift.evidence is not None
        ):
            return None
        written = policy.written
        words = written[0].words if written else WrittenPolicy.of(policy, self.bundle).words
        known = own if own is None or isinstance(own, bytes) else own.tobytes()
        facts = known, self.billed_tokens, self.truncated, self.support
        return decision_json(self.result, self.row, policy.compiled, words, *facts)  # None: its row is not plain

    def __repr__(self) -> str:
        if self.index < 0:
            return f"FailedRow(model=None, status={self.status!r}, reason={self.reason!r})"
        prior = "" if self.prior is None else f", prior={self.prior!r}"
        return (
            f"Decision(model={self.model!r}, quality={self.quality:.3f}, cost_usd={self.cost_usd:.3g}, "
            f"cause={self.cause!r}, threshold={self.threshold:.3f}{prior})"
        )


class FailedRow(Decision):
    """A `FailedRow` is a row of a batch that could not be decided: its `model` is None, its `status` and `reason` say why.

    It is a Decision, as failed rows have always been; `Engine.route` returns none, it raises.
    """

    __slots__ = ()

    @property
    def model(self) -> None:  # type: ignore[override]  # what tells it from a Decision; both are named where rows may fail
        return None


Row: TypeAlias = Decision | FailedRow
