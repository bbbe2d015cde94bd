"""`in_full_width` decides test prompts as they are and in full width, on a bundle's table and on the same table without folding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ipr_engine.bundle import Bundle
from ipr_engine.data.prompt_edits import EDITS
from ipr_engine.encoders.static import StaticEncoder
from ipr_engine.engine import Engine

TAU, MIN_SUPPORT = 0.2, 0.02
EDIT = "full width"


@dataclass(frozen=True)
class WidthRow:
    """A `WidthRow` tells how prompts are read in one way.

    Attributes:
        way: the prompts and the table, in words.
        same: the share whose predicted qualities are those of the prompts as they are, by the bundle, to the bit.
        flipped: the share decided otherwise than them. unsupported: that of support below MIN_SUPPORT.
    """

    way: str
    same: float
    flipped: float
    unsupported: float


@dataclass(frozen=True)
class WidthFigures:
    """`WidthFigures` are the rows of one source, on `prompts` test prompts."""

    source: str
    prompts: int
    rows: tuple[WidthRow, ...]


def in_full_width(bundle: Bundle, source: str, prompts: Sequence[str]) -> WidthFigures:
    """Return how these prompts are decided as they are and in full width, with the folding of the bundle's table and without.

    Args:
        bundle: of one encoder, a table that folds.
    """
    (spec,) = bundle.encoders
    files = [spec.files[role] for role in ("table", "tokenizer", "config")]
    plain = StaticEncoder.load(*files, max_tokens=spec.max_tokens, head_tokens=spec.head_tokens)
    unfolded = replace(bundle, encoders=(replace(spec, fold_width=False, identity=plain.identity),))
    folding, other = Engine(bundle), Engine(unfolded)
    wide = [EDITS[EDIT](prompt) for prompt in prompts]
    expected = folding.route_many(prompts, tau=TAU)

    def row(way: str, engine: Engine, texts: Sequence[str]) -> WidthRow:
        found = engine.route_many(texts, tau=TAU)
        same = (found.qualities == expected.qualities).all(axis=1)
        flipped, unsupported = found.index != expected.index, np.asarray(found.support) < MIN_SUPPORT
        return WidthRow(way, float(same.mean()), float(flipped.mean()), float(unsupported.mean()))

    rows = (
        row("as they are", folding, prompts),
        row("as they are, without folding", other, prompts),
        row("in full width", folding, wide),
        row("in full width, without folding", other, wide),
    )
    return WidthFigures(source, len(prompts), rows)
