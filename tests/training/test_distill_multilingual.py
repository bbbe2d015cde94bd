"""Tables of another tokenizer than WordPiece: distilled from a model with a Unigram one, as XLM-R has, and one from a package."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from ipr_engine import Engine
from ipr_engine.cli import main
from ipr_engine.encoders.static import StaticEncoder
from ipr_engine.errors import InvalidInputError
from ipr_engine.training.distill import distill
from ipr_engine.training.train_options import EncoderChoice
from tests.support import skips
from tests.support.training_data import write_source

TEXTS = [
    "今日はいい天気ですね。明日も晴れるでしょうか。",
    "東京で一番おいしいラーメン屋を教えてください。",
    "Какая сегодня погода в Москве?",
    "Schreibe ein Gedicht über den Herbst im alten Wald.",
    "¿Cuál es la capital de Perú y cuántos habitantes tiene?",
    "What is the weather like in the old town today?",
    "서울에서 가장 맛있는 식당을 알려 주세요.",
    "请写一首关于秋天的诗。",
]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A table distilled from an XLM-R of two layers with random weights, whose Unigram tokenizer was trained on TEXTS."""
    torch = pytest.importorskip("torch", reason=skips.TRAIN)
    transformers = pytest.importorskip("transformers", reason=skips.TRAIN)
    pytest.importorskip("model2vec", reason=skips.TRAIN)
    from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, trainers
    from tokenizers.models import Unigram

    folder = tmp_path_factory.mktemp("xlmr")
    made = Tokenizer(Unigram())
    made.normalizer = normalizers.NFKC()
    made.pre_tokenizer, made.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    made.train_from_iterator(
        TEXTS * 20, trainers.UnigramTrainer(vocab_size=300, special_tokens=special, unk_token="<unk>")
    )
    made.save(str(folder / "made.json"))
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "made.json"),
        bos_token="<s>",
        cls_token="<s>",
        eos_token="</s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
    )
    tokenizer.save_pretrained(folder / "model")
    torch.manual_seed(0)
    config = transformers.XLMRobertaConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48
    )
    transformers.XLMRobertaModel(config).save_pretrained(folder / "model")
    return distill(folder / "model", folder / "table", dim=16)


@pytest.fixture(scope="module")
def packaged(tmp_path_factory):
    """A static table of some hundred languages, 10,000 rows of 64 numbers, Unigram; copied, so that no file of the package is mapped."""
    found = importlib.util.find_spec("static_model")
    if found is None or found.origin is None:
        pytest.skip(skips.MULTILINGUAL_TABLE)
    return Path(shutil.copytree(Path(found.origin).parent / "model", tmp_path_factory.mktemp("packaged") / "table"))


def equals_model2vec(folder: Path) -> None:
    """Check that the encoder of a folder gives what model2vec gives, and knows a token of every text."""
    model2vec = pytest.importorskip("model2vec", reason=skips.TRAIN)
    encoder = StaticEncoder.from_folder(folder)
    assert encoder.native is None  # no WordPiece: the tokenizers library runs it
    assert json.loads((folder / "tokenizer.json").read_text())["model"]["type"] == "Unigram"
    encoded = encoder.encode(TEXTS)
    assert (encoded.billed_tokens > 0).all()
    assert np.abs(encoded.x).sum(axis=1).min() > 0
    want = model2vec.StaticModel.from_pretrained(str(folder)).encode(TEXTS)
    norms = np.linalg.norm(want, axis=1, keepdims=True)
    np.testing.assert_allclose(encoded.x, want / np.where(norms > 0, norms, 1), atol=1e-6)


def test_a_table_distilled_from_a_unigram_model_encodes_as_model2vec_does(table):
    equals_model2vec(table)


def test_heads_are_fitted_on_it_and_its_bundle_routes(table, tmp_path):
    for module in ("pyarrow", "threadpoolctl"):
        pytest.importorskip(module, reason=skips.TRAIN)
    outcomes = write_source(tmp_path / "source", ["large", "small"], TEXTS, rows_per_split=60)
    prices = {"large": 10.0, "small": 1.0}
    entries = [
        {"name": name, "family": "made", "provider": "up", "input_usd_per_1m": usd, "output_usd_per_1m": usd}
        for name, usd in prices.items()
    ]
    (tmp_path / "candidates.json").write_text(json.dumps({"date": "2026-11-24", "candidates": entries}))
    given = ["--outcomes", str(outcomes), "--candidates", str(tmp_path / "candidates.json"), "--encoder", str(table)]
    assert main(["train", *given, "--out", str(tmp_path / "b"), "--estimator", "plain", "--allow-constant"]) == 0
    engine = Engine.load(tmp_path / "b")
    decisions = engine.route_many(TEXTS, tau=0.5)
    assert {decision.model for decision in decisions} <= {"large", "small"}
    assert engine.bundle.encoders[0].kind == "static"


def test_a_table_of_a_package_encodes_as_model2vec_does(packaged):
    equals_model2vec(packaged)


def test_a_table_whose_config_names_no_model_type_is_a_table(table, tmp_path):
    bare = Path(shutil.copytree(table, tmp_path / "bare"))
    (bare / "config.json").write_text(json.dumps({"normalize": True, "embedding_dtype": "int8"}))
    opened = EncoderChoice(folders=bare).open()
    assert isinstance(opened.encoder, StaticEncoder)
    (bare / "model.safetensors").unlink()
    with pytest.raises(InvalidInputError, match="bare is a transformers folder"):
        EncoderChoice(folders=bare).open()
