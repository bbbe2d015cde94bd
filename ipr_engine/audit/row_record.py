"""This file makes the record of each row that was decided: what it was decided on, by what, and what came of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine.audit.outcome import CHOICE, Outcome
from ipr_engine.audit.record import Record
from ipr_engine.audit.record_fields import UNPREDICTED, Resolved
from ipr_engine.bundle import BundleSpec
from ipr_engine.decide.contract import STATUS, DecidePlan, DecidePolicy
from ipr_engine.decision.decision import Decision
from ipr_engine.decision.decisions import Decisions, MadeOn
from ipr_engine.loaded.planned_bundle import PlannedBundle
from ipr_engine.policy.policy import Policy
from ipr_engine.policy.policy_spec import Options
from ipr_engine.prompts import Needs

_WORD = re.compile(r"[\u2e80-\U0003ffff]|\w+")  # a sign of a script without blanks is a word


def outcome_of(decisions: Decisions, row: int) -> Outcome:
    """Return the outcome of one row of a batch."""
    decision = decisions[row]
    return Outcome(
        model=decision.model,
        index=decision.index,
        status=decision.status,
        cause=decision.cause,
        quality=decisions.qualities[row],
        cost_usd=decision.costs_usd,
        tokens_out=decisions.tokens_out[row],
        threshold=decisions.threshold[row],
        gap=decisions.gap[row],
        support=None if decisions.support is None or decision.escalated else decisions.support[row],
    )


def row_records(loaded: PlannedBundle, decisions: Decisions, made_on: MadeOn, min_words: int) -> Callable[..., Record]:
    """Return a function that makes the record of a row; what is kept of the row besides (x, prompt, id) is passed as keywords.

    Args:
        loaded: the bundle that decided. made_on: what it decided on.
        min_words: a prompt of which fewer different words were encoded, or whose newest turn has fewer, is brief; of embeddings without
            texts the billed tokens count.
    """
    bundle, policy, second = loaded.bundle, decisions.policy, loaded.second
    encoded, overrides, batch, models = made_on.encoded, made_on.overrides, len(decisions), len(loaded.bundle.names)
    tokens_out, extra_usd = _rows_of(overrides.tokens_out, batch, models), _rows_of(overrides.extra_usd, batch, models)
    cached, given_tokens = overrides.cached_tokens, overrides.tokens_in_given
    escalated = decisions.escalated.tolist()
    # What all rows of a batch have in common is made once.
    options, most, profiles = recorded_options(policy, bundle), _most_tokens(bundle), tokenizer_keys(bundle)
    centroids = None if bundle.support is None else bundle.support.key
    resolved = [Resolved.of(policy, by_second=by_second) for by_second in (False, True)]

    def record_of(row: int, **kept: Any) -> Record:
        by_second = escalated[row] and second is not None
        outcome = outcome_of(decisions, row)
        deciding = second if escalated[row] and second is not None else None
        texts = None if made_on.texts is None else made_on.texts[row]
        words = int(encoded.billed_tokens[row]) if texts is None else min(map(distinct_words, texts))
        # of a bare array no text was counted
        bill_given = encoded.terms is None or bool(np.isnan(encoded.terms[row, 0]))
        return Record(
            billed_tokens=int(encoded.billed_tokens[row]),
            truncated=bool(decisions.truncated[row]),
            tokens_out=None if tokens_out is None else tokens_out[row],
            extra_usd=None if extra_usd is None else extra_usd[row],
            terms=options,
            policy=resolved[by_second],
            candidates=bundle.names,
            max_output_tokens=most,
            nonfinite=nonfinite_logits(
                loaded.plan if deciding is None else deciding.plan, made_on.x[row], outcome.quality
            ),
            bundle=bundle.hash,
            encoder=loaded.encoder_identity if deciding is None else deciding.identity,
            heads=decisions[row].heads.sha256,
            prices=bundle.prices_sha256,
            isa=loaded.plan.isa,
            encoder_tier=None if made_on.texts is None else (loaded if deciding is None else deciding).encoder.tier,
            outcome=outcome,
            needs=None if encoded.needs is None else encoded.needs[row],
            own_tokens=None if decisions.own_tokens is None else decisions.own_tokens[row],
            cached_tokens=None if cached is None else cached[row].astype(np.float32),
            tokenizers=None if bill_given else profiles,
            centroids=None if outcome.support is None else centroids,
            bill_given=bill_given,
            tokens_in_given=() if given_tokens is None else tuple(np.flatnonzero(given_tokens[row]).tolist()),
            task=None if encoded.tasks is None else encoded.tasks[row],
            brief=words < min_words,
            **kept,
        )

    return record_of


def unpredicted_record(loaded: PlannedBundle, decision: Decision, needs: Needs | None, *, bill_given: bool) -> Record:
    """Return the record of an answer that nothing was predicted for: a fallback's candidate, past the deadline of its request.

    It says who answered, under which policy of which bundle. `replay` refuses it: there is nothing to decide again.
    """
    bundle, policy, nan = loaded.bundle, decision.policy, np.float32("nan")
    nothing = np.full(len(bundle.names), nan, np.float32)
    return Record(
        billed_tokens=decision.billed_tokens,
        truncated=decision.truncated,
        tokens_out=None,
        extra_usd=None,
        terms=recorded_options(policy, bundle),
        policy=Resolved.of(policy, by_second=False),
        candidates=bundle.names,
        max_output_tokens=_most_tokens(bundle),
        bundle=bundle.hash,
        encoder=loaded.encoder_identity,
        heads=bundle.quality_heads.sha256,
        prices=bundle.prices_sha256,
        isa=loaded.plan.isa,
        outcome=Outcome(
            **{name: getattr(decision, name) for name in CHOICE},
            quality=nothing,
            cost_usd=nothing,
            tokens_out=nothing,
            threshold=nan,
            gap=nan,
            support=None,
        ),
        needs=needs,
        task=decision.inputs.task,
        bill_given=bill_given,
        degraded=UNPREDICTED,
    )


def _rows_of(values: npt.NDArray[np.float32] | None, batch: int, models: int) -> npt.NDArray[np.float32] | None:
    """Return values given once, or one a row, as (batch, models)."""
    return None if values is None else np.broadcast_to(values, (batch, models))


def distinct_words(text: str) -> int:
    """Return how many different words a text has, whatever their case."""
    return len(set(_WORD.findall(text.casefold())))


def nonfinite_logits(plan: DecidePlan, x: npt.NDArray[np.float32], quality: npt.NDArray[np.float32]) -> tuple[int, ...]:
    """Return the candidates, by position, whose logit on x is not finite.

    A quality of 0 or 1 does not tell, so the op is asked for each of those alone.
    """
    unclear = np.flatnonzero(~((quality > 0) & (quality < 1)))
    if not len(unclear):
        return ()
    nothing = np.zeros(plan.models, np.float32)
    found = []
    for m in unclear.tolist():
        # With this one candidate allowed the op's status speaks of its logit.
        alone = np.arange(plan.models) == m
        policy = DecidePolicy(
            plan,
            alpha_hi=1,
            alpha_lo=0,
            offset=0,
            worth=0,
            in_rate=nothing,
            out_rate=nothing,
            fixed_usd=nothing,
            allowed=alone,
        )
        made = plan.run(x[None], policy, 0, tokens_out=nothing)
        if STATUS[made.status_at(0)] == "nonfinite_quality":
            found.append(m)
    return tuple(found)


def recorded_options(policy: Policy, bundle: BundleSpec) -> Options:
    """Return the policy's terms, with the figures that it weighed: the engine's may be others by the time of a replay."""
    # Figures that no weight reads are not part of the decision.
    if policy.weighing is None:
        return policy.options
    return {**policy.options, "performance": policy.weighing.by_name(bundle.names)}


def tokenizer_keys(bundle: BundleSpec) -> tuple[str | None, ...] | None:
    """Return which profile counts each candidate's own tokens; None where no candidate names one."""
    named = tuple(None if c.tokenizer is None else c.tokenizer.key for c in bundle.candidates)
    return named if any(named) else None


def _most_tokens(bundle: BundleSpec) -> tuple[int | None, ...] | None:
    """Return the most output tokens of each candidate; None where none states it."""
    stated = tuple(candidate.max_output_tokens for candidate in bundle.candidates)
    return stated if any(most is not None for most in stated) else None
