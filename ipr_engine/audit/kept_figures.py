"""What a record's support and own input tokens are worth on the bundle that replays it: the same, computed anew, or kept and told.

They were measured on an embedding and counted from texts. A record holds neither by default, so another bundle's centroids
and tokenizers cannot be asked; then the record's own figures stand, and a `KeptFigure` says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ipr_engine.audit.record_fields import Float32s
from ipr_engine.bundle import Candidate
from ipr_engine.errors import InvalidInputError
from ipr_engine.loaded.planned_bundle import PlannedBundle
from ipr_engine.prompts import parse_request
from ipr_engine.request.intake import text_terms

if TYPE_CHECKING:
    from ipr_engine.audit.record import Record
    from ipr_engine.policy.policy import Policy

_RATIO = "billed_tokens * token_ratio"


class KeptFigure(NamedTuple):
    """A figure of the record that stands though this bundle would make another: "support", "own_tokens", "own_tokens[name]"."""

    field: str
    why: str

    def __str__(self) -> str:
        return f"{self.field} kept: {self.why}"


def input_tokens(loaded: PlannedBundle, record: Record) -> tuple[Float32s | None, list[KeptFigure]]:
    """(models,) input tokens by the own count of this bundle's candidates, None where nobody told any and none names a tokenizer.

    What the caller told stands. Else, where the same tokenizer counted, or none did, the figure is this bundle's; where the prompt is at
    hand it is counted anew.
    """
    made, kept = _estimated(loaded, record)
    if record.bundle == loaded.hash or not record.tokens_in_given or record.own_tokens is None:
        return made, kept
    stated = {record.candidates[m]: record.own_tokens[m] for m in record.tokens_in_given}
    own = [_by_ratio(c, record.billed_tokens) for c in loaded.bundle.candidates] if made is None else made.tolist()
    named = [stated.get(name, tokens) for name, tokens in zip(loaded.bundle.names, own, strict=True)]
    stand = {f"own_tokens[{name}]" for name in stated}
    return np.array(named, np.float32), [one for one in kept if one.field not in stand]


def _estimated(loaded: PlannedBundle, record: Record) -> tuple[Float32s | None, list[KeptFigure]]:
    """The same of a caller who told nothing."""
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
    """The record's support as this bundle may read it, of a record that first heads decided, where no embedding is at hand.

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
            "keep_x=True and a key, or replay without min_support"
        )
    return measured, [KeptFigure("support", f"measured on centroids {record.centroids}, and this bundle has {now.key}")]


def _counts_alike(then: str | None, now: str) -> bool:
    """Whether two profiles count the same, whatever they are called."""
    return then is not None and then.rpartition(":")[2] == now.rpartition(":")[2]


def _by_ratio(candidate: Candidate, billed_tokens: int) -> float:
    return billed_tokens * candidate.token_ratio


def _as_counted(loaded: PlannedBundle, record: Record, counted: list[bool]) -> Float32s:
    """(models,) the record's own tokens where they were counted so, and of others by the bundle's tokenizer."""
    own = {} if record.own_tokens is None else dict(zip(record.candidates, record.own_tokens.tolist(), strict=True))
    figures = [
        own.get(c.name, _by_ratio(c, record.billed_tokens)) if kept else _by_ratio(c, record.billed_tokens)
        for c, kept in zip(loaded.bundle.candidates, counted, strict=True)
    ]
    return np.array(figures, np.float32)
