from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from ipr_engine.errors import BackendUnavailableError, InvalidInputError
from ipr_engine.training.distill import distill, pack_table, probe_cosine, unpack_table
from tests.support.bundles import make_tokenizer
from tests.support.seeds import seeded


def sif_like_table(*seed: object, rows: int = 501, dim: int = 63) -> np.ndarray:
    """Row norms over four orders of magnitude, as SIF leaves them."""
    rng = seeded("table", *seed)
    return (rng.standard_normal((rows, dim)) * np.geomspace(1e-4, 1, rows)[:, None]).astype(np.float32)


def test_int8_rows_are_within_half_a_step_of_their_own_scale(request):
    table = sif_like_table(request.node.name)
    packed = pack_table(table, "int8")
    assert packed["embeddings"].dtype == np.int8
    assert packed["weights"].dtype == np.float32
    step = np.abs(table).max(axis=1, keepdims=True) / 127
    assert (np.abs(unpack_table(packed) - table) <= step * (0.5 + 1e-4)).all()


def test_int8_sentences_point_where_float32_ones_do(request):
    table = sif_like_table(request.node.name)
    mean, least = probe_cosine(table, unpack_table(pack_table(table, "int8")), seed=1, probes=200)
    assert least <= mean <= 1 + 1e-12
    assert least > 0.999


def test_a_zero_row_stays_zero():
    table = np.zeros((3, 5), np.float32)
    table[1] = 2
    np.testing.assert_array_equal(unpack_table(pack_table(table, "int8")), table)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_float_tables_have_no_weights(request, dtype):
    packed = pack_table(sif_like_table(request.node.name), dtype)
    assert set(packed) == {"embeddings"}
    assert packed["embeddings"].dtype == np.dtype(dtype)


@pytest.mark.parametrize(
    "arguments", [{"dtype": "int4"}, {"dim": 0}, {"sif": 1.0}, {"model": "./no/such/folder"}, {"model": "/no/such"}]
)
def test_unusable_arguments_are_refused_before_any_work(tmp_path, arguments):
    with pytest.raises(InvalidInputError):
        distill(**{"model": "some/model", "out_folder": tmp_path, **arguments})
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_told_with_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "model2vec.distill", None)
    with pytest.raises(BackendUnavailableError, match=r"ipr_engine\[train\]"):
        distill(tmp_path, tmp_path / "out")


@pytest.fixture(scope="module")
def tiny_bert(tmp_path_factory):
    """A BERT of two layers with random weights, saved like any transformers model."""
    torch = pytest.importorskip("torch", reason="needs extra [train]: distilling")
    transformers = pytest.importorskip("transformers", reason="needs extra [train]: distilling")
    pytest.importorskip("model2vec", reason="needs extra [train]: distilling")
    folder = tmp_path_factory.mktemp("tiny")
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(make_tokenizer(folder / "made.json")),
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48
    )
    transformers.BertModel(config).save_pretrained(folder)
    return folder


def test_a_folder_that_holds_no_sentence_encoder_is_named(tiny_bert, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInputError, match=r"model: .*empty cannot be read as a sentence encoder"):
        distill(tmp_path / "empty", tmp_path / "out")


def test_distilled_folder_loads_in_model2vec_and_names_no_path(tiny_bert, tmp_path):
    from model2vec import StaticModel

    folders = {dtype: distill(tiny_bert, tmp_path / dtype, dim=16, dtype=dtype) for dtype in ("int8", "float32")}
    texts = ["what is the story", "write python code"]
    one, other = (StaticModel.from_pretrained(str(folder)).encode(texts) for folder in folders.values())
    assert one.shape == (2, 16)
    assert ((one * other).sum(axis=1) > 0.999).all()
    for file in folders["int8"].iterdir():
        assert str(tiny_bert.parent).encode() not in file.read_bytes()
    record = json.loads((folders["int8"] / "distill.json").read_text())
    assert record["cosine_to_float32"]["least"] > 0.999


def test_distilling_twice_gives_the_same_bytes(tiny_bert, tmp_path):
    one, two = (distill(tiny_bert, tmp_path / name, dim=16) for name in ("one", "two"))
    for file in one.iterdir():
        assert file.read_bytes() == (two / file.name).read_bytes(), file.name
