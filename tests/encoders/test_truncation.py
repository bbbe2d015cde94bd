"""Python's cut is the C++ one."""

from __future__ import annotations

import numpy as np
import pytest

from ipr_engine import _C
from ipr_engine.encoders.transformer import cut_between_words

TOKENS = 40


@pytest.mark.parametrize("max_tokens", [1, 2, 3, 7, 16, 39])
def test_the_tokens_kept_are_those_the_static_tier_keeps(max_tokens, rng):
    table = _C.StaticEncoder(
        np.eye(TOKENS, dtype=np.float32), tokenizer=None, mapping=None, weights=None, unk_id=-1,
        max_tokens=max_tokens, normalize=False, isa="scalar",
    )  # fmt: skip
    for share in [0, 0.05, 0.2, 0.5, 0.9, 1] * 20:
        tokens = int(rng.integers(max_tokens + 1, TOKENS + 1))
        starts = rng.random(tokens) < share
        starts[0] = True
        x, truncated = table.encode_ids(np.arange(tokens, dtype=np.uint32), starts)
        head, tail = cut_between_words(starts, max_tokens)
        assert truncated
        assert np.flatnonzero(x).tolist() == [*range(head), *range(tail, tokens)]
