"""The policy that a record was decided under, compiled for the bundle that decides it again."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from ipr_engine.asks import ASKS, CALIBRATED
from ipr_engine.decide import DecidePlan, DecidePolicy
from ipr_engine.errors import InvalidInputError
from ipr_engine.generation import MAX_KEPT_POLICIES, Generation
from ipr_engine.policy import Policy, op_terms
from ipr_engine.record import Record
from ipr_engine.record_fields import Resolved
from ipr_engine.record_terms import OF_BUNDLE
from ipr_engine.terms import terms_to_json

EARLIER_RULE = "minmax"  # of a record before schema 3 that names none, and asks nothing else than tau


def policy_of(live: Generation, record: Record, policies: dict[str, Policy | str]) -> Policy:
    """The record's terms compiled for this bundle, once for all records of equal terms; else why they do not fit.

    On the bundle that decided, what they came to then holds; on another they are resolved anew, under the same rule.
    """
    then = record.policy if record.bundle == live.hash else None
    by_second = live.is_second(record.encoder)
    terms = {**record.terms, "rule": _rule(record)}
    pinned = None if then is None else [then.to_json(), by_second]
    key = json.dumps([terms_to_json(terms), pinned], sort_keys=True)
    found = policies.get(key)
    if found is None:
        if len(policies) >= MAX_KEPT_POLICIES:
            policies.clear()
        try:
            found = live.settle(None, terms)
            found = found if then is None else _as_then(live, found, then, by_second)
        except InvalidInputError as error:
            found = f"terms: {_without_names(str(error), live)}"
        policies[key] = found
    if isinstance(found, str):
        raise InvalidInputError(found)
    return found


def _without_names(error: str, live: Generation) -> str:
    """An error of terms that a record holds, without what it says of names that nothing in the record vouches for."""
    name = error.partition(":")[0]
    if name not in OF_BUNDLE:
        return error
    return f"{name}: expected names that bundle {live.hash[:12]} knows, the record has others"


def _rule(record: Record) -> Any:
    """The rule that a record was decided under. Those before schema 3 name none where it was the only answer to what was asked."""
    if record.policy is not None:
        return record.policy.rule
    named = record.terms.get("rule")
    if named is not None:
        return named
    return CALIBRATED if record.terms.keys() & set(ASKS) else EARLIER_RULE


def _as_then(live: Generation, policy: Policy, then: Resolved, by_second: bool) -> Policy:
    """The policy with the coefficients, worth and mask that a record of this very bundle holds."""
    plan = live.second.plan if by_second and live.second is not None else live.plan
    made, names = then.coefficients, live.bundle.names
    kept = (*policy.allowed, *policy.reserve)
    reserve = tuple(name for name in kept if name not in then.allowed)
    sent = {} if by_second else policy.unsupported.op_terms(names, kept)

    def compiled(plan: DecidePlan) -> DecidePolicy:
        return DecidePolicy(plan, **op_terms(live.bundle, made, then.worth, policy.folded, then.allowed), **sent)

    second = policy.second
    if by_second and second is not None:
        second = replace(second, coefficients=made, compiled=compiled(plan))
        return replace(policy, worth=then.worth, allowed=then.allowed, reserve=reserve, second=second)
    return replace(
        policy, worth=then.worth, allowed=then.allowed, reserve=reserve, coefficients=made, compiled=compiled(plan)
    )
