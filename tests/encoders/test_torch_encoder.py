"""The torch tier: the embeddings of plain transformers code, long prompts cut between words; promises of all: test_cpu_tiers.py."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ipr_engine.encoders.torch import TorchEncoder
from ipr_engine.errors import BackendUnavailableError, BundleFormatError, BundleNotFoundError, InvalidInputError
from tests.support import skips
from tests.support.bundles import WORDS
from tests.support.transformer_folders import (
    MODULES,
    import_torch,
    library_ids,
    make_bare_transformer,
    make_sentence_transformer,
    plain_embedding,
    write_pooling,
)
from tests.support.wordpieces import minilm_json

PROMPTS = ["what is the story", "x", "Write Python code, and prove it.", "why to explain in " * 4, "naïve 東京 q9"]
ROW_BOUND = 1e-5  # of ||x||, as TorchEncoder states it for float32


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_sentence_transformer(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def encoder(folder):
    return TorchEncoder.from_folder(folder, max_tokens=32, batch=3)


def assert_close(x, want):
    assert (np.linalg.norm(x - want, axis=-1) <= ROW_BOUND * np.linalg.norm(want, axis=-1)).all()


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_embeddings_are_those_of_plain_transformers_code(tmp_path, pooling, normalize):
    made = make_sentence_transformer(tmp_path, pooling=pooling, normalize=normalize)
    encoder = TorchEncoder.from_folder(made, max_tokens=64, batch=2)
    want = [plain_embedding(made, library_ids(made, p), pooling=pooling, normalize=normalize) for p in PROMPTS]
    assert_close(encoder.encode(PROMPTS).x, np.stack(want))
    assert (encoder.pooling, encoder.normalize, encoder.dim, encoder.native) == (pooling, normalize, 32, None)


@pytest.mark.parametrize(("family", "pooling"), [("roberta", "cls"), ("qwen3", "last")])
def test_other_families_pad_and_count_positions_as_they_are_made_to(tmp_path, family, pooling):
    made = make_bare_transformer(tmp_path, family)
    encoder = TorchEncoder.from_folder(made, pooling=pooling, max_tokens=48)
    want = [plain_embedding(made, library_ids(made, p), pooling=pooling, normalize=False) for p in PROMPTS]
    assert_close(encoder.encode(PROMPTS).x, np.stack(want))


def test_the_real_minilm_is_embedded_as_sentence_transformers_does():
    path = minilm_json()
    if path is None:
        pytest.skip(skips.MINILM)
    torch, transformers = import_torch()
    texts = [*PROMPTS, "Sort a list of 10 numbers in Python; explain each step.\n\n" * 12, "Was ist π·r²? 😀"]
    batch = transformers.AutoTokenizer.from_pretrained(path.parent)(
        texts, padding=True, truncation=True, max_length=256, return_tensors="pt"
    )
    with torch.no_grad():
        states = transformers.AutoModel.from_pretrained(path.parent).eval()(**batch).last_hidden_state
    seen = batch["attention_mask"][..., None].float()
    want = torch.nn.functional.normalize((states * seen).sum(1) / seen.sum(1).clamp(min=1e-9), dim=1).numpy()
    encoder = TorchEncoder.from_folder(path.parent, max_tokens=256)
    got = encoder.encode(texts)
    assert ((got.x * want).sum(axis=1) >= 0.99999).all()
    np.testing.assert_array_equal(got.billed_tokens, seen[..., 0].sum(1).numpy() - 2)
    assert (encoder.dim, encoder.tokenizer.kind) == (384, "wordpiece")


def test_a_long_prompt_keeps_its_special_tokens_head_and_tail(encoder, folder):
    words = [WORDS[i % len(WORDS)] for i in range(41)]
    encoded = encoder.encode([" ".join(words), " ".join(words[:30])])
    cls, *own, sep = library_ids(folder, " ".join(words))
    assert len(own) == 41
    want = plain_embedding(folder, [cls, *own[:15], *own[-15:], sep])
    assert_close(encoded.x[0], want)
    assert encoded.truncated.tolist() == [True, False]
    assert encoded.billed_tokens.tolist() == [41, 30]


def test_the_cut_never_divides_a_word(encoder, folder):
    text = (
        "the story " * 7 + "explaining " + "why " * 20 + "storys " + "the story " * 7
    )  # the 15th piece of each half: mid-word
    cls, *own, sep = library_ids(folder, text)
    assert len(own) == 14 + 2 + 20 + 2 + 14
    assert_close(encoder.encode([text]).x[0], plain_embedding(folder, [cls, *own[:14], *own[-14:], sep]))


def test_special_tokens_in_a_prompt_are_text(encoder):
    assert encoder.encode(["why [SEP] why"]).billed_tokens.tolist() == [2 + 5]
    assert encoder.count_tokens("why [SEP] why") == 2 + 5


def test_a_post_processor_may_add_nothing(tmp_path):
    made = make_bare_transformer(tmp_path)
    document = json.loads((made / "tokenizer.json").read_text())
    (made / "tokenizer.json").write_text(json.dumps({**document, "post_processor": None}))
    encoder = TorchEncoder.from_folder(made, pooling="mean", max_tokens=1)
    encoded = encoder.encode(["why", "why how", ""])
    assert_close(encoded.x[:1], encoded.x[1:2])
    assert encoded.truncated.tolist() == [False, True, False]
    assert not encoded.x[2].any()


@pytest.mark.parametrize(("dtype", "bound"), [("bfloat16", 0.05), ("float16", 0.01)])
def test_half_precision_is_near_float32(folder, encoder, dtype, bound):
    half = TorchEncoder.from_folder(folder, max_tokens=32, dtype=dtype)
    x = half.encode(PROMPTS[:3]).x
    assert x.dtype == np.float32
    assert (np.linalg.norm(x - encoder.encode(PROMPTS[:3]).x, axis=1) <= bound).all()
    assert dtype in half.summary


def test_sharded_weights_are_read_and_hashed(tmp_path, folder, encoder):
    torch, transformers = import_torch()
    made = make_sentence_transformer(tmp_path)
    (made / "model.safetensors").unlink()
    transformers.AutoModel.from_pretrained(folder, dtype=torch.float32).save_pretrained(made, max_shard_size="20KB")
    assert len(list(made.glob("model-*.safetensors"))) > 1
    sharded = TorchEncoder.from_folder(made, max_tokens=32)
    np.testing.assert_array_equal(sharded.encode(["why"]).x, encoder.encode(["why"]).x)
    assert sharded.identity != encoder.identity


def test_identity_follows_what_shapes_x_and_nothing_else(tmp_path, folder):
    def identity(path, **changed):
        return TorchEncoder.from_folder(path, **{"max_tokens": 32, **changed}).identity

    base = identity(folder)
    assert identity(folder, batch=1) == base
    others = {identity(folder, max_tokens=31), identity(folder, dtype="bfloat16")}
    others.add(identity(make_sentence_transformer(tmp_path / "seed", seed=1)))
    others.add(identity(make_sentence_transformer(tmp_path / "cls", pooling="cls")))
    others.add(identity(make_sentence_transformer(tmp_path / "raw", normalize=False)))
    others.add(identity(make_sentence_transformer(tmp_path / "config", layer_norm_eps=1e-6)))
    assert len(others | {base}) == 7
    assert identity(make_sentence_transformer(tmp_path / "same")) == base
    bare = make_bare_transformer(tmp_path / "bare")
    assert identity(bare, pooling="mean", normalize=True) == base


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"dtype": "float64"}, InvalidInputError, "dtype: expected one of float32"),
        ({"device": "abacus"}, InvalidInputError, "device: expected a device of torch"),
        ({"device": "cuda:99"}, BackendUnavailableError, "device: 'cuda:99' was asked for and is missing here"),
        ({"device": "meta"}, BackendUnavailableError, "device: 'meta'"),
        ({"pooling": "cls"}, InvalidInputError, "pooling: .* says 'mean', got 'cls'"),
        ({"pooling": "max"}, InvalidInputError, "pooling: expected one of mean, cls, last"),
        ({"normalize": False}, InvalidInputError, "normalize: .* says True, got False"),
        ({"normalize": 1}, InvalidInputError, "normalize: expected true, false or None"),
    ],
)
def test_bad_arguments_are_named(folder, arguments, error, message):
    with pytest.raises(error, match=message):
        TorchEncoder.from_folder(folder, **{"max_tokens": 32, **arguments})


def test_roberta_has_fewer_positions_than_rows(tmp_path):
    made = make_bare_transformer(tmp_path, "roberta")
    with pytest.raises(InvalidInputError, match="at most the model's 63 positions"):
        TorchEncoder.from_folder(made, pooling="mean", max_tokens=64)
    longest = TorchEncoder.from_folder(made, pooling="mean", max_tokens=63)
    assert longest.encode(["why " * 99]).truncated.all()


@pytest.mark.parametrize(
    "modes",
    [
        {},
        {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True},
        {"pooling_mode_max_tokens": True},
        {"pooling_mode": "weightedmean"},
    ],
)
def test_pooling_that_cannot_be_told_is_refused(tmp_path, modes):
    made = make_sentence_transformer(tmp_path)
    write_pooling(made, modes)
    with pytest.raises(InvalidInputError, match="pooling cannot be told"):
        TorchEncoder.from_folder(made)


def test_a_pooling_named_in_one_word_is_understood(tmp_path):
    made = make_sentence_transformer(tmp_path)
    write_pooling(made, {"pooling_mode": "lasttoken"})
    assert TorchEncoder.from_folder(made, max_tokens=32).pooling == "last"


def test_a_bare_folder_needs_pooling(tmp_path):
    made = make_bare_transformer(tmp_path)
    with pytest.raises(InvalidInputError, match=r"pooling: .* no modules\.json"):
        TorchEncoder.from_folder(made)


@pytest.mark.parametrize(
    ("modules", "error"),
    [
        ([*MODULES, {"path": "2_Dense", "type": "sentence_transformers.models.Dense"}], InvalidInputError),
        (MODULES[:1], InvalidInputError),
        ([{**MODULES[0], "path": "../other"}, MODULES[1]], InvalidInputError),
        ([{"path": ""}], BundleFormatError),
        ({}, BundleFormatError),
    ],
)
def test_unknown_modules_are_refused(tmp_path, modules, error):
    made = make_sentence_transformer(tmp_path)
    (made / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(error, match=r"modules\.json"):
        TorchEncoder.from_folder(made)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors", "1_Pooling/config.json"])
def test_a_missing_file_is_named(tmp_path, name):
    made = make_sentence_transformer(tmp_path)
    (made / name).unlink()
    with pytest.raises(BundleNotFoundError, match=name.replace(".", r"\.")):
        TorchEncoder.from_folder(made)


def test_pickled_weights_are_never_read(tmp_path):
    torch, _ = import_torch()
    made = make_sentence_transformer(tmp_path)
    torch.save({}, made / "pytorch_model.bin")
    (made / "model.safetensors").unlink()
    with pytest.raises(BundleNotFoundError, match=r"pickled weights \(pytorch_model.bin\) are never read"):
        TorchEncoder.from_folder(made)


@pytest.mark.parametrize("damage", ["truncated", "no tensor", "other shape", "no JSON", "small vocabulary"])
def test_weights_that_do_not_fit_are_refused_not_drawn_at_random(tmp_path, damage):
    from safetensors.numpy import load_file, save_file

    made = make_sentence_transformer(tmp_path)
    weights, config = made / "model.safetensors", made / "config.json"
    tensors, settings = load_file(weights), json.loads(config.read_text())
    if damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:-5])
    elif damage == "no tensor":
        save_file({key: tensor for key, tensor in tensors.items() if "layer.1" not in key}, weights)
    elif damage == "other shape":
        config.write_text(json.dumps({**settings, "intermediate_size": 50}))
    elif damage == "no JSON":
        config.write_text("{")
    else:
        name = "embeddings.word_embeddings.weight"
        save_file({**tensors, name: tensors[name][:9].copy()}, weights)
        config.write_text(json.dumps({**settings, "vocab_size": 9}))
    with pytest.raises(BundleFormatError):
        TorchEncoder.from_folder(made, max_tokens=32)


def test_an_adapter_is_refused(tmp_path):
    made = make_sentence_transformer(tmp_path)
    (made / "adapter_config.json").write_text("{}")
    with pytest.raises(InvalidInputError, match="adapter"):
        TorchEncoder.from_folder(made)


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ("why", "prompts: expected a sequence of str, got one str"),
        (7, "prompts: expected a sequence of str, got int"),
        (["why", None], r"prompts\[1\]: expected"),
        (["why", "a\ud800"], r"prompts\[1\]: expected"),
    ],
)
def test_bad_prompts_are_named(encoder, prompts, message):
    with pytest.raises(InvalidInputError, match=message):
        encoder.encode(prompts)
