"""This module writes small bundles for the tests: a real tokenizer, a random table, random heads, nothing downloaded."""

from __future__ import annotations

import json
import string
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from ipr_engine.bundle import (
    BundleParts,
    Candidate,
    EncoderSource,
    FittedOn,
    HeadsSource,
    Price,
    PriceList,
    RuleConstants,
    SupportSpec,
    TransformerSource,
    write_bundle,
)
from tests.support.seeds import seeded

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = (
    "the",
    "to",
    "of",
    "and",
    "in",
    "is",
    "what",
    "how",
    "why",
    "write",
    "code",
    "prove",
    "explain",
    "python",
    "story",
)
SUFFIXES = ("##ing", "##ed", "##er", "##ly", "##tion", "##s")
_LETTERS = string.ascii_lowercase + string.digits
VOCAB = tuple(
    dict.fromkeys([*SPECIAL, *_LETTERS, *(f"##{c}" for c in _LETTERS), *string.punctuation, *WORDS, *SUFFIXES])
)
NAMES = ("alpha/large", "beta/mid", "gamma/small", "delta/tiny", "epsilon/nano")


def make_tokenizer(path: Path) -> Path:
    """Write a tokenizer.json that splits any lower- or upper-case English into words, letters, digits and marks."""
    vocab = {piece: i for i, piece in enumerate(VOCAB)}
    tokenizer = Tokenizer(WordPiece(vocab, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.save(str(path))
    return path


def make_encoder(
    folder: Path,
    *,
    dim: int = 16,
    dtype: str = "float32",
    rows: int | None = None,
    weights: bool = False,
    normalize: bool = True,
    seed: int = 0,
) -> Path:
    """Write a model2vec folder. rows: table rows when the vocabulary is mapped onto fewer of them."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = seeded("encoder", dim, rows, seed)
    table = rng.standard_normal((rows or len(VOCAB), dim))
    if dtype == "int8":
        table = np.round(table * (127 / np.abs(table).max()))
    tensors: dict[str, np.ndarray] = {"embeddings": table.astype(dtype)}
    if rows is not None:
        tensors["mapping"] = rng.integers(0, rows, len(VOCAB)).astype(np.int32)
    if weights:
        tensors["weights"] = rng.random(len(VOCAB)).astype(np.float32)
    save_file(tensors, folder / "model.safetensors")
    make_tokenizer(folder / "tokenizer.json")
    config = {"model_type": "model2vec", "normalize": normalize, "hidden_dim": dim, "pooling": "mean"}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def make_forest(*, models: int, dim: int, trees: int, depth: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Return the tensors of a random forest, in which about one branch in ten ends early."""
    rng = seeded("forest", models, dim, trees, depth, seed)
    nodes = trees, 2**depth - 1
    threshold = np.where(rng.random(nodes) < 0.1, np.inf, 0.2 * rng.standard_normal(nodes))
    return {
        "tree_column": rng.integers(0, dim, nodes).astype(np.int32),
        "tree_threshold": threshold.astype(np.float32),
        "tree_leaf": rng.normal(0, 0.5, (trees, 2**depth, models)).astype(np.float32),
    }


def make_tensors(
    *, models: int, dim: int, hidden: int = 0, rank: int = 0, tokens: bool = True, trees: int = 0, seed: int = 0
) -> dict[str, Any]:
    """Return random heads in the packed form that hidden and rank ask for; hidden = 0 is linear. Trees are of depth 3."""
    rng = seeded("heads", models, dim, hidden, rank, seed)
    shapes: dict[str, tuple[int, ...]] = {"skip": (models, dim), "bias": (models,)}
    if hidden:
        shapes |= {"trunk": (hidden, dim), "identity": (models, hidden), "out": (models, hidden)}
    if hidden and rank:
        shapes |= {"up": (models, hidden, rank), "down": (models, rank, dim)}
    if tokens:
        shapes |= {"len_skip": (models, dim), "len_bias": (models,)}
    tensors = {name: (0.5 * rng.standard_normal(shape)).astype(np.float32) for name, shape in shapes.items()}
    if tokens:
        tensors["len_bias"] += 5
        tensors["len_cap"] = np.full(models, 4096, np.float32)
    if trees:
        tensors |= make_forest(models=models, dim=dim, trees=trees, depth=3, seed=seed)
    return tensors


def make_candidates(models: int, context_windows: Sequence[int | None] | None = None) -> list[Candidate]:
    names = [NAMES[i] if i < len(NAMES) else f"model/{i:03d}" for i in range(models)]
    return [
        Candidate(
            name=name,
            family=name.split("/")[0],
            provider="test",
            context_window=context_windows[i] if context_windows else (8192 << (i % 3) if i % 2 == 0 else None),
            token_ratio=1 + 0.125 * (i % 3),
            features=("tools", "vision")[: i % 3],
            latency_ms=None if i % 2 else 250.0,
        )
        for i, name in enumerate(names)
    ]


def make_prices(candidates: list[Candidate], *, scale: float = 1.0) -> PriceList:
    """Return prices: the first candidate is the dearest, each next one costs half."""
    prices = {
        candidate.name: Price(
            input_usd_per_1m=scale * 8 / 2**i, output_usd_per_1m=scale * 32 / 2**i, fixed_usd=0.0, basis="made up"
        )
        for i, candidate in enumerate(candidates)
    }
    return PriceList(date="2026-11-24", prices=prices)


def bundle_parts(
    work: Path,
    *,
    models: int = 3,
    dim: int = 16,
    hidden: int = 0,
    rank: int = 0,
    tokens: bool = True,
    trees: int = 0,
    support: bool = True,
    table_dtype: str = "float32",
    table_rows: int | None = None,
    table_weights: bool = False,
    normalize: bool = True,
    max_tokens: int = 512,
    activation: str = "relu",
    price_scale: float = 1.0,
    context_windows: Sequence[int | None] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Return the keyword arguments of `write_bundle` for a small bundle; `work` gets the encoder's source files."""
    candidates = make_candidates(models, context_windows)
    encoder = make_encoder(
        work / "encoder",
        dim=dim,
        dtype=table_dtype,
        rows=table_rows,
        weights=table_weights,
        normalize=normalize,
        seed=seed,
    )
    heads = HeadsSource(
        id="static",
        encoder="static",
        outputs=("quality", "tokens") if tokens else ("quality",),
        activation=activation,
        candidates=[candidate.name for candidate in candidates],
        rule_constants=RuleConstants(hi=0.75, lo=0.25),
        fitted_on=FittedOn(source="generated", prompts=7, prompt_ids_sha256="0" * 64),
        tensors=make_tensors(models=models, dim=dim, hidden=hidden, rank=rank, tokens=tokens, trees=trees, seed=seed),
    )
    rng = seeded("support", dim, seed)
    closeness = SupportSpec(
        encoder="static",
        centroids=rng.standard_normal((5, dim)).astype(np.float32),
        distances=np.sort(rng.random(101)).astype(np.float32),
    )
    return {
        "name": "test",
        "created": "2026-11-24",
        "candidates": candidates,
        "encoders": [EncoderSource.in_folder(encoder, id="static", max_tokens=max_tokens)],
        "heads": [heads],
        "prices": make_prices(candidates, scale=price_scale),
        "support": closeness if support else None,
        "provenance": {"recipe": "tests/support/bundles.py", "seed": seed},
    }


def make_bundle(
    tmp_path: Path, *, overrides: Mapping[str, Any] | None = None, activate: bool = True, **shape: Any
) -> Path:
    """Write a small bundle below tmp_path / "bundles" (the root) and return its folder.

    `shape` goes to `bundle_parts`; `overrides` replaces arguments of `write_bundle`.
    """
    parts = bundle_parts(tmp_path / "sources", **shape) | dict(overrides or {})
    return write_bundle(tmp_path / "bundles", BundleParts(**parts), activate=activate)


def make_siblings(tmp_path: Path, count: int, *, models: int = 5, dim: int = 16, **shape: Any) -> list[Path]:
    """Write bundles of one root on one encoder, CURRENT at the first; each has its own heads, prices and candidate order."""
    written = []
    for number in range(count):
        parts = bundle_parts(tmp_path / "sources", models=models, dim=dim, **shape)
        candidates = parts["candidates"][number % models :] + parts["candidates"][: number % models]
        packed = {"hidden": shape.get("hidden", 0), "rank": shape.get("rank", 0), "tokens": shape.get("tokens", True)}
        parts["heads"] = [
            replace(
                parts["heads"][0],
                candidates=[candidate.name for candidate in candidates],
                tensors=make_tensors(models=models, dim=dim, seed=number, **packed),
            )
        ]
        prices = make_prices(candidates, scale=1 + number)
        parts |= {"candidates": candidates, "prices": prices, "provenance": {"sibling": number}}
        written.append(write_bundle(tmp_path / "bundles", BundleParts(**parts), activate=number == 0))
    return written


def with_heads_on(source: TransformerSource, folder: Path) -> Path:
    """Write a bundle of three candidates whose heads read a transformer; return its folder."""
    parts = bundle_parts(folder / "sources", dim=16, support=False)
    heads = replace(parts["heads"][0], encoder=source.id, tensors=make_tensors(models=3, dim=source.dim))
    return write_bundle(
        folder / "bundles", BundleParts(**{**parts, "encoders": [*parts["encoders"], source], "heads": [heads]})
    )
