"""An `Outcome` is what was decided; this file has its fields in a record's line, and compares two outcomes bit by bit.

The choice is written always; figures, by which a prompt of few words could be told, may be left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ipr_engine.audit.record_fields import Float32s, bits, floats, require
from ipr_engine.decide.contract import CAUSE, STATUS

CHOICE = ("model", "index", "status", "cause")
PER_MODEL = ("quality", "cost_usd", "tokens_out")
FIGURES = (*PER_MODEL, "threshold", "gap", "support")
UNDECIDED = "deadline"  # the cause of an answer that nothing was predicted for; the op makes no such cause


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """An `Outcome` is what was decided: the choice, and every number with its bits.

    quality, cost_usd and tokens_out are (models,) float32. support is None also where second heads decided: it is not of the embedding
    that they read.
    """

    model: str | None
    index: int
    status: str
    cause: str
    quality: Float32s
    cost_usd: Float32s
    tokens_out: Float32s
    threshold: np.float32
    gap: np.float32
    support: np.float32 | None

    def choice_json(self) -> dict[str, Any]:
        """Return the fields that a record always writes."""
        return {name: getattr(self, name) for name in CHOICE}

    def figures_json(self) -> dict[str, Any]:
        """Return the figures as bits."""
        return {
            **{name: bits(getattr(self, name)) for name in (*PER_MODEL, "threshold", "gap")},
            "support": None if self.support is None else bits(self.support),
        }


def parse_outcome(made: Any, names: list[str], *, may_lack_figures: bool) -> tuple[Outcome, bool]:
    """Return the outcome, and whether its figures are left out: then they are NaN. ValueError for what no recorder writes."""
    require(isinstance(made, dict) and made.keys() == {*CHOICE, *FIGURES}, "decision", made)
    require(type(made["index"]) is int and -1 <= made["index"] < len(names), "index", made["index"])
    chosen = None if made["index"] < 0 else names[made["index"]]
    # The name is written for readers; the index decides, and both must agree.
    require(made["model"] == chosen, "model", made["model"])
    require(
        made["status"] in STATUS and made["cause"] in (*CAUSE, UNDECIDED),
        "status, cause",
        (made["status"], made["cause"]),
    )
    choice = {name: made[name] for name in CHOICE}
    # All or none of them: a line that lacks some was edited.
    lacking = may_lack_figures and all(made[name] is None for name in FIGURES)
    figures = _nothing(len(names)) if lacking else parse_figures(made, len(names))
    return Outcome(**choice, **figures), lacking


def parse_figures(figures: Mapping[str, Any], models: int) -> dict[str, Any]:
    """Return the figures of an outcome of so many models."""
    support = figures["support"]
    return {
        **{name: floats(figures[name], name, models) for name in PER_MODEL},
        "threshold": floats(figures["threshold"], "threshold", 1)[0],
        "gap": floats(figures["gap"], "gap", 1)[0],
        "support": None if support is None else floats(support, "support", 1)[0],
    }


def _nothing(models: int) -> dict[str, Any]:
    """Return figures that are not there: NaN, and no support."""
    nan = np.float32("nan")
    empty = dict.fromkeys(PER_MODEL, np.full(models, nan, np.float32))
    return {**empty, "threshold": nan, "gap": nan, "support": None}


class Difference(NamedTuple):
    """A `Difference` is one field that came out otherwise: "model", "threshold", "quality[name]"; floats are float32."""

    field: str
    recorded: Any
    now: Any

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types: numbers at their shortest, the non-finite as text, and the bits of a float32 beside it."""
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
    """Yield every field of an outcome over the candidates `had` that differs in one over the candidates `has`."""
    if tuple(had) != tuple(has):
        yield Difference("candidates", tuple(had), tuple(has))
    for name in ("model", "index", "status", "cause", "threshold", "gap", "support"):
        if not _same(getattr(then, name), getattr(now, name)):
            yield Difference(name, getattr(then, name), getattr(now, name))
    for name in PER_MODEL:
        before, after = getattr(then, name), getattr(now, name)
        # Nearly always so: one comparison in place of one a candidate.
        if tuple(had) == tuple(has) and before.tobytes() == after.tobytes():
            continue
        for m, candidate in enumerate(had):
            if candidate in has and not _same(before[m], after[has.index(candidate)]):
                yield Difference(f"{name}[{candidate}]", before[m], after[has.index(candidate)])


def _same(then: Any, now: Any) -> bool:
    """Return whether two values are equal to the bit: NaN equals itself, and 0 is not -0."""
    # Bits, not values: NaN == NaN is False, and 0.0 == -0.0 is True.
    if isinstance(then, np.float32) and isinstance(now, np.float32):
        return bool(then.view(np.uint32) == now.view(np.uint32))
    return type(then) is type(now) and bool(then == now)
