"""`replay` decides every record of a log again, with any bundle and instruction set, and says what differs, bit for bit.

summary = ReplaySummary()
with open("log.jsonl", "rb") as log:
    for replayed in replay(log, engine):  # key=... where embeddings are sealed; tau=... in place of each record's own
        summary.add(replayed)
        print(replayed.line, replayed.differences, replayed.refused)

A record without an embedding is decided again from its qualities and output tokens, for which its heads must be the bundle's;
one with an embedding by the heads themselves.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import numpy as np

from ipr_engine.audit.carried_over import (
    KeptFigure,
    by_second_heads,
    input_tokens,
    policy_of,
    replacing_options,
    support,
)
from ipr_engine.audit.from_figures import decide_figures, in_order
from ipr_engine.audit.outcome import Difference, Outcome, compare
from ipr_engine.audit.owner_key import OwnerKey
from ipr_engine.audit.record import Record
from ipr_engine.audit.record_fields import UNPREDICTED
from ipr_engine.audit.row_record import outcome_of
from ipr_engine.encoders.base import Encoded
from ipr_engine.errors import InvalidInputError, KeyMismatchError, RecordError
from ipr_engine.loaded.loaded_bundle import LoadedBundle
from ipr_engine.policy.policy import Policy
from ipr_engine.policy.policy_spec import Options, options_to_json
from ipr_engine.request.overrides import RequestOverrides


class ReplayingEngine(Protocol):
    """A `ReplayingEngine` gives the bundle that serves when a replay begins."""

    @property
    def loaded(self) -> LoadedBundle: ...


class Replayed(NamedTuple):
    """A `Replayed` is one line of a log, decided again.

    Attributes:
        line: its number, from 1.
        record: what it held; None when it is damaged.
        outcome: what was decided now; None when it was not.
        differences: every field of the two that differs.
        refused: why it was not decided again: a damaged line, figures withheld, other heads or another encoder, another key, terms
            that do not fit the bundle.
        by_heads: whether the heads decided, on the record's embedding; else its own qualities and tokens were taken.
        kept: figures of the record that went into the outcome though this bundle would make others of the prompt.
        replaced: the terms that stood in place of the record's own; none where it was decided under its own policy.
        whole_policy: whether they are those of one Policy, which replaced all of the record's terms.
    """

    line: int
    record: Record | None = None
    outcome: Outcome | None = None
    differences: tuple[Difference, ...] = ()
    refused: str | None = None
    by_heads: bool = False
    kept: tuple[KeptFigure, ...] = ()
    replaced: Options = MappingProxyType({})
    whole_policy: bool = False


def replay(
    lines: Iterable[bytes],
    engine: ReplayingEngine,
    policy: Policy | None = None,
    *,
    key: OwnerKey | str | os.PathLike[str] | bytes | None = None,
    **terms: Any,
) -> Iterator[Replayed]:
    """Decide each record again with the bundle that `engine` serves when this begins.

    Args:
        lines: records as a Recorder wrote them, of any schema, one a line; empty lines are passed over.
        engine: of any bundle with the heads of the records, or, for records with an embedding, whose heads read its encoder; on any
            instruction set. Of a two-tier bundle the heads that decided a record, or that read its encoder, decide it again; whether
            it would escalate now is not asked, as there is no text.
        policy: decide under this one, whatever a record was decided under.
        terms: as `Engine.policy` takes them, in place of each record's own; its other terms stay, None leaves the record's. tau and
            what is asked instead of it replace each other. A record's rule stays unless one is given, and a record of whose rule
            or candidates a given term makes no sense is refused. Its worth and slack stay where the rule that then runs has them.
            `performance` is taken number by number, over the figures that the record weighed; None takes a candidate's away.
        key: opens what is sealed in the records.
    Raises:
        InvalidInputError: the key, the policy or its terms. A record that cannot be replayed is told in `Replayed.refused`.
    """
    # Read once: a swap while the log is read changes nothing.
    loaded = engine.loaded
    opener = None if key is None else OwnerKey.load(key)
    if policy is not None:
        whole = loaded.resolve(policy, terms)
        return _replay(lines, loaded, opener, whole, whole.options)
    return _replay(lines, loaded, opener, None, replacing_options(loaded, terms))


def _replay(
    lines: Iterable[bytes], loaded: LoadedBundle, key: OwnerKey | None, whole: Policy | None, replaced: Options
) -> Iterator[Replayed]:
    """Yield each line of a log, decided again; `whole` replaces all of a record's terms, `replaced` some."""
    policies: dict[str, Policy | str] = {}  # terms as JSON -> the compiled policy, or why they do not fit this bundle
    stated = partial(Replayed, replaced=replaced, whole_policy=whole is not None)
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        record = None
        try:
            record = Record.from_line(line)
            if key is not None:
                record = record.opened(key)
            outcome, kept = _decide(loaded, record, whole or policy_of(loaded, record, policies, replaced))
        # One bad line does not end a replay.
        except (RecordError, KeyMismatchError, InvalidInputError) as error:
            yield stated(number, record, refused=str(error))
            continue
        differences = tuple(compare(record.candidates, record.outcome, loaded.bundle.names, outcome))
        yield stated(number, record, outcome, differences, by_heads=record.x is not None, kept=tuple(kept))


def _decide(loaded: LoadedBundle, record: Record, policy: Policy) -> tuple[Outcome, list[KeptFigure]]:
    """Return what is decided now, by the heads where the record holds an embedding, and which figures of it are the record's."""
    if record.degraded == UNPREDICTED:
        raise InvalidInputError(
            "degraded: the fallback's candidate answered past the deadline; nothing was predicted that could be decided again"
        )
    if record.x is None:
        return _from_figures(loaded, record, policy)
    by_second = by_second_heads(loaded, record)
    if record.encoder != loaded.encoder_identity and not by_second:
        raise InvalidInputError(
            f"x: embedded by encoder {record.encoder[:12]}, but the heads of bundle {loaded.hash[:12]} read "
            f"{loaded.read_by_heads()}{loaded.same_model(record.encoder)}; replay it with a bundle on the encoder of the record"
        )
    dim = loaded.second.plan.dim if by_second and loaded.second is not None else loaded.plan.dim
    if len(record.x) != dim:
        raise InvalidInputError(f"x: expected {dim} numbers, got {len(record.x)}")
    names = loaded.bundle.names
    encoded = Encoded(
        record.x[None, :],  # (1, dim)
        np.array([record.billed_tokens], np.int64),
        np.array([record.truncated]),
        record.encoder,
        None if record.needs is None else (record.needs,),
    )
    given = {
        name: in_order(name, getattr(record, name), record.candidates, names)
        for name in ("tokens_out", "extra_usd", "cached_tokens")
    }
    own, kept = input_tokens(loaded, record)
    overrides = RequestOverrides.of(given, 1, names, policy.prices)
    if own is not None:
        overrides = replace(overrides, tokens_in=own[None])  # (1, models)
    # Of an encoder that both tiers read the embedding is taken for the first heads', which then ask the second ones again.
    again = (lambda rows: encoded[rows]) if by_second and not loaded.is_second(record.encoder) else None
    made = loaded.decide(encoded, policy, overrides, again)
    return outcome_of(made, 0), kept


def _from_figures(loaded: LoadedBundle, record: Record, policy: Policy) -> tuple[Outcome, list[KeptFigure]]:
    """Decide from the record's own qualities and tokens, which are those of its heads."""
    if record.withheld:
        sealing = record.sealed
        todo = "record with a key, which seals them" if sealing is None else f"give the key of id {sealing.key}"
        raise InvalidInputError(f"decision: the figures of a prompt of so few words are not kept in clear; {todo}")
    sealed = "" if record.sealed is None else f", or give the key of id {record.sealed.key} if it seals one"
    heads = [h for h in (loaded.bundle.quality_heads, loaded.bundle.escalation_heads) if h is not None]
    own = next((one for one in heads if one.sha256 == record.heads), None)
    if own is None:
        raise InvalidInputError(
            f"x: decided by heads {record.heads[:12]}, bundle {loaded.hash[:12]} has {', '.join(h.sha256[:12] for h in heads)}, and "
            f"what other heads make of a prompt only its embedding tells: record with keep_x=True and a key "
            f"(ipr route --record-x --key FILE){sealed}"
        )
    counted, kept = input_tokens(loaded, record)
    # Second heads read another embedding than centroids measure.
    measured = record.outcome.support
    if own is not loaded.bundle.escalation_heads:
        measured, also = support(loaded, record, policy)
        kept += also
    return decide_figures(record, policy, loaded.bundle, own, own_tokens=counted, support=measured), kept


SHOWN_REASONS = 5  # why records were not replayed, of the text


@dataclass
class ReplaySummary:
    """A `ReplaySummary` counts what a whole log came to.

    Attributes:
        records: lines that hold one, damaged ones included; equal, different, refused: how they came out.
        by_heads: of those decided again, how many by the heads; the others from the record's own qualities.
        fields: in how many records a field differs; per-candidate fields count once a record.
        moves: (recorded model, model now) -> records, where the choice changed.
        cost_usd, cost_usd_now: expected cost of the chosen candidates, over records decided then and now.
        degraded: which fallback answered past a deadline -> records.
        bundles, isas: hash and instruction set of the records -> records.
        reasons: why records were not replayed -> records.
        kept: in how many records a figure of then stands ("support", "own_tokens"); of several candidates it counts once.
        replaced, whole_policy: as of Replayed.
    """

    records: int = 0
    equal: int = 0
    different: int = 0
    refused: int = 0
    by_heads: int = 0
    cost_usd: float = 0.0
    cost_usd_now: float = 0.0
    fields: Counter[str] = field(default_factory=Counter)
    moves: Counter[tuple[str | None, str | None]] = field(default_factory=Counter)
    degraded: Counter[str] = field(default_factory=Counter)
    bundles: Counter[str] = field(default_factory=Counter)
    isas: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    kept: Counter[str] = field(default_factory=Counter)
    replaced: Options = field(default_factory=dict)
    whole_policy: bool = False

    def add(self, replayed: Replayed) -> None:
        """Count one line."""
        self.records += 1
        self.replaced, self.whole_policy = replayed.replaced, replayed.whole_policy
        if replayed.record is not None:
            self.bundles[replayed.record.bundle] += 1
            self.isas[replayed.record.isa] += 1
            if replayed.record.degraded is not None:
                self.degraded[replayed.record.degraded] += 1
        if replayed.record is None or replayed.outcome is None:
            self.refused += 1
            self.reasons[replayed.refused or ""] += 1
            return
        then, now = replayed.record.outcome, replayed.outcome
        self.by_heads += replayed.by_heads
        self.equal += not replayed.differences
        self.different += bool(replayed.differences)
        # quality[a] and quality[b] are one field, counted once a record.
        self.fields.update(list(dict.fromkeys(one.field.partition("[")[0] for one in replayed.differences)))
        self.kept.update(list(dict.fromkeys(one.field.partition("[")[0] for one in replayed.kept)))
        if then.model != now.model:
            self.moves[then.model, now.model] += 1
        if then.index >= 0 and now.index >= 0:
            self.cost_usd += float(then.cost_usd[then.index])
            self.cost_usd_now += float(now.cost_usd[now.index])

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types, commonest first."""
        return {
            "records": self.records,
            "equal": self.equal,
            "different": self.different,
            "refused": self.refused,
            "by_heads": self.by_heads,
            "choices_changed": sum(self.moves.values()),
            "moves": [{"recorded": a, "now": b, "records": n} for (a, b), n in self.moves.most_common()],
            "reasons": dict(self.reasons.most_common()),
            "fields": dict(self.fields.most_common()),
            "kept": dict(self.kept.most_common()),
            "cost_usd": self.cost_usd,
            "cost_usd_now": self.cost_usd_now,
            "degraded": dict(self.degraded.most_common()),
            "bundles": dict(self.bundles.most_common()),
            "isas": dict(self.isas.most_common()),
            "replaced": options_to_json(self.replaced),
            "whole_policy": self.whole_policy,
        }

    def __str__(self) -> str:
        lines = [
            f"{self.records} records: {self.equal} equal, {self.different} different, {self.refused} not replayed; "
            f"recorded on {', '.join(self.isas) or 'nothing known'}, bundle {', '.join(h[:12] for h in self.bundles) or 'unknown'}"
        ]
        if self.replaced:
            terms = ", ".join(f"{name}={_term(value)}" for name, value in options_to_json(self.replaced).items())
            rest = "each record's own policy" if self.whole_policy else "each record's own; its other terms stand"
            lines.append(f"decided under {terms} in place of {rest}")
        figures = self.equal + self.different - self.by_heads
        if figures:
            lines.append(f"{figures} decided again from recorded qualities and tokens, without the heads")
        lines += [f"not replayed, {n}: {reason}" for reason, n in self.reasons.most_common(SHOWN_REASONS)]
        if self.degraded:
            counts = ", ".join(f"{fallback} {n}" for fallback, n in self.degraded.most_common())
            lines.append(f"answered by a fallback past the deadline: {counts}")
        if self.fields:
            lines.append("differing: " + ", ".join(f"{name} in {n}" for name, n in self.fields.most_common()))
        if self.kept:
            counts = ", ".join(f"{name} in {n}" for name, n in self.kept.most_common())
            lines.append(f"kept from the records, since other centroids or tokenizers cannot be asked here: {counts}")
        if self.moves:
            lines.append(f"{sum(self.moves.values())} choices changed:")
            lines += [f"  {a or 'none'} -> {b or 'none'}: {n}" for (a, b), n in self.moves.most_common()]
        if self.equal + self.different:
            lines.append(
                f"expected cost of the choices in all: {self.cost_usd:.6g} USD recorded, {self.cost_usd_now:.6g} USD now"
            )
        return "\n".join(lines)


def _term(value: Any) -> str:
    """Return a term as its JSON form; prices and figures without their date and where they come from."""
    if isinstance(value, dict):
        value = value.get("prices", value)
        value = {
            key: {k: v for k, v in own.items() if k != "basis"} if isinstance(own, dict) else own
            for key, own in value.items()
        }
    return json.dumps(value)
