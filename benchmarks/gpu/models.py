"""This module makes the encoder under test an export, a bundle on it with generated heads, and prompts of exactly n ids."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from ipr_engine.bundle import BundleParts, FittedOn, HeadsSource, RuleConstants, write_bundle
from ipr_engine.encoders.manifest import ModelOrigin, is_export, read_export, write_manifest
from ipr_engine.encoders.torch import TorchEncoder
from ipr_engine.encoders.transformer import TransformerEncoder
from tests.support.bundles import WORDS, make_candidates, make_prices, make_tensors

MODELS, HIDDEN = 11, 64  # what the figures to reach are stated for
MAX_TOKENS = 512


def as_export(folder: Path, work: Path, *, pooling: str | None, max_tokens: int = MAX_TOKENS) -> Path:
    """Return `folder` if it is an export, else one without an ONNX graph made of its transformers or sentence-transformers files.

    max_tokens: of one that is made.
    """
    if is_export(folder):
        return folder
    normalize = None if pooling is None else True
    encoder = TorchEncoder.from_folder(folder, pooling=pooling, normalize=normalize, max_tokens=16)
    made = work / "export"
    made.mkdir()
    files = {"config": "config.json", "tokenizer": "tokenizer.json", "weights": "model.safetensors"}
    for name in files.values():
        shutil.copy(folder / name, made / name)
    write_manifest(
        made,
        architecture="measured",
        dim=encoder.dim,
        max_tokens=min(max_tokens, encoder.spec.positions or max_tokens),
        spec=encoder.spec,
        origin=ModelOrigin(folder.name),
        files=files,
        provenance={"made_by": "benchmarks/gpu/models.py"},
    )
    return made


def make_bundle(export: Path, work: Path) -> Path:
    """Write a bundle of MODELS candidates whose heads, with a trunk of HIDDEN units, are drawn at random: for times, not answers."""
    read = read_export(export)
    candidates = make_candidates(MODELS)
    heads = HeadsSource(
        id="heads",
        encoder="transformer",
        outputs=("quality", "tokens"),
        activation="relu",
        candidates=[candidate.name for candidate in candidates],
        rule_constants=RuleConstants(hi=0.75, lo=0.25),
        fitted_on=FittedOn(source="generated", prompts=1, prompt_ids_sha256="0" * 64),
        tensors=make_tensors(models=MODELS, dim=read.dim, hidden=HIDDEN),
    )
    return write_bundle(
        work / "bundles",
        BundleParts(
            name="measured",
            created="2026-11-24",
            candidates=candidates,
            encoders=[read.bundle_source("transformer", contained=True)],
            heads=[heads],
            prices=make_prices(candidates),
            support=None,
            provenance={"recipe": "benchmarks/gpu/models.py"},
        ),
    )


def prompts_of(encoder: TransformerEncoder, tokens: int, count: int) -> list[str]:
    """Return prompts whose ids, special ones included, are exactly `tokens`."""
    own = tokens - len(encoder.spec.before) - len(encoder.spec.after)
    single = [word for word in WORDS if encoder.count_tokens(word) == 1]
    rng = np.random.default_rng(tokens)
    made = [" ".join(rng.choice(single, own)) for _ in range(count)]
    assert all(len(ids) == tokens for ids in encoder.ids(made))
    return made
