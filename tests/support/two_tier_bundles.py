"""Two-tier bundles for the tests take another table as their second tier, so that nothing of it needs torch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ipr_engine import Engine
from ipr_engine.bundle import Bundle, BundleParts, EncoderSource, SupportSpec, write_bundle
from ipr_engine.bundle.two_tiers import two_tiers
from tests.support.bundles import WORDS, bundle_parts, make_encoder, make_tensors
from tests.support.seeds import seeded

PROVENANCE = {"recipe": "tests/support/two_tier_bundles.py"}
LETTERS = (*WORDS, *"abcdefg123")


def make_prompts(count: int, *seed: object) -> list[str]:
    rng = seeded("two tiers", count, *seed)
    return [" ".join(rng.choice(LETTERS, int(rng.integers(2, 9)))) for _ in range(count)]


def make_tiers(folder: Path, *, models: int = 4, hidden: int = 0, seed: int = 1, **shape: Any) -> tuple[Bundle, Bundle]:
    """Write bundles of one tier with equal candidates and prices: 16-d with support, and 24-d (another table) without."""
    first = bundle_parts(folder / "first", models=models, **shape)
    second = bundle_parts(folder / "second", models=models, dim=24, support=False, **shape)
    table = make_encoder(folder / "other", dim=24, seed=seed)
    head = replace(
        second["heads"][0],
        id="own",
        encoder="large",
        rule_constants=replace(second["heads"][0].rule_constants, hi=0.9, lo=0.4),
        tensors=make_tensors(
            models=models, dim=24, hidden=hidden, seed=seed, tokens="tokens" in second["heads"][0].outputs
        ),
    )
    second |= {"encoders": [EncoderSource.in_folder(table, id="large", max_tokens=5)], "heads": [head]}
    return (
        Bundle.load(write_bundle(folder / "one", BundleParts(**first))),
        Bundle.load(write_bundle(folder / "two", BundleParts(**second))),
    )


def join(folder: Path, tiers: tuple[Bundle, Bundle], *, gap: float = 0.02, **changes: Any) -> Bundle:
    return Bundle.load(two_tiers(*tiers, gap=gap, root=folder / "joined", provenance=PROVENANCE, **changes))


def measured(bundle: Bundle) -> Bundle:
    """Return the bundle with centroids near the embeddings of some prompts, so that supports lie between 0 and 1."""
    x = Engine(bundle).encode(make_prompts(5, "centroids")).x
    distances = np.linspace(0, 1.5, 101).astype(np.float32)
    return replace(bundle, support=SupportSpec(encoder="static", centroids=x, distances=distances))


def middle_gap(gap: np.ndarray) -> float:
    """Return a gap that about half of these gaps lie below."""
    return float(np.median(gap))
