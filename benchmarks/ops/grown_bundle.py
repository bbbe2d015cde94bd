"""`with_everything` gives a bundle all that heads can have: surface features behind its table, and a forest that reads both."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ipr_engine.bundle import Bundle, concatenated_identity, surface_identity
from ipr_engine.bundle.spec import EncoderSpec
from ipr_engine.bundle.surface_lexicon import DEFAULT_LEXICON
from ipr_engine.encoders.surface import SurfaceEncoder
from ipr_engine.engine import Engine

TREES, DEPTH = 30, 8  # as `ipr train --estimator forest` grows
FROM_TABLE = 64  # columns of the table that its trees may read; of the surface features all
LEAF = 0.02  # standard deviation of a leaf: choices stay near those of the bundle


def with_everything(bundle: Bundle, prompts: Sequence[str], seed: int = 0) -> Bundle:
    """Return the bundle with surface features and drawn trees: of the size of trained ones, which cost what trained ones cost.

    Each node parts at the value that one of the prompts has, so that prompts take many ways; the choices mean nothing.
    """
    table = bundle.encoder(bundle.quality_heads.encoder)
    surface = SurfaceEncoder.load()
    features = EncoderSpec(
        id="surface", kind="surface", dim=surface.dim, max_tokens=0, pooling=None, normalize=None,
        identity=surface_identity(hashlib.sha256(DEFAULT_LEXICON.read_bytes()).hexdigest()),
        files={"lexicon": DEFAULT_LEXICON},
    )  # fmt: skip
    both = EncoderSpec(
        id="both", kind="concatenated", dim=table.dim + surface.dim, max_tokens=table.max_tokens, pooling=None,
        normalize=None, identity=concatenated_identity([table.identity, features.identity]), files={},
        parts=(table.id, features.id), surface_dim=surface.dim,
    )  # fmt: skip
    x = np.concatenate([Engine(bundle).encode(list(prompts)).x, surface.encode(prompts).x], axis=1)
    rng = np.random.default_rng(seed)
    read = np.concatenate([np.arange(FROM_TABLE), np.arange(table.dim, both.dim)])
    column = rng.choice(read, (TREES, 2**DEPTH - 1)).astype(np.int32)
    heads = bundle.quality_heads
    trees = {
        "tree_column": column,
        "tree_threshold": x[rng.integers(0, len(x), column.shape), column],
        "tree_leaf": rng.normal(0, LEAF, (TREES, 2**DEPTH, len(heads.candidates))).astype(np.float32),
    }
    grown = replace(heads, encoder=both.id, tensors={**heads.tensors, **trees})
    support = None if bundle.support is None else replace(bundle.support, encoder=both.id)
    return replace(
        bundle, hash="1" * 64, encoders=(*bundle.encoders, features, both), heads=(grown,), support=support, calibrations=(),
        path_rows=None,
    )  # fmt: skip
