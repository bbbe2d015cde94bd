"""This file decides a record again from its qualities and output tokens, without embedding or heads (docs/decide.md, docs/formats.md).

The steps are the op's, in float32 and in its written order, so that every tolerance, mask and price gives the op's bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ipr_engine.audit.outcome import Outcome
from ipr_engine.bundle.context_windows import ContextWindows, most_output
from ipr_engine.decide.contract import CAUSE
from ipr_engine.decide.numpy_rule import level, order, threshold
from ipr_engine.decide.reference import expected_cost
from ipr_engine.errors import InvalidInputError
from ipr_engine.policy.rules import UNSUPPORTED, Coefficients
from ipr_engine.request.row_inputs import request_limits

if TYPE_CHECKING:
    from ipr_engine.audit.record import Record
    from ipr_engine.bundle import BundleSpec, HeadsSpec
    from ipr_engine.policy.policy import Policy

Float32s = npt.NDArray[np.float32]
NAN, INF = np.float32("nan"), np.float32("inf")


def in_order(name: str, values: Float32s | None, had: Sequence[str], has: Sequence[str]) -> Float32s | None:
    """Return values given per recorded candidate, in this bundle's order."""
    if values is None or tuple(had) == tuple(has):
        return values
    new = [candidate for candidate in has if candidate not in had]
    if new:
        raise InvalidInputError(f"{name}: the record gives none for {', '.join(new)}, which the bundle has")
    return values[[had.index(candidate) for candidate in has]]


def decide_figures(
    record: Record,
    policy: Policy,
    bundle: BundleSpec,
    heads: HeadsSpec,
    *,
    own_tokens: Float32s | None,
    support: np.float32 | None,
) -> Outcome:
    """Return the outcome of the record's qualities and tokens under a policy of this bundle.

    Args:
        heads: of the bundle, those whose predictions the record holds.
        own_tokens: (models,) input tokens by the own count of the bundle's candidates, None where none names its tokenizer.
        support: None where it was not measured.
    Raises:
        InvalidInputError: the record cannot tell: it lacks a candidate, or its output tokens were cut below what this bundle allows.
    """
    names = bundle.names
    quality, predicted, given, extra, cached = (
        in_order(name, values, record.candidates, names)
        for name, values in (
            ("quality", record.outcome.quality),
            ("tokens_out", record.outcome.tokens_out),
            ("tokens_out", record.tokens_out),
            ("extra_usd", record.extra_usd),
            ("cached_tokens", record.cached_tokens),
        )
    )
    # All (models,), in this bundle's order; a record always has these two.
    assert quality is not None
    assert predicted is not None
    asked = None if record.needs is None else (record.needs,)
    limits = request_limits(bundle, asked, given, 1)
    stated = None if limits is None else limits.max_tokens
    answers = np.float32(1 if record.needs is None else record.needs.answers)
    each = predicted / answers  # what a record tells is of all answers
    # A record tells what was decided with; the bundle may allow more now than what they were cut at.
    tokens = _within_most(record, each, bundle, heads) if given is None else given
    bill = np.array([record.billed_tokens], np.int64)
    # bill: (1,), own: (1, models)
    windows, own = ContextWindows(bundle.candidates), None if own_tokens is None else own_tokens[None]
    fits, one = windows.within(bill, tokens[None], stated, own=own)
    # Where nothing cuts them the predicted tokens of all answers stand, bit for bit; one answer's times answers may differ.
    cut = (one[0] < each) if given is None else np.ones(len(names), np.bool_)
    wanted = np.where(cut, one[0] * answers, predicted)
    can = fits[0] if limits is None or limits.allowed is None else fits[0] & limits.allowed[0]
    allowed = can & np.array([name in policy.allowed for name in names], np.bool_)
    second = policy.second if heads is bundle.escalation_heads else None
    made = policy.coefficients if second is None else second.coefficients
    held = None if cached is None else cached[None].astype(np.float64)
    extra = policy.rates.with_images(policy.rates.with_cached(extra, bill, own, held), asked)
    # the policy's rates are of the bundle's tokens: token_ratio is in them
    counted = bill[:, None] if own is None else own.astype(np.float64) / windows.ratios
    cost = _cost(policy, counted, wanted, policy.weighed(extra))
    # Under weights `cost` is what was minimised, in other units than USD.
    usd = cost if policy.weighing is None else policy.usd(bill, own, wanted[None], extra)[0]
    nonfinite = np.array([record.candidates.index(name) in record.nonfinite for name in names])
    with np.errstate(all="ignore"):
        index, status, cause, level, gap = choose(
            made, policy.worth, quality, cost, allowed, np.isnan(quality) | nonfinite, bundle.tie_rank
        )
    if status == "ok" and second is None and support is not None and float(support) < policy.unsupported.min_support:
        may = can & np.array([name in policy.allowed or name in policy.reserve for name in names], np.bool_)
        to = _sent_to(policy, quality, cost, may & ~nonfinite, bundle)
        cause = CAUSE[UNSUPPORTED]
        if to is not None:
            index, level, gap = to, np.float32(0), INF
    return Outcome(
        model=None if index < 0 else names[index],
        index=index,
        status=status,
        cause=cause,
        quality=quality,
        cost_usd=usd,
        tokens_out=_plain_nan(wanted),
        threshold=level,
        gap=gap,
        support=support,
    )


def _sent_to(
    policy: Policy, quality: Float32s, cost: Float32s, may: npt.NDArray[np.bool_], bundle: BundleSpec
) -> int | None:
    """Return who answers a row of little support, as csrc/src/order.cpp.

    It is None where the one meant cannot answer: then the plain decision stands.
    """
    able = may & np.isfinite(quality) & np.isfinite(cost)
    named = policy.unsupported.candidate
    if named is None:
        return next((m for m in order(quality, cost, 0.0, bundle.tie_rank) if able[m]), None)
    at = bundle.names.index(named)
    return at if able[at] else None


def choose(
    made: Coefficients,
    worth: float,
    quality: Float32s,
    cost: Float32s,
    allowed: npt.NDArray[np.bool_],
    nonfinite: npt.NDArray[np.bool_],
    tie_rank: npt.NDArray[np.int32],
) -> tuple[int, str, str, np.float32, np.float32]:
    """Return index, status, cause, threshold and gap, as csrc/src/simd/decide_kernel.h; the arrays are (models,)."""
    for status, bad in (
        ("none_allowed", not allowed.any()),
        ("nonfinite_quality", bool(nonfinite[allowed].any())),
        ("nonfinite_cost", not np.isfinite(cost[allowed]).all()),
    ):
        if bad:
            return -1, status, "failed", NAN, NAN
    hi, lo = quality[allowed].max(), quality[allowed].min()
    least = threshold(made, hi, lo)
    chosen = next(m for m in order(quality, cost, worth, tie_rank) if allowed[m] and quality[m] >= least)
    others = allowed.copy()  # who could be chosen in its place
    others[chosen] = False
    # Nobody else could be chosen: no change of price or tau moves this decision.
    if not others.any():
        return chosen, "ok", "only_allowed", least, INF
    # gap is the least change of quality that changes the choice: the chosen falls below the threshold, or another enters.
    leaving = quality[chosen] - (
        threshold(made, quality[others].max(), quality[others].min()) if quality[chosen] == hi else least
    )
    # float32 from here on, as the op: products and differences round alike.
    paid = np.float32(worth)
    objective = cost - paid * quality
    over = objective[others] - objective[chosen]
    to_pay = over / paid if paid > 0 else np.full(len(over), INF)
    zero = np.float32(0)
    dearer = np.where(objective[others] > objective[chosen], to_pay, zero)
    entering = np.maximum(np.maximum(least - quality[others], zero), dearer).min()
    gap = max(zero, min(leaving, entering))
    if made.alpha_hi == made.alpha_lo == 0 and level(made, hi, lo) > hi:
        cause = "below_fixed_level"
    else:
        cause = "best_quality" if quality[chosen] == hi else "within_tolerance"
    return chosen, "ok", cause, np.float32(least), np.float32(gap)


def _cost(policy: Policy, bill: npt.NDArray[Any], tokens: Float32s, extra: Float32s | None) -> Float32s:
    """Return (models,) costs as weighed: fixed + (in_rate * billed + out_rate * tokens) in the tier of the bill, then extra."""
    with np.errstate(all="ignore"):  # what is not finite gets a status
        cost = expected_cost(**policy.folded.op_terms(), billed_tokens=bill.astype(np.float32), tokens_out=tokens)
        return _plain_nan((cost if extra is None else cost + extra)[0])


def _plain_nan(values: Float32s) -> Float32s:
    """Return the values with every NaN the same one, as the op writes it."""
    return np.where(np.isnan(values), NAN, values)


def _within_most(record: Record, predicted: Float32s, bundle: BundleSpec, heads: HeadsSpec) -> Float32s:
    """Return predicted output tokens under this bundle's own limits of its candidates."""
    then = record.max_output_tokens or (None,) * len(record.candidates)
    for m, candidate in enumerate(bundle.candidates):
        before, now = then[record.candidates.index(candidate.name)], candidate.max_output_tokens
        if before is not None and (now is None or now > before) and predicted[m] >= np.float32(before):
            raise InvalidInputError(
                f"tokens_out: those of {candidate.name} were cut at {before}, its most then, and it may give more now; only "
                "the heads can tell: record with keep_x=True and a key (ipr route --record-x --key FILE)"
            )
    if all(candidate.max_output_tokens is None for candidate in bundle.candidates):
        return predicted
    return np.minimum(
        predicted, np.minimum(most_output(bundle.candidates, heads), np.finfo(np.float32).max).astype(np.float32)
    )
