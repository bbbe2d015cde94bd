"""Folders of the static encoder hold a table of random rows, a tokenizer of made words, a config."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from tests.support.wordpieces import made_vocab, tokenizer_json

VOCAB = made_vocab()
TREE = tokenizer_json(VOCAB)


def tensors(
    rng: np.random.Generator, dtype: str, dim: int, mapping: bool, weights: bool, tokens: int = len(VOCAB)
) -> dict[str, np.ndarray]:
    rows = tokens // 3 if mapping else tokens
    values = rng.standard_normal((rows, dim)) * rng.lognormal(size=(rows, 1))
    table = rng.integers(-127, 128, (rows, dim)) if dtype == "int8" else values
    made = {"embeddings": table.astype(dtype)}
    if mapping:
        made["mapping"] = rng.integers(0, rows, tokens).astype(np.int32)
    if weights:
        made["weights"] = rng.lognormal(size=tokens)  # float64, as model2vec writes it
    return made


def write(folder: Path, made: dict[str, np.ndarray], *, tree: object = TREE, config: object = None) -> Path:
    save_file(made, folder / "model.safetensors")
    (folder / "tokenizer.json").write_text(json.dumps(tree))
    (folder / "config.json").write_text(json.dumps({"normalize": True} if config is None else config))
    return folder
