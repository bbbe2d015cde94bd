"""This file carries a record over to the bundle that decides it again: its policy's terms, its support and its input tokens.

The terms are compiled anew, some of them replaced. Support was measured on an embedding, own tokens were counted from texts. A
record holds neither by default, so another bundle's centroids and tokenizers cannot be asked; then the record's own figures stand,
and a `KeptFigure` says so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from ipr_engine.audit.record import Record
from ipr_engine.audit.record_fields import OF_BUNDLE, Float32s, Resolved
from ipr_engine.bundle import Candidate
from ipr_engine.decide.contract import DecidePlan, DecidePolicy
from ipr_engine.errors import InvalidInputError
from ipr_engine.loaded.planned_bundle import PlannedBundle
from ipr_engine.policy.cost_weights import CostWeights, merged_figures, resolve_weights
from ipr_engine.policy.in_use import MAX_KEPT_POLICIES
from ipr_engine.policy.policy import Policy, op_terms
from ipr_engine.policy.policy_spec import DEFAULTS, Options, frozen_options, options_to_json
from ipr_engine.policy.rules import AIMS, CALIBRATED, EVERY_RULE, PATH, TARGETS, tau_or_target
from ipr_engine.prompts import parse_request
from ipr_engine.request.intake import text_terms

_RATIO = "billed_tokens * token_ratio"
EARLIER_RULE = "minmax"  # of a record before schema 3 that names none, and asks nothing else than tau
_OF_RECORD = ("rule", "cost_weights", "performance")  # whether they fit depends on what else the record holds


def replacing_options(loaded: PlannedBundle, given: Mapping[str, Any]) -> Options:
    """Return the terms that replace those of each record, checked as far as they can be without one.

    Raises:
        InvalidInputError: an unknown term, a value that no record could have here, or two of tau and what is asked instead.
    """
    terms = dict(frozen_options(given))
    unknown = sorted(terms.keys() - DEFAULTS.keys())
    if unknown:
        raise InvalidInputError(f"{', '.join(unknown)}: unknown; known: {', '.join(sorted(DEFAULTS))}")
    if terms.keys() & set(AIMS):
        tau_or_target(terms.get("tau"), {name: terms[name] for name in TARGETS if name in terms})
    if terms.get("rule", EARLIER_RULE) not in EVERY_RULE:
        raise InvalidInputError(f"rule: expected one of {', '.join(map(repr, EVERY_RULE))}, got {terms['rule']!r}")
    resolve_weights(terms.get("cost_weights"), {}, (), ())
    if "performance" in terms:
        checked = merged_figures("performance", {}, terms["performance"], loaded.bundle.names)
        taken_back = {name: None for name, own in terms["performance"].items() if own is None}
        terms["performance"] = {**checked, **taken_back}
    # What is left fits with any rule that takes it: whatever is wrong with it is told before the first record.
    plain = {name: value for name, value in terms.items() if name not in (*AIMS, *_OF_RECORD)}
    beside = {"min_support": 0.0} if "unsupported" in plain and "min_support" not in plain else {}
    loaded.policies.compile({"tau": 0.0, "rule": "max" if "slack" in plain else "minmax", **beside, **plain})
    return terms


def by_second_heads(loaded: PlannedBundle, record: Record) -> bool:
    """Return whether a record's decision is one for a two-tier bundle's second heads: by its encoder, or by its heads where both tiers
    read one encoder."""
    heads = loaded.bundle.escalation_heads
    if loaded.second is None or heads is None or record.encoder != loaded.second.identity:
        return False
    return loaded.is_second(record.encoder) or record.heads == heads.sha256


def policy_of(
    loaded: PlannedBundle, record: Record, policies: dict[str, Policy | str], replaced: Options | None = None
) -> Policy:
    """Return the record's terms compiled for this bundle, once for all records of equal terms; else why they do not fit.

    On the bundle that decided, what they came to then holds; on another, and where some are replaced, they are resolved anew,
    under the same rule unless another is given.
    """
    then = record.policy if record.bundle == loaded.hash and not replaced else None
    by_second = by_second_heads(loaded, record)
    terms = {**record.terms, "rule": _rule(record)}
    if (
        "performance" in terms
    ):  # a recorder writes everybody's figures: those of a candidate that is gone say nothing here
        known = {name.casefold() for name in loaded.bundle.names}
        terms["performance"] = {name: own for name, own in terms["performance"].items() if name.casefold() in known}
    # What the terms came to then is part of the key: equal terms need not have come to the same.
    pinned = None if then is None else [then.to_json(), by_second]
    key = json.dumps([options_to_json(terms), pinned], sort_keys=True)
    found = policies.get(key)
    if found is None:
        # A log may hold any number of policies: the table is bounded. Errors are kept in it like policies.
        if len(policies) >= MAX_KEPT_POLICIES:
            policies.clear()
        try:
            found = loaded.policies.of_options(_replaced(terms, replaced, loaded.bundle.names) if replaced else terms)
            found = found if then is None else _as_then(loaded, found, then, by_second)
        except InvalidInputError as error:
            found = f"terms: {_without_names(str(error), loaded)}"
        policies[key] = found
    if isinstance(found, str):
        raise InvalidInputError(f"{found}{_of_another(loaded, record)}")
    return found


def _of_another(loaded: PlannedBundle, record: Record) -> str:
    """Return what to say of a record whose candidates this bundle does not all have."""
    if record.bundle == loaded.hash or set(record.candidates) <= set(loaded.bundle.names):
        return ""
    return f"; the record is of bundle {record.bundle[:12]}, and this is {loaded.hash[:12]}: give the one that you mean, with --bundle"


def _replaced(own: dict[str, Any], given: Options, names: tuple[str, ...]) -> dict[str, Any]:
    """Return a record's terms with the given ones in their place.

    tau and what is asked instead of it replace each other. Figures are taken number by number, over those that the record weighed.
    The record's worth, slack and figures stay only where the rule and the weights that then run read them.
    """
    left = AIMS if given.keys() & set(AIMS) else ()
    terms = {**{name: value for name, value in own.items() if name not in left}, **given}
    if "performance" in own and "performance" in given:
        weighed = merged_figures("performance", {}, own["performance"], names)
        terms["performance"] = merged_figures("performance", weighed, given["performance"], names)
    of_usd = "cost_weights" in terms and CostWeights(**terms["cost_weights"]) == CostWeights()
    for name, is_read in (
        ("worth", terms["rule"] != PATH),
        ("slack", terms["rule"] == "max"),
        ("performance", not of_usd),
    ):
        if name not in given and not is_read:
            terms.pop(name, None)
    return terms


def _without_names(error: str, loaded: PlannedBundle) -> str:
    """Return an error of terms that a record holds, without the names in it that nothing in the record vouches for."""
    name = error.partition(":")[0]
    if name not in OF_BUNDLE:
        return error
    return f"{name}: expected names that bundle {loaded.hash[:12]} knows, the record has others"


def _rule(record: Record) -> Any:
    """Return the rule that a record was decided under.

    Records before schema 3 name none where it was the only answer to what was asked.
    """
    if record.policy is not None:
        return record.policy.rule
    named = record.terms.get("rule")
    if named is not None:
        return named
    return CALIBRATED if record.terms.keys() & set(TARGETS) else EARLIER_RULE


def _as_then(loaded: PlannedBundle, policy: Policy, then: Resolved, by_second: bool) -> Policy:
    """Return the policy with the coefficients, worth and mask that a record of this very bundle holds."""
    plan = loaded.second.plan if by_second and loaded.second is not None else loaded.plan
    made, names = then.coefficients, loaded.bundle.names
    kept = (*policy.allowed, *policy.reserve)
    # Candidates that answer only where the support is small.
    reserve = tuple(name for name in kept if name not in then.allowed)
    sent = {} if by_second else policy.unsupported.op_terms(names, kept)

    def compiled(plan: DecidePlan) -> DecidePolicy:
        return DecidePolicy(plan, **op_terms(loaded.bundle, made, then.worth, policy.folded, then.allowed), **sent)

    second = policy.second
    if by_second and second is not None:
        second = replace(second, coefficients=made, compiled=compiled(plan))
        return replace(policy, worth=then.worth, allowed=then.allowed, reserve=reserve, second=second)
    return replace(
        policy, worth=then.worth, allowed=then.allowed, reserve=reserve, coefficients=made, compiled=compiled(plan)
    )


class KeptFigure(NamedTuple):
    """A `KeptFigure` is a figure of the record that stands though this bundle would make another.

    field: "support", "own_tokens" or "own_tokens[name]".
    """

    field: str
    why: str

    def __str__(self) -> str:
        return f"{self.field} kept: {self.why}"


def input_tokens(loaded: PlannedBundle, record: Record) -> tuple[Float32s | None, list[KeptFigure]]:
    """Return (models,) input tokens by the own count of this bundle's candidates, and which of them are the record's.

    They are None where nobody told any and no candidate names its tokenizer.

    What the caller told stands. Else, where the same tokenizer counted, or none did, the figure is this bundle's; where the prompt is at
    hand it is counted anew.
    """
    made, kept = _estimated(loaded, record)
    if record.bundle == loaded.hash or not record.tokens_in_given or record.own_tokens is None:
        return made, kept
    stated = {record.candidates[m]: record.own_tokens[m] for m in record.tokens_in_given}
    own = [_by_ratio(c, record.billed_tokens) for c in loaded.bundle.candidates] if made is None else made.tolist()
    named = [stated.get(name, tokens) for name, tokens in zip(loaded.bundle.names, own, strict=True)]
    # What the caller told is no figure that somebody should have counted anew.
    stand = {f"own_tokens[{name}]" for name in stated}
    return np.array(named, np.float32), [one for one in kept if one.field not in stand]


def _estimated(loaded: PlannedBundle, record: Record) -> tuple[Float32s | None, list[KeptFigure]]:
    """Return what `input_tokens` returns of a caller who told nothing."""
    now = [None if c.tokenizer is None else c.tokenizer.key for c in loaded.bundle.candidates]
    own, billed = record.own_tokens, record.billed_tokens
    if record.bundle == loaded.hash or (own is None and not any(now)):
        return own, []
    then = record.tokenizers
    given = record.bill_given or record.tokens_in_given
    if own is not None and then is None and not given:  # of a build that did not keep who counted
        stated = KeptFigure("own_tokens", "the line does not say which tokenizers counted them")
        return _as_counted(loaded, record, [True] * len(now)), [stated]
    if not any(now):
        return None, []
    by_ratio = np.array([_by_ratio(c, billed) for c in loaded.bundle.candidates], np.float32)
    if record.bill_given:
        return by_ratio, []
    before = dict(zip(record.candidates, then or [None] * len(record.candidates), strict=True))
    differ = [
        key is not None and not _counts_alike(before.get(c.name), key)
        for c, key in zip(loaded.bundle.candidates, now, strict=True)
    ]
    if any(differ) and record.prompt is not None:
        terms = text_terms([parse_request(record.prompt)], [False])
        counted = loaded.router.own_tokens(terms, np.array([billed], np.int64))
        return None if counted is None else counted[0], []
    kept = [
        KeptFigure(
            f"own_tokens[{c.name}]",
            f"counted by {before.get(c.name) or _RATIO}, and this bundle counts by {key}; its text is not here",
        )
        for c, key, other in zip(loaded.bundle.candidates, now, differ, strict=True)
        if other
    ]
    counted_then = [
        key is not None and before.get(c.name) is not None for c, key in zip(loaded.bundle.candidates, now, strict=True)
    ]
    return _as_counted(loaded, record, counted_then), kept


def support(loaded: PlannedBundle, record: Record, policy: Policy) -> tuple[np.float32 | None, list[KeptFigure]]:
    """Return the support of a record as this bundle may read it, and a `KeptFigure` where it is the record's own.

    The record is one that first heads decided, without an embedding at hand.

    Raises:
        InvalidInputError: other centroids measured it, and the policy's min_support decides by it.
    """
    measured, now = record.outcome.support, loaded.bundle.support
    if record.bundle == loaded.hash or (measured is None and now is None):
        return measured, []
    if measured is None:
        return None, [
            KeptFigure(
                "support", "the record has none, and this bundle measures it on an embedding; min_support asks nothing"
            )
        ]
    if record.centroids is None:
        return measured, [KeptFigure("support", "the line does not say which centroids measured it")]
    if now is None:
        return None, []
    if now.key == record.centroids:
        return measured, []
    if policy.unsupported.min_support:
        raise InvalidInputError(
            f"support: measured on centroids {record.centroids}, this bundle has {now.key}, and min_support decides by it; record with "
            "keep_x=True and a key (ipr route --record-x --key FILE), or replay with min_support=0"
        )
    return measured, [KeptFigure("support", f"measured on centroids {record.centroids}, and this bundle has {now.key}")]


def _counts_alike(then: str | None, now: str) -> bool:
    """Return whether two profiles count the same, whatever they are called."""
    return then is not None and then.rpartition(":")[2] == now.rpartition(":")[2]


def _by_ratio(candidate: Candidate, billed_tokens: int) -> float:
    """Return a candidate's input tokens where no tokenizer of its own counts them."""
    return billed_tokens * candidate.token_ratio


def _as_counted(loaded: PlannedBundle, record: Record, counted: list[bool]) -> Float32s:
    """Return (models,) the record's own tokens where they were counted so, and of others by the bundle's tokenizer."""
    own = {} if record.own_tokens is None else dict(zip(record.candidates, record.own_tokens.tolist(), strict=True))
    figures = [
        own.get(c.name, _by_ratio(c, record.billed_tokens)) if kept else _by_ratio(c, record.billed_tokens)
        for c, kept in zip(loaded.bundle.candidates, counted, strict=True)
    ]
    return np.array(figures, np.float32)
