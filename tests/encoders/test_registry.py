"""One call opens whatever encoder a folder holds; several serve as one."""

from __future__ import annotations

import numpy as np
import pytest

from ipr_engine.encoders.concatenated import ConcatenatedEncoder
from ipr_engine.encoders.registry import open_encoder
from ipr_engine.encoders.static import StaticEncoder
from ipr_engine.errors import BundleNotFoundError, InvalidInputError
from tests.support.bundles import make_encoder
from tests.support.transformer_folders import (
    make_bare_transformer,
    make_export_without_graph,
    make_sentence_transformer,
)

PROMPTS = ["what is the story", "", "why " * 20]


def test_a_model2vec_folder_opens_as_the_static_tier(tmp_path):
    folder = make_encoder(tmp_path)
    (folder / "modules.json").write_text("[]")  # model2vec writes one too
    assert isinstance(open_encoder(folder), StaticEncoder)
    assert open_encoder(folder, max_tokens=9).identity == StaticEncoder.from_folder(folder, max_tokens=9).identity
    for arguments in ({"pooling": "mean"}, {"device": "cuda"}):
        with pytest.raises(InvalidInputError, match="holds a model2vec table"):
            open_encoder(folder, **arguments)


def test_a_transformer_folder_opens_as_the_torch_tier(tmp_path):
    folder = make_sentence_transformer(tmp_path / "st")
    assert open_encoder(folder, max_tokens=16).summary == "torch 32-d float32 on cpu, wordpiece tokenizer"
    bare = make_bare_transformer(tmp_path / "bare")
    assert open_encoder(bare, pooling="last", max_tokens=16).pooling == "last"
    with pytest.raises(InvalidInputError, match="pooling"):
        open_encoder(bare)


def test_a_folder_without_an_encoder_is_told(tmp_path):
    with pytest.raises(BundleNotFoundError, match=r"neither config\.json nor modules\.json"):
        open_encoder(tmp_path)
    with pytest.raises(BundleNotFoundError, match="no such folder"):
        open_encoder(tmp_path / "absent")


def test_concatenated_embeddings_stand_side_by_side(tmp_path):
    a = StaticEncoder.from_folder(make_encoder(tmp_path / "a", dim=16), max_tokens=99)
    b = StaticEncoder.from_folder(make_encoder(tmp_path / "b", dim=7, seed=1), max_tokens=8)
    both = ConcatenatedEncoder([a, b])
    encoded, first, second = both.encode(PROMPTS), a.encode(PROMPTS), b.encode(PROMPTS)
    np.testing.assert_array_equal(encoded.x, np.hstack([first.x, second.x]))
    np.testing.assert_array_equal(encoded.billed_tokens, first.billed_tokens)
    assert encoded.truncated.tolist() == [False, False, True]
    assert encoded.x.flags.c_contiguous
    assert (both.dim, both.max_tokens, both.native) == (23, 99, None)
    assert both.count_tokens("why why") == a.count_tokens("why why")
    assert both.summary == f"{a.summary} + {b.summary}"
    assert both.encode([]).x.shape == (0, 23)
    assert len({both.identity, ConcatenatedEncoder([b, a]).identity, a.identity, b.identity}) == 4
    assert ConcatenatedEncoder([a, b]).identity == both.identity


def test_one_encoder_is_no_concatenation(tmp_path):
    with pytest.raises(InvalidInputError, match="encoders: expected at least two, got 1"):
        ConcatenatedEncoder([StaticEncoder.from_folder(make_encoder(tmp_path))])


@pytest.mark.parametrize("device", ["gpu", "banana", "CUDA", "", " cuda", "cuda:x", None, 0])
def test_a_device_that_is_none_is_refused_whatever_the_encoder(tmp_path, device):
    with pytest.raises(InvalidInputError, match=r"device: expected 'cpu', 'cuda' or 'cuda:N'"):
        open_encoder(make_encoder(tmp_path), device=device)


def test_a_dtype_is_for_exports(tmp_path):
    with pytest.raises(InvalidInputError, match=r"dtype: .* is no export"):
        open_encoder(make_encoder(tmp_path), dtype="int8")


def test_float32_is_a_dtype_like_the_others_and_one_that_no_tier_has_is_told_as_such(tmp_path):
    export = make_export_without_graph(make_bare_transformer(tmp_path / "bare"), tmp_path / "export")
    assert open_encoder(export, dtype="float32").identity == open_encoder(export).identity
    with pytest.raises(
        InvalidInputError, match="dtype: expected one of float32, int8, bfloat16-mixed, bfloat16, got 'bf16'"
    ):
        open_encoder(export, dtype="bf16")
