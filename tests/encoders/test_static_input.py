"""What the static encoder refuses: prompts, tables, files and arguments that do not fit, each by its name."""

from __future__ import annotations

import numpy as np
import pytest

from ipr_engine import _C
from ipr_engine.encoders.static import StaticEncoder
from ipr_engine.errors import (
    BundleFormatError,
    BundleNotFoundError,
    BundleShapeError,
    BundleValueError,
    InvalidInputError,
)
from tests.support.static_tables import TREE, VOCAB, tensors, write
from tests.support.wordpieces import native


@pytest.mark.parametrize("kind", ["wordpiece", "tokenizers"])
def test_bad_prompts_are_refused_by_name(rng, tmp_path, kind):
    encoder = StaticEncoder.from_folder(write(tmp_path, tensors(rng, "int8", 8, False, False)), tokenizer=kind)
    with pytest.raises(InvalidInputError, match="prompts: expected a sequence of str, got one str"):
        encoder.encode("a")
    with pytest.raises(InvalidInputError, match="prompts: expected a sequence of str, got int"):
        encoder.encode(3)
    for bad in (b"a", None, 3):
        with pytest.raises(InvalidInputError, match=rf"prompts\[1\]: expected str, got {type(bad).__name__}"):
            encoder.encode(["a", bad])
    with pytest.raises(InvalidInputError, match=r"prompts\[2\]: .*surrogate"):
        encoder.encode(["a", "b", "\ud800"])
    with pytest.raises(InvalidInputError, match=r"text: .*surrogate"):
        encoder.count_tokens("\ud800")


@pytest.mark.parametrize("max_tokens", [0, -1, 1.5, True, None, "512"], ids=repr)
def test_bad_max_tokens_is_refused(rng, tmp_path, max_tokens):
    write(tmp_path, tensors(rng, "int8", 8, False, False))
    with pytest.raises(InvalidInputError, match="max_tokens: expected an int >= 1"):
        StaticEncoder.from_folder(tmp_path, max_tokens=max_tokens)


TOKENS = len(VOCAB)
BAD_TENSORS = [
    (BundleFormatError, {"other": np.zeros((TOKENS, 4), np.float32)}),
    (BundleFormatError, {"embeddings": np.zeros((TOKENS, 4), np.float32), "other": np.zeros(1)}),
    (BundleShapeError, {"embeddings": np.zeros(TOKENS, np.float32)}),
    (BundleShapeError, {"embeddings": np.zeros((TOKENS, 0), np.float32)}),
    (BundleShapeError, {"embeddings": np.zeros((TOKENS, 4), np.float64)}),
    (BundleShapeError, {"embeddings": np.zeros((TOKENS - 1, 4), np.float32)}),
    (BundleShapeError, {"embeddings": np.zeros((0, 4), np.float32)}),
    (BundleShapeError, {"embeddings": np.zeros((9, 4), np.int8), "mapping": np.zeros(TOKENS, np.float32)}),
    (BundleShapeError, {"embeddings": np.zeros((9, 4), np.int8), "mapping": np.zeros((TOKENS, 1), np.int32)}),
    (BundleShapeError, {"embeddings": np.zeros((9, 4), np.int8), "mapping": np.zeros(TOKENS - 1, np.int32)}),
    (BundleValueError, {"embeddings": np.zeros((9, 4), np.int8), "mapping": np.full(TOKENS, 9)}),
    (BundleValueError, {"embeddings": np.zeros((9, 4), np.int8), "mapping": np.full(TOKENS, -1)}),
    (BundleShapeError, {"embeddings": np.zeros((TOKENS, 4), np.int8), "weights": np.ones(TOKENS + 1)}),
    (BundleShapeError, {"embeddings": np.zeros((TOKENS, 4), np.int8), "weights": np.ones(TOKENS, np.int32)}),
    (BundleValueError, {"embeddings": np.zeros((TOKENS, 4), np.int8), "weights": np.full(TOKENS, np.nan)}),
]


@pytest.mark.parametrize(("error", "made"), BAD_TENSORS)
def test_tensors_that_do_not_fit_are_refused(tmp_path, error, made):
    with pytest.raises(error, match=r"model\.safetensors"):
        StaticEncoder.from_folder(write(tmp_path, made))


@pytest.mark.parametrize("config", ["{", "[]", '{"normalize": 1}', '{"normalize": null}'])
def test_a_bad_config_is_refused(rng, tmp_path, config):
    write(tmp_path, tensors(rng, "int8", 8, False, False))
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(BundleFormatError, match=r"config\.json"):
        StaticEncoder.from_folder(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_missing_file_is_not_found(rng, tmp_path, name):
    write(tmp_path, tensors(rng, "int8", 8, False, False))
    (tmp_path / name).unlink()
    with pytest.raises(BundleNotFoundError, match=name):
        StaticEncoder.from_folder(tmp_path)


@pytest.mark.parametrize("table", [np.zeros((3, 4)), np.zeros((3, 4), np.int16), np.zeros((3, 4), ">f4")], ids=str)
def test_the_cpp_encoder_refuses_a_table_it_cannot_read(table):
    with pytest.raises(InvalidInputError, match="embeddings: expected"):
        _C.StaticEncoder(table)


def test_the_cpp_encoder_refuses_layouts_and_ids_it_cannot_read():
    for table in (np.zeros(3, np.float32), np.zeros((3, 8), np.float32)[:, ::2], np.zeros((8, 3), np.float32).T):
        with pytest.raises(InvalidInputError, match="embeddings: expected"):
            _C.StaticEncoder(table)
    with pytest.raises(InvalidInputError, match="tokenizer: its ids reach"):
        _C.StaticEncoder(np.zeros((3, 4), np.float32), tokenizer=native(TREE))
    encoder = _C.StaticEncoder(np.zeros((3, 4), np.float32))
    with pytest.raises(InvalidInputError, match="ids: expected below 3, got 3 at 1"):
        encoder.encode_ids(np.array([0, 3], np.uint32), np.ones(2, bool))
    with pytest.raises(InvalidInputError, match="starts: expected shape"):
        encoder.encode_ids(np.array([0, 1], np.uint32), np.ones(3, bool))
    with pytest.raises(InvalidInputError, match="prompts: this encoder was built without a tokenizer"):
        encoder.encode(["a"])
