"""This module writes small bundles on a transformer, and loads an engine on a GPU, or emulated on the CPU where there is none.

Import this before anything that imports triton: as decide_implementations, it chooses Triton's interpreter where there is no GPU.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ipr_engine.bundle import BundleParts, SupportSpec, write_bundle
from ipr_engine.encoders.manifest import read_export
from ipr_engine.engine import Engine
from ipr_engine.tokens.token_profile import TokenProfile
from tests.support import decide_implementations
from tests.support.bundles import WORDS, bundle_parts, make_tensors
from tests.support.transformer_folders import import_torch, make_bare_transformer, make_export_without_graph

DEVICE = "cuda" if decide_implementations.ON_DEVICE else "emulated"
PROMPTS = ["what is the story", "why", "Write Python code, and prove it. " * 3, "how to explain in " * 9, "to prove"]
POLICIES = [
    {"tau": 0.0},
    {"tau": 0.35},
    {"tau": 1.0},
    {"tau": 0.4, "rule": "max", "worth": 0.01},
    {"tau": 0.5, "rule": "fixed"},
]


def make_export(folder: Path, **config: Any) -> Path:
    import_torch()
    return make_export_without_graph(make_bare_transformer(folder / "model", **config), folder / "export")


def make_bundle(
    folder: Path, export: Path, *, name: str = "one", models: int = 3, seed: int = 0, support: bool = False,
    tokenizer: TokenProfile | None = None, **form: Any,
) -> Path:  # fmt: skip
    """Write a bundle whose heads read the export's transformer. tokenizer: of every second candidate."""
    dim = read_export(export).dim
    parts = bundle_parts(folder / f"sources-{name}", models=models, dim=16, support=False)
    transformer = read_export(export).bundle_source("transformer", contained=True)
    tensors = make_tensors(models=models, dim=dim, seed=seed, **form)
    outputs = ("quality", "tokens") if "len_skip" in tensors else ("quality",)
    heads = replace(parts["heads"][0], encoder="transformer", outputs=outputs, tensors=tensors)
    if tokenizer is not None:
        parts["candidates"][1::2] = [replace(one, tokenizer=tokenizer) for one in parts["candidates"][1::2]]
    if support:
        rng = np.random.default_rng(seed)
        distances = np.sort(rng.uniform(0.5, 2, 101)).astype(np.float32)
        parts["support"] = SupportSpec(
            encoder="transformer", centroids=rng.normal(0, 0.3, (5, dim)).astype(np.float32), distances=distances
        )
    return write_bundle(folder / "bundles", BundleParts(**{**parts, "encoders": [transformer], "heads": [heads]}))


def random_prompts(rng: np.random.Generator, count: int) -> list[str]:
    return [" ".join(rng.choice(WORDS, size)) for size in rng.integers(1, 60, count)]


def cpu_engine(folder: Path) -> Engine:
    return Engine.load(folder, tier="torch")


def gpu_engine(folder: Path, *, tier: str = "torch", **arguments: Any) -> Engine:
    return Engine.load(folder, tier=tier, device=DEVICE, **arguments)


def emulated() -> Any:
    from ipr_engine.cuda.graphs import EagerGraphs

    return EagerGraphs("cpu")
