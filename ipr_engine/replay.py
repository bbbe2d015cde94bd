"""Replay: decide every record of a log again, with any bundle and instruction set, and say what differs, bit for bit.

summary = Summary()
with open("log.jsonl", "rb") as log:
    for replayed in replay(log, engine):
        summary.add(replayed)
        print(replayed.line, replayed.differences, replayed.refused)
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ipr_engine.encoders.base import Encoded
from ipr_engine.errors import InvalidInputError, RecordError
from ipr_engine.generation import MAX_KEPT_POLICIES, Generation
from ipr_engine.policy import Policy
from ipr_engine.record import Float32s, Outcome, Record
from ipr_engine.terms import terms_to_json

if TYPE_CHECKING:
    from ipr_engine.engine import Engine

PER_MODEL = ("quality", "cost_usd", "tokens_out")


class Difference(NamedTuple):
    """One field that came out otherwise: "model", "threshold", "quality[name]"; floats are float32."""

    field: str
    recorded: Any
    now: Any

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types: numbers at their shortest, the non-finite as text, and the bits of a float32 beside it."""
        document: dict[str, Any] = {"field": self.field}
        for side, value in (("recorded", self.recorded), ("now", self.now)):
            if isinstance(value, np.float32):
                document[side] = float(str(value)) if np.isfinite(value) else str(value)
                document[f"{side}_bits"] = f"{value.view(np.uint32):08x}"
            else:
                document[side] = list(value) if isinstance(value, tuple) else value
        return document

    def __str__(self) -> str:
        recorded, now = str(self.recorded), str(self.now)
        if recorded == now and isinstance(self.now, np.float32):  # two NaN, or 0 and -0
            recorded, now = (
                f"{text} ({v.view(np.uint32):08x})" for text, v in ((recorded, self.recorded), (now, self.now))
            )
        return f"{self.field}: {recorded} -> {now}"


class Replayed(NamedTuple):
    """One line of a log, decided again.

    Attributes:
        line: its number, from 1.
        record: what it held; None when it is damaged.
        outcome: what was decided now; None when it was not.
        differences: every field of the two that differs.
        refused: why it was not decided again: a damaged line, another encoder, terms that do not fit the bundle.
    """

    line: int
    record: Record | None = None
    outcome: Outcome | None = None
    differences: tuple[Difference, ...] = ()
    refused: str | None = None


def replay(lines: Iterable[bytes], engine: Engine) -> Iterator[Replayed]:
    """Decide each record again with the bundle that `engine` serves when this begins.

    Args:
        lines: records as a Recorder wrote them, one a line; empty lines are passed over.
        engine: of any bundle whose heads read the encoder of the records, on any instruction set. Of a two-tier bundle the
            heads that read a record's encoder decide it again; whether it would escalate now is not asked, as there is no text.
    """
    live = engine._live
    policies: dict[str, Policy | str] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = Record.from_line(line)
        except RecordError as error:
            yield Replayed(number, refused=str(error))
            continue
        try:
            outcome = _decide(live, record, policies)
        except InvalidInputError as error:
            yield Replayed(number, record, refused=str(error))
            continue
        differences = tuple(_compare(record.candidates, record.outcome, live.bundle.names, outcome))
        yield Replayed(number, record, outcome, differences)


def _decide(live: Generation, record: Record, policies: dict[str, Policy | str]) -> Outcome:
    by_second = live.is_second(record.encoder)
    if record.encoder != live.encoder_identity and not by_second:
        raise InvalidInputError(
            f"x: embedded by encoder {record.encoder[:12]}, but the heads of bundle {live.hash[:12]} read "
            f"{live.read_by_heads()}; replay it with a bundle on the encoder of the record"
        )
    dim = live.second.plan.dim if by_second and live.second is not None else live.plan.dim
    if len(record.x) != dim:
        raise InvalidInputError(f"x: expected {dim} numbers, got {len(record.x)}")
    policy = _policy(live, record, policies)
    names = live.bundle.names
    encoded = Encoded(
        record.x[None, :],
        np.array([record.billed_tokens], np.int64),
        np.array([record.truncated]),
        record.encoder,
        None if record.needs is None else (record.needs,),
    )
    tokens = _in_order("tokens_out", record.tokens_out, record.candidates, names)
    extra = _in_order("extra_usd", record.extra_usd, record.candidates, names)
    own = _in_order("own_tokens", record.own_tokens, record.candidates, names)
    return Outcome.of(
        live.decide(encoded, policy, tokens, extra, "status", own_tokens=None if own is None else own[None, :]), 0
    )


def _policy(live: Generation, record: Record, policies: dict[str, Policy | str]) -> Policy:
    """The record's terms compiled for this bundle, once for all records of equal terms; else why they do not fit."""
    key = json.dumps(terms_to_json(record.terms), sort_keys=True)
    found = policies.get(key)
    if found is None:
        if len(policies) >= MAX_KEPT_POLICIES:
            policies.clear()
        try:
            found = live.settle(None, dict(record.terms))
        except InvalidInputError as error:
            found = f"terms: {error}"
        policies[key] = found
    if isinstance(found, str):
        raise InvalidInputError(found)
    return found


def _in_order(name: str, values: Float32s | None, had: Sequence[str], has: Sequence[str]) -> Float32s | None:
    """Values given per recorded candidate, in this bundle's order."""
    if values is None or tuple(had) == tuple(has):
        return values
    new = [candidate for candidate in has if candidate not in had]
    if new:
        raise InvalidInputError(f"{name}: the record gives none for {', '.join(new)}, which the bundle has")
    return values[[had.index(candidate) for candidate in has]]


def _compare(had: Sequence[str], then: Outcome, has: Sequence[str], now: Outcome) -> Iterator[Difference]:
    if tuple(had) != tuple(has):
        yield Difference("candidates", tuple(had), tuple(has))
    for name in ("model", "index", "status", "cause", "threshold", "gap", "support"):
        if not _same(getattr(then, name), getattr(now, name)):
            yield Difference(name, getattr(then, name), getattr(now, name))
    for name in PER_MODEL:
        before, after = getattr(then, name), getattr(now, name)
        if tuple(had) == tuple(has) and before.tobytes() == after.tobytes():
            continue
        for m, candidate in enumerate(had):
            if candidate in has and not _same(before[m], after[has.index(candidate)]):
                yield Difference(f"{name}[{candidate}]", before[m], after[has.index(candidate)])


def _same(then: Any, now: Any) -> bool:
    """Equal to the bit: NaN equals itself, and 0 is not -0."""
    if isinstance(then, np.float32) and isinstance(now, np.float32):
        return bool(then.view(np.uint32) == now.view(np.uint32))
    return type(then) is type(now) and bool(then == now)


@dataclass
class Summary:
    """What a whole log came to.

    Attributes:
        records: lines that hold one, damaged ones included; equal, different, refused: how they came out.
        fields: in how many records a field differs; per-candidate fields count once a record.
        moves: (recorded model, model now) -> records, where the choice changed.
        cost_usd, cost_usd_now: expected cost of the chosen candidates, over records decided then and now.
        bundles, isas: hash and instruction set of the records -> records.
    """

    records: int = 0
    equal: int = 0
    different: int = 0
    refused: int = 0
    cost_usd: float = 0.0
    cost_usd_now: float = 0.0
    fields: Counter[str] = field(default_factory=Counter)
    moves: Counter[tuple[str | None, str | None]] = field(default_factory=Counter)
    bundles: Counter[str] = field(default_factory=Counter)
    isas: Counter[str] = field(default_factory=Counter)

    def add(self, replayed: Replayed) -> None:
        self.records += 1
        if replayed.record is not None:
            self.bundles[replayed.record.bundle] += 1
            self.isas[replayed.record.isa] += 1
        if replayed.record is None or replayed.outcome is None:
            self.refused += 1
            return
        then, now = replayed.record.outcome, replayed.outcome
        self.equal += not replayed.differences
        self.different += bool(replayed.differences)
        self.fields.update({difference.field.partition("[")[0] for difference in replayed.differences})
        if then.model != now.model:
            self.moves[then.model, now.model] += 1
        if then.index >= 0 and now.index >= 0:
            self.cost_usd += float(then.cost_usd[then.index])
            self.cost_usd_now += float(now.cost_usd[now.index])

    def to_dict(self) -> dict[str, Any]:
        return {
            "records": self.records,
            "equal": self.equal,
            "different": self.different,
            "refused": self.refused,
            "choices_changed": sum(self.moves.values()),
            "moves": [{"recorded": a, "now": b, "records": n} for (a, b), n in self.moves.most_common()],
            "fields": dict(self.fields.most_common()),
            "cost_usd": self.cost_usd,
            "cost_usd_now": self.cost_usd_now,
            "bundles": dict(self.bundles.most_common()),
            "isas": dict(self.isas.most_common()),
        }

    def __str__(self) -> str:
        lines = [
            f"{self.records} records: {self.equal} equal, {self.different} different, {self.refused} not replayed; "
            f"recorded on {', '.join(self.isas) or 'nothing known'}, bundle {', '.join(h[:12] for h in self.bundles) or 'unknown'}"
        ]
        if self.fields:
            lines.append("differing: " + ", ".join(f"{name} in {n}" for name, n in self.fields.most_common()))
        if self.moves:
            lines.append(f"{sum(self.moves.values())} choices changed:")
            lines += [f"  {a or 'none'} -> {b or 'none'}: {n}" for (a, b), n in self.moves.most_common()]
        if self.equal + self.different:
            lines.append(
                f"expected cost of the choices: {self.cost_usd:.6g} USD recorded, {self.cost_usd_now:.6g} USD now"
            )
        return "\n".join(lines)
