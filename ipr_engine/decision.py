"""What a decision says: the choice, why, what it costs, what would flip it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, overload

import numpy as np
import numpy.typing as npt

from ipr_engine.bundle.origin import prior_of
from ipr_engine.decide.contract import CAUSE, STATUS
from ipr_engine.errors import RowError
from ipr_engine.frontier import FrontierStep, frontier, order
from ipr_engine.policy.calibrated import CalibrationStatus
from ipr_engine.policy.unsupported import UNSUPPORTED

if TYPE_CHECKING:
    from ipr_engine._C import DecideResult
    from ipr_engine.bundle import Bundle, HeadsSpec
    from ipr_engine.policy.cost_weights import CostTerms
    from ipr_engine.policy.policy import Policy
    from ipr_engine.policy.rules import Coefficients
    from ipr_engine.request.limits import RequestLimits, RowLimits
    from ipr_engine.request.moved_costs import Moved

OK = STATUS.index("ok")
NO_ERRORS: Mapping[int, str] = {}


class CandidateView(NamedTuple):
    """One candidate of one decision. Money in USD for this prompt; tokens_in are by its own tokenizer.

    cost: what the policy trades against quality: cost_usd, or the weighted sum of its `cost_weights`; NaN where that is not known.
    """

    name: str
    family: str
    quality: float
    cost_usd: float
    cost: float
    tokens_in: float
    tokens_out: float
    allowed: bool
    feasible: bool
    chosen: bool
    excluded_because: str | None


class Decision:
    """The answer for one prompt. Cheap to make: everything is read from the result when asked for.

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
        gap: how far one candidate's quality must move before the choice flips (docs/design.md section 3).
        support: in [0, 1], how close the prompt is to the fitting data: 0 is farther than every prompt held out, or no
            token of it was known. None when the bundle has no centroids.
        billed_tokens: tokens of the whole request by the bundle's tokenizer; what is charged for are `tokens_in`.
        calibration: "calibrated", "insufficient_evidence", "estimated", "stale" or "uncalibrated" (docs/calibration.md);
            calibration_reason says what is certified, or why nothing is.
        truncated: the prompt was longer than the encoder reads; head and tail were encoded.
        escalated: the second heads of a two-tier bundle decided (docs/two-tiers.md): quality, cost, threshold, gap and all else
            are theirs, but for billed_tokens and support, which are the first encoder's.
    """

    __slots__ = (
        "_bundle",
        "_error",
        "_extra",
        "_given",
        "_limits",
        "_moved",
        "_own",
        "_result",
        "_row",
        "billed_tokens",
        "escalated",
        "policy",
        "support",
        "truncated",
    )

    degraded: str | None = None
    # Set only where there are any: the path of a plain text pays for none.
    _limits: RowLimits
    _own: npt.NDArray[np.float32] | bytes
    _extra: npt.NDArray[np.float32]
    _moved: tuple[str, ...]
    _given: npt.NDArray[np.bool_]
    _error: str

    def __init__(
        self,
        result: DecideResult,
        row: int,
        policy: Policy,
        bundle: Bundle,
        billed_tokens: int,
        truncated: bool,
        support: float | None,
        escalated: bool = False,
    ) -> None:
        self._result = result
        self._row = row
        self._bundle = bundle
        self.policy = policy
        self.billed_tokens = billed_tokens
        self.truncated = truncated
        self.support = support
        self.escalated = escalated

    @property
    def index(self) -> int:
        """Position of the chosen candidate in the bundle, -1 when the row failed."""
        return self._result.index_at(self._row)

    @property
    def model(self) -> str:
        index = self._result.index_at(self._row)
        if index < 0:  # a FailedRow stands for such a row
            raise RowError([self._row], [self.status])
        return self._bundle.candidates[index].name

    @property
    def prior(self) -> str | None:
        """What stands in for outcomes of the chosen candidate's own ("prior from ..."): its quality is a guess. None where it has some."""
        index = self._result.index_at(self._row)
        return None if index < 0 else prior_of(self._bundle, self._bundle.candidates[index].name)

    @property
    def quality(self) -> float:
        index = self._result.index_at(self._row)
        return float("nan") if index < 0 else self._result.quality_at(self._row, index)

    @property
    def cost_usd(self) -> float:
        index = self._result.index_at(self._row)
        return float("nan") if index < 0 else self._usd_at(index)

    def _usd_at(self, m: int) -> float:
        policy = self.policy
        if policy.weighing is None:
            return self._result.cost_at(self._row, m)
        own, extra = self._counted, self._added
        tokens = self._result.tokens_at(self._row, m)
        of_m = None if own is None else own[m], tokens, None if extra is None else extra[m]
        return policy.usd_of(m, self.billed_tokens, *of_m)

    @property
    def cost(self) -> float:
        index = self._result.index_at(self._row)
        return float("nan") if index < 0 else self._result.cost_at(self._row, index)

    @property
    def cost_terms(self) -> CostTerms | None:
        index = self._result.index_at(self._row)
        return None if index < 0 else self._terms_at(index, self._usd_at(index))

    def _terms_at(self, m: int, usd: float) -> CostTerms | None:
        weighing = self.policy.weighing
        if weighing is None:
            return None
        return weighing.terms(m, usd, self._tokens_in(m), self._result.tokens_at(self._row, m))

    @property
    def tokens_out(self) -> float:
        index = self._result.index_at(self._row)
        return float("nan") if index < 0 else self._result.tokens_at(self._row, index)

    @property
    def tokens_in(self) -> float:
        index = self._result.index_at(self._row)
        return float("nan") if index < 0 else self._tokens_in(index)

    def _tokens_in(self, m: int) -> float:
        own = self._counted
        return self.billed_tokens * self._bundle.candidates[m].token_ratio if own is None else float(own[m])

    @property
    def _counted(self) -> npt.NDArray[np.float32] | None:
        """(models,) input tokens by each candidate's own count; None where none was given and no candidate names its tokenizer."""
        own: npt.NDArray[np.float32] | bytes | None = getattr(self, "_own", None)
        return np.frombuffer(own, np.float32) if isinstance(own, bytes) else own

    @property
    def _added(self) -> npt.NDArray[np.float32] | None:
        """(models,) USD that was added to the costs; None for nothing."""
        return getattr(self, "_extra", None)

    @property
    def threshold(self) -> float:
        return self._result.threshold_at(self._row)

    @property
    def gap(self) -> float:
        return self._result.gap_at(self._row)

    @property
    def status(self) -> str:
        return STATUS[self._result.status_at(self._row)]

    @property
    def cause(self) -> str:
        return CAUSE[self._result.cause_at(self._row)]

    @property
    def calibration(self) -> str:
        return self._calibration.status

    @property
    def calibration_reason(self) -> str:
        return self._calibration.reason

    @property
    def _calibration(self) -> CalibrationStatus:
        """The policy's, unless this request keeps out a candidate that the policy may choose, or its costs are the caller's."""
        status, moved = self.policy.calibration, getattr(self, "_moved", ())
        if status.status == "uncalibrated" or not (self._may_keep_out or self._sent or moved):
            return status
        if self._sent:
            return CalibrationStatus("uncalibrated", "its support is below min_support: no operating point decided it")
        names = [(m, c.name) for m, c in enumerate(self._bundle.candidates) if c.name in self.policy.allowed]
        away = "; ".join(f"{name}: {reason}" for m, name in names if (reason := self._away(m)) is not None)
        reasons = [f"this request keeps out {away}"] if away else []
        if moved:
            reasons.append(f"{' and '.join(moved)} moved its predicted costs, and no policy is tested so")
        return CalibrationStatus("uncalibrated", "; ".join(reasons)) if reasons else status

    @property
    def bundle(self) -> Bundle:
        """The bundle that decided."""
        return self._bundle

    @property
    def bundle_hash(self) -> str:
        return self._bundle.hash

    @property
    def heads(self) -> HeadsSpec:
        """The heads that decided."""
        again = self._bundle.escalation_heads
        return again if self.escalated and again is not None else self._bundle.quality_heads

    @property
    def encoder(self) -> str:
        """Identity of the encoder whose embedding was decided on."""
        return self._bundle.encoder(self.heads.encoder).identity

    @property
    def coefficients(self) -> Coefficients:
        """The policy's rule as it was compiled for the heads that decided."""
        second = self.policy.second
        return second.coefficients if self.escalated and second is not None else self.policy.coefficients

    @property
    def qualities(self) -> npt.NDArray[np.float32]:
        """(models,) predicted quality of every candidate, allowed or not, in bundle order."""
        row: npt.NDArray[np.float32] = self._result.quality[self._row]
        return row

    @property
    def costs_usd(self) -> npt.NDArray[np.float32]:
        """(models,) expected cost of this prompt in USD, in bundle order."""
        row: npt.NDArray[np.float32]
        if self.policy.weighing is None:
            row = self._result.cost_usd[self._row]
        else:
            billed, own, extra = np.array([self.billed_tokens]), self._counted, self._added
            tokens = self._result.tokens_out[self._row][None]
            row = self.policy.usd(billed, None if own is None else own[None], tokens, extra)[0]
        return row

    @property
    def costs(self) -> npt.NDArray[np.float32]:
        """(models,) what the policy trades against quality: `costs_usd`, or the weighted sums, in bundle order; NaN where not known."""
        row: npt.NDArray[np.float32] = self._result.cost_usd[self._row]
        return row if self.policy.weighing is None else self.policy.weighing.known(row)

    @property
    def allowed(self) -> npt.NDArray[np.bool_]:
        """(models,) who could be chosen: the policy's mask, less who cannot serve this request."""
        mask = np.frombuffer(bytearray(self._could(self._open)), np.bool_)
        if self._sent:  # one that an operating point leaves out may be named for prompts of little support
            mask[self.index] = True
        return mask

    @property
    def ranked(self) -> tuple[str, ...]:
        """Every allowed candidate: the choice, then who would be chosen were all before it away (for failover).

        The rule is applied anew without those before, so the threshold moves with who is left (`reference.failover`).
        The policy's reserve comes last, the better predicted first.
        """
        policy, names = self.policy, self._bundle.names
        second = policy.second
        compiled = second.compiled if self.escalated and second is not None else policy.compiled
        allowed = self._could(self._open) if self._may_keep_out or self._open is not policy.allowed else None
        found = self._result.ranked(self._row, compiled, names, allowed)
        if not found or not policy.reserve:
            return found
        reserve = [m for m in np.flatnonzero(self._reserve).tolist() if names[m] not in found]
        return (*found, *(names[m] for m in sorted(reserve, key=lambda m: -self.qualities[m])))

    @property
    def feasible(self) -> tuple[str, ...]:
        """Candidates that reach the threshold, best objective (cost - worth * quality) first."""
        if self._result.status_at(self._row) != OK:
            return ()
        reaches = self.allowed & (self.qualities >= np.float32(self.threshold))
        preferred = order(self.qualities, self.costs, self.policy.worth, self._bundle.tie_rank)
        return tuple(self._bundle.names[m] for m in preferred if reaches[m])

    @property
    def excluded(self) -> dict[str, str]:
        """Candidate -> why it could not be chosen: the policy's mask, a feature that the request needs, too long an answer asked
        for, or a context window that does not hold prompt and output."""
        if not self._may_keep_out and not self.policy.reserve:
            return dict(self.policy.exclusions)
        found = {candidate.name: self._reason(m) for m, candidate in enumerate(self._bundle.candidates)}
        return {name: reason for name, reason in found.items() if reason is not None}

    @property
    def frontier(self) -> tuple[FrontierStep, ...]:
        """Every tau at which this prompt's choice changes under its rule, with who is chosen from there on.

        Computed when asked for, by bisection on the float32 grid: some milliseconds. In a two-tier bundle it is that of the
        heads that decided: at another tau the gap is another, and the other heads may decide.
        """
        if self._result.status_at(self._row) != OK:
            return ()
        if self._sent:
            return (FrontierStep(0.0, self.model, self.quality, self.cost_usd),)
        constants = self.heads.rule_constants
        allowed = self.allowed | self._reserve
        steps = frontier(self.policy, self._bundle, self.qualities, self.costs, allowed, constants=constants)
        if self.policy.weighing is None:
            return steps
        usd = dict(zip(self._bundle.names, self.costs_usd.tolist(), strict=True))
        return tuple(step._replace(cost_usd=usd[step.model]) for step in steps)

    @property
    def candidates(self) -> tuple[CandidateView, ...]:
        """Every candidate, in bundle order, with what was predicted and why it could not be chosen."""
        chosen, threshold = self.index, np.float32(self.threshold)
        allowed, qualities, usd, costs = self.allowed, self.qualities, self.costs_usd, self.costs
        tokens = self._result.tokens_out[self._row]
        return tuple(
            CandidateView(
                name=candidate.name,
                family=candidate.family,
                quality=float(qualities[m]),
                cost_usd=float(usd[m]),
                cost=float(costs[m]),
                tokens_in=self._tokens_in(m),
                tokens_out=float(tokens[m]),
                allowed=bool(allowed[m]),
                feasible=bool(allowed[m] and qualities[m] >= threshold),
                chosen=m == chosen,
                excluded_because=self._reason(m),
            )
            for m, candidate in enumerate(self._bundle.candidates)
        )

    @property
    def _asked(self) -> RowLimits | None:
        """What the request asks for; None where it is text alone, and output tokens are predicted."""
        return getattr(self, "_limits", None)

    @property
    def _reserve(self) -> npt.NDArray[np.bool_]:
        """(models,) the policy's reserve, less who cannot serve this request."""
        return np.frombuffer(self._could(self.policy.reserve), np.bool_)

    @property
    def _may_keep_out(self) -> bool:
        """Whether this request may keep out a candidate that the policy allows."""
        if self._asked is not None:
            return True
        own: npt.NDArray[np.float32] | bytes | None = getattr(self, "_own", None)
        if own is None:
            return self.billed_tokens >= self.policy.surely_fits.billed
        most = (
            max(memoryview(own).cast("f")) if isinstance(own, bytes) else own.max()
        )  # of the few, a tenth of numpy's time
        return bool(most >= self.policy.surely_fits.own)

    @property
    def _sent(self) -> bool:
        """Whether the policy's candidate for prompts of little support answers, and not the plain decision."""
        result, row = self._result, self._row
        if result.cause_at(row) != UNSUPPORTED:
            return False
        to = self.policy.unsupported.candidate
        return to is None or to == self._bundle.candidates[result.index_at(row)].name

    @property
    def _open(self) -> Sequence[str]:
        """Who may be chosen, whatever this request asks for: under `unsupported="cheapest"` an operating point leaves out nobody."""
        policy = self.policy
        by_cost = policy.reserve and policy.unsupported.candidate is None and self._sent
        return (*policy.allowed, *policy.reserve) if by_cost else policy.allowed

    def _could(self, names: Sequence[str]) -> bytes:
        """(models,) as bytes: who of these can serve this request."""
        if names is self.policy.allowed and not self._may_keep_out:
            return bytes(candidate.name in names for candidate in self._bundle.candidates)
        return bytes(c.name in names and self._away(m) is None for m, c in enumerate(self._bundle.candidates))

    def _away(self, m: int) -> str | None:
        """Why a candidate cannot serve this request, whatever the policy says."""
        candidate, asked = self._bundle.candidates[m], self._asked
        if asked is not None and candidate.name in asked.excluded:
            return asked.excluded[candidate.name]
        window = candidate.context_window
        if window is None:
            return None
        prompt = self._tokens_in(m)
        stated = None if asked is None else asked.max_tokens
        answers = 1 if asked is None else asked.answers  # each answer has the window to itself
        output = self._result.tokens_at(self._row, m) / answers if stated is None else float(stated)
        if not (prompt + output > window or prompt > window):  # an output that is not known, NaN, is not over
            return None
        if prompt > window:
            return f"prompt of about {prompt:.0f} tokens over its context window of {window}"
        return f"prompt of about {prompt:.0f} and output of {output:.0f} tokens over its context window of {window}"

    def _reason(self, m: int) -> str | None:
        if m == self.index:  # also one that an operating point leaves out, as of `allowed`
            return None
        return self.policy.exclusions.get(self._bundle.candidates[m].name) or self._away(m)

    @property
    def reason(self) -> str | None:
        """Why the row failed, in words; None where a candidate was chosen. Never holds text of the prompt."""
        status = self.status
        if status == "ok":
            return None
        error: str | None = getattr(self, "_error", None)
        if error is not None:
            return error
        if status == "none_allowed":
            return "; ".join(f"{name}: {reason}" for name, reason in self.excluded.items())
        return f"{status.removeprefix('nonfinite_')} of an allowed candidate is not finite"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types: what `ipr route --json` prints."""
        result, row, index = self._result, self._row, self.index
        ok, gap, support, calibration = index >= 0, result.gap_at(row), self.support, self._calibration
        usd = self._usd_at(index) if ok else None
        terms = None if usd is None else self._terms_at(index, usd)
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
            "tokens_in": self._tokens_in(index) if ok else None,
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
        }

    def __repr__(self) -> str:
        if self.index < 0:
            return f"FailedRow(model=None, status={self.status!r}, reason={self.reason!r})"
        prior = "" if self.prior is None else f", prior={self.prior!r}"
        return (
            f"Decision(model={self.model!r}, quality={self.quality:.3f}, cost_usd={self.cost_usd:.3g}, "
            f"cause={self.cause!r}, threshold={self.threshold:.3f}{prior})"
        )


class FailedRow(Decision):
    """A row of a batch that could not be decided: its `model` is None, its `status` and `reason` say why.

    It is a Decision, as failed rows have always been; `Engine.route` returns none, it raises.
    """

    __slots__ = ()

    @property
    def model(self) -> None:  # type: ignore[override]  # what tells it from a Decision; both are named where rows may fail
        return None


Row: TypeAlias = Decision | FailedRow


class Decisions:
    """The answers for a batch: a sequence of Decision and FailedRow, and the same as arrays.

    Attributes:
        index: (batch,) int32, -1 where a row failed.
        qualities, costs_usd, costs, tokens_out: (batch, models) float32, every candidate, in bundle order; costs are what the policy
            trades against quality: costs_usd, or the weighted sums of its `cost_weights`, NaN of candidates whose terms are not known.
        cost_usd, cost: (batch,) float32, of the chosen candidates.
        extra_usd: (models,) or (batch, models) float32, what was added to the costs; None for nothing.
        threshold, gap: (batch,) float32.
        billed_tokens (batch,) int64, truncated and escalated (batch,) bool, support (batch,) float32 or None: as of Decision.
        own_tokens: (batch, models) float32, input tokens by each candidate's own count; None where none was given and no candidate
            names its tokenizer. tokens_in_given: (batch, models) bool, which of them the caller gave; None for none.
        status, cause: (batch,) uint8 into `ipr_engine.decide.contract.STATUS` and `CAUSE`.
        errors: row -> what is wrong with its prompt, where the status is "invalid_input".
        limits: what the requests ask for; None where they are text alone and output tokens are predicted.
        moved: of each row, which arguments of the caller moved its predicted costs; None where none moved any.
    """

    __slots__ = (
        "_bundle",
        "_escalated",
        "_result",
        "billed_tokens",
        "errors",
        "extra_usd",
        "limits",
        "moved",
        "own_tokens",
        "policy",
        "support",
        "tokens_in_given",
        "truncated",
    )

    def __init__(
        self,
        result: DecideResult,
        policy: Policy,
        bundle: Bundle,
        billed_tokens: npt.NDArray[np.int64],
        truncated: npt.NDArray[np.bool_],
        support: npt.NDArray[np.float32] | None,
        own_tokens: npt.NDArray[np.float32] | None = None,
        escalated: npt.NDArray[np.bool_] | None = None,
        limits: RequestLimits | None = None,
        errors: Mapping[int, str] = NO_ERRORS,
        *,
        extra_usd: npt.NDArray[np.float32] | None = None,
        moved: Moved | None = None,
        tokens_in_given: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        self.extra_usd = extra_usd
        self.tokens_in_given = tokens_in_given
        self.moved = moved
        self._result = result
        self._escalated = escalated
        self.own_tokens = own_tokens
        self.limits = limits
        self.errors = errors
        self._bundle = bundle
        self.policy = policy
        self.billed_tokens = billed_tokens
        self.truncated = truncated
        self.support = support

    def __len__(self) -> int:
        return len(self._result)

    @overload
    def __getitem__(self, row: int) -> Row: ...
    @overload
    def __getitem__(self, row: slice) -> list[Row]: ...
    def __getitem__(self, row: int | slice) -> Row | list[Row]:
        if isinstance(row, slice):
            return [self[r] for r in range(*row.indices(len(self)))]
        if not -len(self) <= row < len(self):
            raise IndexError(f"row {row} of {len(self)} decisions")
        row %= len(self)
        kind = Decision if self._result.index_at(row) >= 0 else FailedRow
        decision: Row = kind(
            self._result,
            row,
            self.policy,
            self._bundle,
            int(self.billed_tokens[row]),
            bool(self.truncated[row]),
            None if self.support is None else float(self.support[row]),
            False if self._escalated is None else bool(self._escalated[row]),
        )
        if self.own_tokens is not None:
            decision._own = self.own_tokens[row]
        if self.extra_usd is not None:
            decision._extra = self.extra_usd if self.extra_usd.ndim == 1 else self.extra_usd[row]
        if self.limits is not None:
            decision._limits = self.limits.rows[row]
        if self.moved is not None:
            decision._moved = self.moved[row]
        if self.tokens_in_given is not None:
            decision._given = self.tokens_in_given[row]
        if row in self.errors:
            decision._error = self.errors[row]
        return decision

    def __iter__(self) -> Iterator[Row]:
        return (self[row] for row in range(len(self)))

    @property
    def models(self) -> list[str | None]:
        """Names of the chosen candidates, None where a row failed."""
        names = self._bundle.names
        return [None if m < 0 else names[m] for m in self._result.index.tolist()]

    @property
    def priors(self) -> list[str | None]:
        """`Decision.prior` of every row."""
        bundle = self._bundle
        told = {name: prior_of(bundle, name) for name in bundle.names}
        return [None if name is None else told[name] for name in self.models]

    @property
    def all_ok(self) -> bool:
        """Every row was decided."""
        return self._result.all_ok

    @property
    def escalated(self) -> npt.NDArray[np.bool_]:
        return np.zeros(len(self), np.bool_) if self._escalated is None else self._escalated

    @property
    def index(self) -> npt.NDArray[np.int32]:
        return self._result.index

    @property
    def quality(self) -> npt.NDArray[np.float32]:
        """(batch,) predicted quality of the chosen candidate, NaN where a row failed."""
        return self._chosen(self._result.quality)

    @property
    def cost_usd(self) -> npt.NDArray[np.float32]:
        """(batch,) expected cost of the chosen candidate, NaN where a row failed."""
        return self._chosen(self.costs_usd)

    @property
    def cost(self) -> npt.NDArray[np.float32]:
        return self._chosen(self._result.cost_usd)

    @property
    def qualities(self) -> npt.NDArray[np.float32]:
        return self._result.quality

    @property
    def costs_usd(self) -> npt.NDArray[np.float32]:
        if self.policy.weighing is None:
            return self._result.cost_usd
        return self.policy.usd(self.billed_tokens, self.own_tokens, self._result.tokens_out, self.extra_usd)

    @property
    def costs(self) -> npt.NDArray[np.float32]:
        costs = self._result.cost_usd
        return costs if self.policy.weighing is None else self.policy.weighing.known(costs)

    @property
    def tokens_out(self) -> npt.NDArray[np.float32]:
        return self._result.tokens_out

    @property
    def threshold(self) -> npt.NDArray[np.float32]:
        return self._result.threshold

    @property
    def gap(self) -> npt.NDArray[np.float32]:
        return self._result.gap

    @property
    def status(self) -> npt.NDArray[np.uint8]:
        return self._result.status

    @property
    def cause(self) -> npt.NDArray[np.uint8]:
        return self._result.cause

    @property
    def calibration(self) -> list[str]:
        """`Decision.calibration` of every row."""
        return [decision.calibration for decision in self]

    @property
    def bundle_hash(self) -> str:
        return self._bundle.hash

    def _chosen(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        index = self._result.index
        if values.shape[1] == 0 or len(index) == 0:
            return np.zeros(len(index), np.float32)
        picked = np.take_along_axis(values, np.maximum(index, 0)[:, None].astype(np.int64), axis=1)[:, 0]
        return np.where(index >= 0, picked, np.float32("nan"))

    def to_dicts(self) -> list[dict[str, Any]]:
        """`Decision.to_dict` of every row."""
        return [decision.to_dict() for decision in self]

    def __repr__(self) -> str:
        counts: dict[str, int] = {}
        for name in self.models:
            counts[name or "failed"] = counts.get(name or "failed", 0) + 1
        shown = ", ".join(f"{name}: {n}" for name, n in sorted(counts.items(), key=lambda item: -item[1]))
        return f"Decisions({len(self)} rows; {shown})"
