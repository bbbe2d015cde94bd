"""Small transformers with random weights are saved here as real ones are, and plain code embeds with them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing

from ipr_engine.encoders.manifest import ModelOrigin, write_manifest
from ipr_engine.encoders.transformer_files import TransformerSpec, read_transformer_folder, special_ids
from tests.support import skips
from tests.support.bundles import make_tokenizer

NORMALIZE = {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"}
MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
]
MODES = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token", "last": "pooling_mode_lasttoken"}


def import_torch() -> tuple[Any, Any]:
    """Return torch and transformers, or skip the test."""
    return tuple(pytest.importorskip(name, reason=skips.TORCH) for name in ("torch", "transformers"))


def make_bare_transformer(folder: Path, family: str = "bert", *, seed: int = 0, **config: Any) -> Path:
    """Write a small model's config.json, model.safetensors, tokenizer.json; family: bert, roberta, modernbert or qwen3 (a decoder)."""
    torch, transformers = import_torch()
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer.from_file(str(make_tokenizer(folder / "tokenizer.json")))
    cls, sep = ((name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]"))
    template = "$A [SEP]" if family == "qwen3" else "[CLS] $A [SEP]"
    tokenizer.post_processor = TemplateProcessing(single=template, special_tokens=[cls, sep])
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    tokenizer.save(str(folder / "tokenizer.json"))
    torch.manual_seed(seed)
    own: Any = {
        "bert": ("Bert", {}),
        "roberta": ("Roberta", {}),
        "qwen3": ("Qwen3", {"head_dim": 16, "num_key_value_heads": 1}),
        "modernbert": (
            "ModernBert",
            {"num_hidden_layers": 4, "local_attention": 8, "bos_token_id": None, "eos_token_id": None},
        ),
    }[family]
    settings: dict[str, Any] = {
        "vocab_size": tokenizer.get_vocab_size(),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 48,
        "max_position_embeddings": 64,
        "pad_token_id": tokenizer.token_to_id("[PAD]"),
        "initializer_range": 0.5,  # far apart, so that a wrong id or position shows
    }
    made = getattr(transformers, f"{own[0]}Config")(**{**settings, **dict(own[1]), **config})
    getattr(transformers, f"{own[0]}Model")(made).save_pretrained(folder)
    return folder


def make_sentence_transformer(folder: Path, *, pooling: str = "mean", normalize: bool = True, **config: Any) -> Path:
    """Write a bare transformer with modules.json and 1_Pooling/config.json, as sentence-transformers saves it."""
    make_bare_transformer(folder, **config)
    (folder / "modules.json").write_text(json.dumps(MODULES + [NORMALIZE] * normalize))
    write_pooling(folder, {mode: name == pooling for name, mode in MODES.items()})
    return folder


def write_pooling(folder: Path, modes: dict[str, Any]) -> None:
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 32, **modes}))


def make_export_without_graph(source: Path, folder: Path) -> Path:
    """Write the export of a bare transformer, less its ONNX graph; its weights are float32, `ipr export-encoder`'s float16."""
    folder.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        shutil.copy(source / name, folder / name)
    read = read_transformer_folder(source, pooling="mean", normalize=True)
    before, after = special_ids(read.tokenizer, "tokenizer.json")
    spec = TransformerSpec(
        pooling="mean",
        normalize=True,
        before=before,
        after=after,
        pad_id=0,
        positions=64,
        tokenizer=read.tokenizer,
        weights_sha256=read.weights_sha256,
        tokenizer_sha256=read.tokenizer_sha256,
        config_sha256=read.config_sha256,
    )
    write_manifest(
        folder,
        architecture="bert",
        dim=json.loads((folder / "config.json").read_text())["hidden_size"],
        max_tokens=48,
        spec=spec,
        origin=ModelOrigin("tiny"),
        files={"config": "config.json", "tokenizer": "tokenizer.json", "weights": "model.safetensors"},
        provenance={"made_by": "tests/support/transformer_folders.py"},
    )
    return folder


def plain_embedding(folder: Path, ids: Sequence[int], *, pooling: str = "mean", normalize: bool = True) -> np.ndarray:
    """Return one embedding by transformers alone, of the ids with their special tokens; no batch, no padding."""
    torch, transformers = import_torch()
    model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        states = model(torch.tensor([list(ids)])).last_hidden_state[0].double().numpy()
    x: np.ndarray = {"mean": states.mean(axis=0), "cls": states[0], "last": states[-1]}[pooling]
    unit: np.ndarray = x / np.linalg.norm(x)
    return unit if normalize else x


def library_ids(folder: Path, text: str) -> list[int]:
    """Return the ids of a text with special tokens, by transformers' own tokenizer class."""
    _, transformers = import_torch()
    return list(transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))(text)["input_ids"])
