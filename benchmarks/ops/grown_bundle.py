"""`grown` gives a bundle all that heads can have: a head view, tasks, surface features behind its table, and a forest that reads them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ipr_engine.bundle import (
    Bundle,
    concatenated_identity,
    head_view_identity,
    surface_identity,
    task_identity,
)
from ipr_engine.bundle.spec import EncoderSpec
from ipr_engine.bundle.surface_lexicon import DEFAULT_LEXICON
from ipr_engine.encoders.surface import SurfaceEncoder
from ipr_engine.engine import Engine

TREES, DEPTH = 30, 8  # as `ipr train --estimator forest` grows
LEADING = 64  # columns of the embedding that its trees may read, half of each mean of a head view; of the surface features all
LEAF = 0.02  # standard deviation of a leaf: choices stay near those of the bundle
PRODUCTS = ("skip", "trunk", "len_skip")  # that take x


def grown(
    bundle: Bundle, prompts: Sequence[str], *, head_tokens: int = 0, tasks: Sequence[str] = (), seed: int = 0
) -> Bundle:
    """Return the bundle with surface features and drawn trees: of the size of trained ones, which cost what trained ones cost.

    Each node parts at the value that one of the prompts has, so that prompts take many ways; the choices mean nothing.

    Args:
        head_tokens: of a head view of its table, 0 for none: products then read both means, the second by drawn numbers.
        tasks: names that have a column; the products read 0 there.
    """
    table = bundle.encoder(bundle.quality_heads.encoder)
    if head_tokens:
        table = replace(
            table, id="viewed", dim=2 * table.dim, head_dim=table.dim, head_tokens=head_tokens,
            identity=head_view_identity(table.identity, head_tokens),
        )  # fmt: skip
    told = _counted("task", dim=len(tasks), identity=task_identity(tasks), tasks=tuple(tasks))
    lexicon = hashlib.sha256(DEFAULT_LEXICON.read_bytes()).hexdigest()
    surface = SurfaceEncoder.load()
    seen = replace(
        _counted("surface", dim=surface.dim, identity=surface_identity(lexicon)), files={"lexicon": DEFAULT_LEXICON}
    )
    parts = [table, *([told] if tasks else []), seen]
    both = EncoderSpec(
        id="both", kind="concatenated", dim=sum(part.dim for part in parts), max_tokens=table.max_tokens, pooling=None,
        normalize=None, identity=concatenated_identity([part.identity for part in parts]), files={},
        parts=tuple(part.id for part in parts), surface_dim=seen.dim, head_dim=table.head_dim, tasks=tuple(tasks),
    )  # fmt: skip
    rng, heads = np.random.default_rng(seed), bundle.quality_heads
    tensors = dict(heads.tensors)
    for name in PRODUCTS:
        known = tensors[name]
        drawn = rng.normal(0, known.std(), (len(known), table.head_dim))
        tensors[name] = np.concatenate([known, drawn, np.zeros((len(known), len(tasks)))], axis=1).astype(np.float32)
    means = 2 if head_tokens else 1
    embedding = [Engine(bundle).encode(list(prompts)).x] * means  # thresholds of a head are those of the whole
    none = np.zeros((len(prompts), len(tasks)), np.float32)
    x = np.concatenate([*embedding, none, surface.encode(prompts).x], axis=1)
    starts = range(0, table.dim, table.dim // means)
    read = np.concatenate(
        [*(start + np.arange(LEADING // means) for start in starts), np.arange(both.dim)[-seen.dim :]]
    )
    column = rng.choice(read, (TREES, 2**DEPTH - 1)).astype(np.int32)
    tensors |= {
        "tree_column": column,
        "tree_threshold": x[rng.integers(0, len(x), column.shape), column],
        "tree_leaf": rng.normal(0, LEAF, (TREES, 2**DEPTH, len(heads.candidates))).astype(np.float32),
    }
    support = None if bundle.support is None else replace(bundle.support, encoder=both.id)
    encoders = (*bundle.encoders, *([table] if head_tokens else []), *parts[1:], both)
    head = replace(heads, encoder=both.id, tensors=tensors)
    return replace(
        bundle, hash="1" * 64, encoders=encoders, heads=(head,), support=support, calibrations=(), path_rows=None
    )


def _counted(kind: str, *, dim: int, identity: str, tasks: tuple[str, ...] = ()) -> EncoderSpec:
    """Return the entry of a part that reads no tokens."""
    return EncoderSpec(
        id=kind,
        kind=kind,
        dim=dim,
        max_tokens=0,
        pooling=None,
        normalize=None,
        identity=identity,
        files={},
        tasks=tasks,
    )
