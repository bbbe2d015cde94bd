"""The head view of the static encoder: a second mean, of a prompt's first known tokens alone, behind that of the whole."""

from __future__ import annotations

import numpy as np
import pytest

from ipr_engine import _C
from ipr_engine._C import available_isas
from ipr_engine.encoders.concatenated import ConcatenatedEncoder
from ipr_engine.encoders.static import StaticEncoder
from ipr_engine.encoders.surface import SurfaceEncoder
from ipr_engine.errors import InvalidInputError
from tests.support.static_tables import VOCAB, tensors, write
from tests.support.wordpieces import ALPHABET, SCRIPTS

KINDS = ["auto", "tokenizers"]
PROMPTS = ["", "a", "\ue000", "ab cd. " * 40, "ab\ue000 cd ef", ALPHABET * 2, *SCRIPTS.values()]


def heads_of(plain: StaticEncoder, made: dict[str, np.ndarray], tokens: int) -> np.ndarray:
    """The definition: a table without a head view, given the first known ids of each prompt alone."""
    weights = made["weights"].astype(np.float32) if "weights" in made else None
    mapping = made["mapping"].astype(np.int64) if "mapping" in made else None
    table = _C.StaticEncoder(made["embeddings"], mapping=mapping, weights=weights, normalize=plain.normalize)
    rows = []
    for prompt in PROMPTS:
        ids, _ = plain.tokenizer.encode(prompt)
        known = ids[ids != VOCAB["[UNK]"]][:tokens]
        rows.append(table.encode_ids(known, np.ones(len(known), np.bool_))[0])
    return np.stack(rows)


@pytest.mark.parametrize("normalize", [True, False], ids=["normalize", "mean"])
@pytest.mark.parametrize(("mapping", "weights"), [(False, False), (True, True)])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_two_means_stand_side_by_side_to_the_bit(rng, tmp_path, dtype, mapping, weights, normalize):
    for dim in (1, 17, 64, 385):
        made = tensors(rng, dtype, dim, mapping, weights)
        write(tmp_path, made, config={"normalize": normalize})
        for kind, tokens, most in ((KINDS[0], 1, 512), (KINDS[0], 7, 9), (KINDS[1], 7, 9), (KINDS[0], 40, 9)):
            plain = StaticEncoder.from_folder(tmp_path, max_tokens=most, tokenizer=kind)
            expected = plain.encode(PROMPTS)
            heads = heads_of(plain, made, tokens)
            for isa in available_isas():
                viewed = StaticEncoder.from_folder(
                    tmp_path, max_tokens=most, head_tokens=tokens, tokenizer=kind, isa=isa
                )
                found = viewed.encode(PROMPTS)
                assert (viewed.dim, viewed.head_dim, plain.head_dim) == (2 * dim, dim, 0)
                assert found.x[:, :dim].tobytes() == expected.x.tobytes()
                assert found.x[:, dim:].tobytes() == heads.tobytes()
                assert found.billed_tokens.tolist() == expected.billed_tokens.tolist()
                assert found.truncated.tolist() == expected.truncated.tolist()


def test_a_prompt_no_longer_than_its_head_has_one_mean_twice(rng, tmp_path):
    encoder = StaticEncoder.from_folder(write(tmp_path, tensors(rng, "float32", 17, False, True)), head_tokens=8)
    x = encoder.encode(["ab cd", ""]).x
    assert x[0, :17].tobytes() == x[0, 17:].tobytes()
    assert x[0].any()
    assert not x[1].any()


def test_identity_names_the_view_and_stays_without_one(rng, tmp_path):
    write(tmp_path, tensors(rng, "int8", 8, False, False))
    plain, none, eight, nine = (
        StaticEncoder.from_folder(tmp_path, **more) for more in ({}, *({"head_tokens": n} for n in (0, 8, 9)))
    )
    assert plain.identity == none.identity
    assert len({plain.identity, eight.identity, nine.identity}) == 3
    assert "head of 8 tokens" in eight.summary
    assert "head" not in plain.summary
    assert "head_tokens=9" in repr(nine)


@pytest.mark.parametrize("tokens", [-1, 2.0, True, "8", 1 << 31])
def test_a_head_that_is_no_count_is_refused(rng, tmp_path, tokens):
    write(tmp_path, tensors(rng, "int8", 8, False, False))
    with pytest.raises(InvalidInputError, match=r"head_tokens: expected an int in \[0, 2\^31\)"):
        StaticEncoder.from_folder(tmp_path, head_tokens=tokens)


def test_surface_features_stand_behind_both_means_in_one_call(rng, tmp_path):
    write(tmp_path, tensors(rng, "float16", 24, False, False))
    table, surface = StaticEncoder.from_folder(tmp_path, head_tokens=5), SurfaceEncoder.load()
    both = ConcatenatedEncoder([table, surface])
    assert both.native is not None
    assert (both.head_dim, both.surface_dim) == (24, surface.dim)
    expected = both.join([table.encode(PROMPTS), surface.encode(PROMPTS)])
    assert both.encode(PROMPTS).x.tobytes() == expected.x.tobytes()


def test_a_head_view_stands_behind_every_embedding(rng, tmp_path):
    write(tmp_path, tensors(rng, "float16", 24, False, False))
    plain, viewed = (StaticEncoder.from_folder(tmp_path, head_tokens=tokens) for tokens in (0, 5))
    assert ConcatenatedEncoder([plain, viewed]).head_dim == 24
    with pytest.raises(InvalidInputError, match="put its table behind every embedding"):
        ConcatenatedEncoder([viewed, plain])


def test_without_a_tokenizer_ids_have_both_means():
    table = np.eye(4, dtype=np.float32)
    encoder = _C.StaticEncoder(table, head_tokens=2, normalize=False)
    x, truncated = encoder.encode_ids(np.array([1, 1, 2, 3], np.uint32), np.ones(4, np.bool_))
    assert x.tolist() == [0, 0.5, 0.25, 0.25, 0, 1, 0, 0]
    assert not truncated
