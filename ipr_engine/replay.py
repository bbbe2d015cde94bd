"""Replay: decide every record of a log again, with any bundle and instruction set, and say what differs, bit for bit.

summary = Summary()
with open("log.jsonl", "rb") as log:
    for replayed in replay(log, engine):  # key=... where embeddings are sealed; tau=... for another policy than the recorded
        summary.add(replayed)
        print(replayed.line, replayed.differences, replayed.refused)

A record without an embedding is decided again from its qualities and output tokens, for which its heads must be the bundle's;
one with an embedding by the heads themselves.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ipr_engine.encoders.base import Encoded
from ipr_engine.errors import InvalidInputError, KeyMismatchError, RecordError
from ipr_engine.from_figures import decide_figures, in_order
from ipr_engine.generation import Generation
from ipr_engine.outcome import PER_MODEL, Outcome
from ipr_engine.owner_key import OwnerKey
from ipr_engine.policy import Policy
from ipr_engine.record import Record
from ipr_engine.record_policy import policy_of

if TYPE_CHECKING:
    from ipr_engine.engine import Engine


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
        refused: why it was not decided again: a damaged line, figures withheld, other heads or another encoder, another key, terms
            that do not fit the bundle.
        by_heads: whether the heads decided, on the record's embedding; else its own qualities and tokens were taken.
    """

    line: int
    record: Record | None = None
    outcome: Outcome | None = None
    differences: tuple[Difference, ...] = ()
    refused: str | None = None
    by_heads: bool = False


def replay(
    lines: Iterable[bytes],
    engine: Engine,
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
        policy, terms: decide under this policy instead of each record's own; as `Engine.route` takes them.
        key: opens what is sealed in the records.
    Raises:
        InvalidInputError: the key, the policy or its terms. A record that cannot be replayed is told in `Replayed.refused`.
    """
    live = engine._live
    opener = None if key is None else OwnerKey.load(key)
    other = None if policy is None and not terms else live.settle(policy, terms)
    return _replay(lines, live, opener, other)


def _replay(lines: Iterable[bytes], live: Generation, key: OwnerKey | None, other: Policy | None) -> Iterator[Replayed]:
    policies: dict[str, Policy | str] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        record = None
        try:
            record = Record.from_line(line)
            if key is not None:
                record = record.opened(key)
            outcome = _decide(live, record, other or policy_of(live, record, policies))
        except (RecordError, KeyMismatchError, InvalidInputError) as error:
            yield Replayed(number, record, refused=str(error))
            continue
        differences = tuple(_compare(record.candidates, record.outcome, live.bundle.names, outcome))
        yield Replayed(number, record, outcome, differences, by_heads=record.x is not None)


def _decide(live: Generation, record: Record, policy: Policy) -> Outcome:
    if record.x is None:
        return _from_figures(live, record, policy)
    by_second = live.is_second(record.encoder)
    if record.encoder != live.encoder_identity and not by_second:
        raise InvalidInputError(
            f"x: embedded by encoder {record.encoder[:12]}, but the heads of bundle {live.hash[:12]} read "
            f"{live.read_by_heads()}; replay it with a bundle on the encoder of the record"
        )
    dim = live.second.plan.dim if by_second and live.second is not None else live.plan.dim
    if len(record.x) != dim:
        raise InvalidInputError(f"x: expected {dim} numbers, got {len(record.x)}")
    names = live.bundle.names
    encoded = Encoded(
        record.x[None, :],
        np.array([record.billed_tokens], np.int64),
        np.array([record.truncated]),
        record.encoder,
        None if record.needs is None else (record.needs,),
    )
    tokens = in_order("tokens_out", record.tokens_out, record.candidates, names)
    extra = in_order("extra_usd", record.extra_usd, record.candidates, names)
    counted = _own_tokens(live, record)
    return Outcome.of(live.decide(encoded, policy, tokens, extra, "status", own_tokens=counted), 0)


def _own_tokens(live: Generation, record: Record) -> npt.NDArray[np.float32] | None:
    """(1, models) the record's own tokens; of a candidate that it lacks by the bundle's tokenizer, as its text is not here."""
    if record.own_tokens is None:
        return None
    own = dict(zip(record.candidates, record.own_tokens.tolist(), strict=True))
    counted = [own.get(c.name, record.billed_tokens * c.token_ratio) for c in live.bundle.candidates]
    return np.array([counted], np.float32)


def _from_figures(live: Generation, record: Record, policy: Policy) -> Outcome:
    """From the record's own qualities and tokens, which are those of its heads."""
    if record.withheld:
        sealing = record.sealed
        todo = "record with a key, which seals them" if sealing is None else f"give the key of id {sealing.key}"
        raise InvalidInputError(f"decision: the figures of a prompt of so few words are not kept in clear; {todo}")
    sealed = "" if record.sealed is None else f", or give the key of id {record.sealed.key} if it seals one"
    heads = [h for h in (live.bundle.quality_heads, live.bundle.escalation_heads) if h is not None]
    own = next((one for one in heads if one.sha256 == record.heads), None)
    if own is None:
        raise InvalidInputError(
            f"x: decided by heads {record.heads[:12]}, bundle {live.hash[:12]} has {', '.join(h.sha256[:12] for h in heads)}, and "
            f"what other heads make of a prompt only its embedding tells: record with keep_x=True and a key{sealed}"
        )
    return decide_figures(record, policy, live.bundle, own)


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
        by_heads: of those decided again, how many by the heads; the others from the record's own qualities.
        fields: in how many records a field differs; per-candidate fields count once a record.
        moves: (recorded model, model now) -> records, where the choice changed.
        cost_usd, cost_usd_now: expected cost of the chosen candidates, over records decided then and now.
        bundles, isas: hash and instruction set of the records -> records.
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
        self.by_heads += replayed.by_heads
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
            "by_heads": self.by_heads,
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
        figures = self.equal + self.different - self.by_heads
        if figures:
            lines.append(f"{figures} decided again from recorded qualities and tokens, without the heads")
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
