"""A fallback answers when a request's budget is over: another engine's static tier, or one candidate named beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ipr_engine._C import clock_ns
from ipr_engine.bundle import Bundle
from ipr_engine.bundle.context_windows import ContextWindows
from ipr_engine.decide.contract import CAUSE
from ipr_engine.decision.decision import OK, Decision
from ipr_engine.decision.decisions import checked_rows, unpredicted
from ipr_engine.decision.frontier import FrontierStep
from ipr_engine.errors import DeadlineError, InvalidInputError, IprError
from ipr_engine.loaded.loaded_bundle import LoadedBundle
from ipr_engine.policy.calibrated import CalibrationStatus
from ipr_engine.policy.in_use import MAX_KEPT_POLICIES
from ipr_engine.policy.policy import Policy
from ipr_engine.policy.policy_spec import frozen_options
from ipr_engine.prompts import ParsedRequest
from ipr_engine.prompts.parsed import bill_floor
from ipr_engine.request.asked_tasks import asked_tasks
from ipr_engine.request.intake import text_terms
from ipr_engine.request.row_inputs import RowInputs, RowLimits, request_limits
from ipr_engine.serving.metrics import DEADLINE
from ipr_engine.serving.queueing import QueuedRequest, Recordable


class DegradedDecision(Decision):
    """A `DegradedDecision` is made by the fallback: cause "deadline", never calibrated. `degraded` says who answered.

    "static": the fallback engine's own decision, under the same policy; its bundle is the fallback's.
    "candidate": the configured candidate; nothing was predicted, so quality, cost_usd and the like are NaN, and
    billed_tokens, where not given, is the least the prompt can have (one per 8 bytes).
    """

    __slots__ = ("degraded",)

    degraded: str

    @property
    def cause(self) -> str:
        return DEADLINE

    @property
    def calibration_status(self) -> CalibrationStatus:
        return CalibrationStatus(
            "uncalibrated", "answered by the fallback past the deadline; nothing is certified of it"
        )

    @property
    def ranked(self) -> tuple[str, ...]:
        return super().ranked if self.degraded == "static" else (self.bundle.names[self.index],)

    @property
    def frontier(self) -> tuple[FrontierStep, ...]:
        return super().frontier if self.degraded == "static" else ()

    def to_dict(self) -> dict[str, Any]:
        values = super().to_dict() | {"degraded": self.degraded}
        unknown = UNKNOWN if self.degraded == "candidate" else ()
        return values | dict.fromkeys(unknown)


# What no heads predicted, in a decision that a configured candidate answers.
UNKNOWN = ("quality", "cost_usd", "cost", "cost_terms", "tokens_out", "threshold")


class Fallback(Protocol):
    """A `Fallback` has two turns: `prepare` when the request comes, so that what cannot work is refused then, `answer` when it is late."""

    def prepare(self, request: QueuedRequest, loaded: LoadedBundle) -> Any: ...

    def answer(self, request: QueuedRequest, loaded: LoadedBundle) -> Decision | Recordable: ...


class FallbackEngine(Protocol):
    """A `FallbackEngine` is an engine, as far as a fallback reads it."""

    @property
    def loaded(self) -> LoadedBundle: ...


class StaticFallback:
    """A `StaticFallback` decides with another engine's compiled encoder, in microseconds."""

    def __init__(self, engine: FallbackEngine) -> None:
        encoder = engine.loaded.encoder
        if encoder.native is None:
            raise InvalidInputError(
                f"fallback: expected an engine of the static tier, got {encoder.summary}; its forward would be late as well"
            )
        self._engine = engine
        self._as_here: dict[int, tuple[Policy, Policy]] = {}

    def prepare(self, request: QueuedRequest, loaded: LoadedBundle) -> Policy:
        try:
            return self._engine.loaded.resolve(self._for_this_engine(request.policy, loaded))
        except InvalidInputError as error:
            raise InvalidInputError(f"budget_us: the fallback engine cannot serve this policy: {error}") from error

    def _for_this_engine(self, policy: Policy, loaded: LoadedBundle) -> Policy:
        """Return the policy as the fallback engine compiles it; it is made once, then kept.

        It is without escalate_below, which an answer in haste has no time for where there is no second tier; with the figures that the
        engine that serves weighs, since those of the fallback's own bundle may be older.
        """
        changes: dict[str, Any] = {}
        if "escalate_below" in policy.options and not self._engine.loaded.bundle.escalation:
            changes["escalate_below"] = None
        if policy.weighing is not None:
            changes["performance"] = policy.weighing.by_name(loaded.bundle.names)
        if not changes:
            return policy
        found = self._as_here.get(id(policy))  # the kept one cannot lose its id
        if found is None:
            if len(self._as_here) >= MAX_KEPT_POLICIES:
                self._as_here.clear()
            made = replace(policy, options=frozen_options({**policy.options, **changes}))
            found = self._as_here[id(policy)] = policy, made
        return found[1]

    def answer(self, request: QueuedRequest, loaded: LoadedBundle) -> Decision | Recordable:
        here = self._engine.loaded
        policy = here.resolve(request.fallback)
        # the fallback's own bundle decides: its names, prices and hash are on the decision
        encoded = here.encode(
            request.text, {"billed_tokens": request.billed_tokens, "task": request.task}, policy=policy
        )
        overrides = request.overrides.on(here.bundle.names)
        decisions = here.decide_keeping(encoded, policy, overrides, None, [request.text])  # never escalates
        made = checked_rows(decisions, "raise")[0]
        if made.model not in loaded.bundle.names:
            raise InvalidInputError(f"fallback: chose {made.model!r}, which the bundle that serves now lacks")
        figures = made.billed_tokens, made.truncated, made.support, made.own_tokens
        degraded = DegradedDecision(made.result, 0, policy, here.bundle, *figures)
        degraded.degraded, degraded.inputs = "static", made.inputs
        return degraded if request.record is None else Recordable(degraded, here, decisions, 0, "static")


class CandidateFallback:
    """A `CandidateFallback` takes the first of the named candidates that the request's policy allows and the prompt may fit."""

    def __init__(self, names: Sequence[str], bundle: Bundle) -> None:
        unknown = [name for name in names if name not in bundle.names]
        if unknown or not names:
            raise InvalidInputError(
                f"fallback: expected names of candidates ({', '.join(bundle.names)}), got {', '.join(unknown) or 'none'}"
            )
        self._names = tuple(names)

    def prepare(self, request: QueuedRequest, loaded: LoadedBundle) -> tuple[str, int]:
        billed = _least_bill(request.text) if request.billed_tokens is None else request.billed_tokens
        _, away, _ = _kept_out(loaded, request, billed)
        for name in self._names:
            if name in request.policy.allowed and name in loaded.bundle.names and name not in away:
                return name, billed
        why = "".join(f"; {name} {away[name]}" for name in self._names if name in away)
        raise InvalidInputError(
            f"budget_us: the policy allows none of the fallback's candidates ({', '.join(self._names)}) that may answer "
            f"this request{why}; allow another, or leave out the budget"
        )

    def answer(self, request: QueuedRequest, loaded: LoadedBundle) -> Decision | Recordable:
        name, billed = request.fallback
        bundle, policy = loaded.bundle, loaded.resolve(request.policy)
        if name not in bundle.names or name not in policy.allowed:
            raise InvalidInputError(f"fallback: {name!r} is not among the candidates of the bundle that serves now")
        limits, away, counted = _kept_out(loaded, request, billed)
        if name in away:
            raise InvalidInputError(f"fallback: {name!r} {away[name]} in the bundle that serves now")
        at = bundle.names.index(name)
        result = unpredicted(len(bundle.names), index=at, status=OK, cause=CAUSE.index("only_allowed"))
        own = None if counted is None else counted[0]
        made = DegradedDecision(result, 0, policy, bundle, billed, False, None, own)
        stated = request.overrides.on(bundle.names).tokens_in_given
        asked = asked_tasks(request.task, 1, bundle.tasks)
        made.inputs = RowInputs(
            limits,
            tokens_in_given=None if stated is None else stated[0],
            task=None if asked is None else asked[0],
        )
        made.degraded = "candidate"
        return made if request.record is None else Recordable(made, loaded, degraded="candidate")


def _kept_out(
    loaded: LoadedBundle, request: QueuedRequest, billed: int
) -> tuple[RowLimits | None, dict[str, str], npt.NDArray[np.float32] | None]:
    """Return what a request asks for, candidate -> why it may not answer it (its limits, its context window), and (1, models) tokens
    by each candidate's own count, where one names its tokenizer or the caller gives them.
    """
    bundle, text = loaded.bundle, request.text
    models = len(bundle.names)
    overrides = request.overrides.on(bundle.names)
    outputs = overrides.tokens_out
    expected = None if outputs is None else np.broadcast_to(outputs, (1, models))
    limits = request_limits(bundle, (text.needs,), expected, 1)
    asked = None if limits is None else limits.rows[0]
    away = {} if asked is None else dict(asked.excluded)
    output = np.full((1, models), text.max_output_tokens or 0, np.float64) if expected is None else expected
    bills = np.array([billed], np.int64)
    counted = loaded.own_tokens(text_terms([text], [request.billed_tokens is not None]), bills, overrides.tokens_in)
    fits = ContextWindows(bundle.candidates).fit(bills, output, counted)[0]
    prompts = [billed] * models if counted is None else counted[0].tolist()
    for name, prompt, tokens, fit in zip(bundle.names, prompts, output[0], fits, strict=True):
        if not fit and name not in away:
            away[name] = f"lacks a context window for {prompt:.0f} tokens" + (
                f" and {tokens:.0f} of output" if tokens else ""
            )
    return asked, away, counted


def _least_bill(text: ParsedRequest) -> int:
    return sum(bill_floor(part, 0) for part in (text.encoded, *text.billed_only))


def make_fallback(fallback: Any, bundle: Bundle) -> Fallback | None:
    """Return the fallback a caller configured: an engine of the static tier, or candidates by name, the first allowed one answers."""
    if fallback is None:
        return None
    if isinstance(getattr(fallback, "loaded", None), LoadedBundle):
        made = StaticFallback(fallback)
        strangers = sorted(set(fallback.loaded.bundle.names) - set(bundle.names))
        if strangers:
            raise InvalidInputError(f"fallback: its bundle has candidates the engine lacks: {', '.join(strangers)}")
        return made
    names = [fallback] if isinstance(fallback, str) else fallback
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise InvalidInputError(f"fallback: expected an Engine, a candidate's name or several, got {fallback!r}")
    return CandidateFallback(names, bundle)


def answer_late(request: QueuedRequest, fallback: Fallback | None, loaded: LoadedBundle) -> Decision | Recordable:
    """Return the fallback's decision for a request whose budget is over.

    Raises:
        DeadlineError: there is no fallback, or it cannot answer this request; the reason is in the message.
    """
    now_ns = clock_ns()
    reason = "pass fallback=... (an engine of the static tier, or a candidate's name) to get an answer all the same"
    if fallback is not None:
        try:
            return fallback.answer(request, loaded)
        except IprError as error:
            reason = f"and the fallback failed: {error}"
    assert request.budget_us is not None
    raise DeadlineError(request.budget_us, (now_ns - request.begun_ns) / 1e3, reason)
