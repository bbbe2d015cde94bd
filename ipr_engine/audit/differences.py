"""Two outcomes of one record, field by field and bit by bit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from ipr_engine.audit.outcome import PER_MODEL, Outcome


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


def compare(had: Sequence[str], then: Outcome, has: Sequence[str], now: Outcome) -> Iterator[Difference]:
    """Every field of an outcome over the candidates `had` that differs in one over the candidates `has`."""
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
