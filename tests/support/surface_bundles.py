"""Small bundles whose heads read a table and surface features behind it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from ipr_engine.bundle import BundleParts, ConcatenatedSource, SurfaceSource, write_bundle
from ipr_engine.bundle.encoder_source import AnySource
from ipr_engine.bundle.surface_lexicon import DEFAULT_LEXICON, parse_lexicon
from tests.support.bundles import bundle_parts, make_tensors

TABLE_DIM = 16
SURFACE_DIM = parse_lexicon(DEFAULT_LEXICON.read_bytes(), "lexicon").dim
BOTH = "side_by_side"


def surface_parts(work: Path, *, models: int = 4, lexicon: Path = DEFAULT_LEXICON, **shape: Any) -> dict[str, Any]:
    """Return the arguments of `write_bundle`; the support is measured on the table's columns."""
    parts = bundle_parts(work, models=models, dim=TABLE_DIM, **shape)
    dim = TABLE_DIM + parse_lexicon(lexicon.read_bytes(), str(lexicon)).dim
    features: list[AnySource] = [
        SurfaceSource(id="surface", lexicon=lexicon),
        ConcatenatedSource(id=BOTH, parts=("static", "surface")),
    ]
    heads = replace(parts["heads"][0], encoder=BOTH, tensors=make_tensors(models=models, dim=dim))
    support = None if parts["support"] is None else replace(parts["support"], encoder=BOTH)
    return {**parts, "encoders": [*parts["encoders"], *features], "heads": [heads], "support": support}


def make_surface_bundle(folder: Path, **shape: Any) -> Path:
    """Write such a bundle below folder / "bundles" and return its folder."""
    return write_bundle(folder / "bundles", BundleParts(**surface_parts(folder / "sources", **shape)))
