"""Bundles with path rows for the tests: generated prompts, predicted by the bundle's own heads, with outcomes drawn from that."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np

from ipr_engine import Bundle, Engine
from ipr_engine.bundle import PathRows
from tests.support.calibration_data import make_prompts, seeded


def make_rows(engine: Engine, rows: int = 500, split: str = "path", **changes: Any) -> PathRows:
    """Path rows of an engine's first heads: an outcome is 1 with the chance that they predict."""
    encoded = engine.encode(list(make_prompts(split, rows)))
    made = engine.decide(encoded, tau=0.0, rule="minmax")
    right = seeded("path rows", split).random(made.qualities.shape) < made.qualities
    parts = {
        "candidates": engine.bundle.names,
        "quality": made.qualities.astype(np.float16),
        "tokens_out": made.tokens_out.astype(np.float32),
        "outcome": (254 * right).astype(np.uint8),
        "billed_tokens": encoded.billed_tokens.astype(np.uint32),
        "heads": (engine.bundle.quality_heads.sha256,),
    }
    return PathRows(**(parts | changes))


def with_rows(bundle: Bundle, rows: PathRows | None) -> Bundle:
    """The bundle with these path rows, under a hash of its own."""
    name = hashlib.sha256(f"{bundle.hash} {rows and rows.quality.tobytes()!r}".encode()).hexdigest()
    return replace(bundle, path_rows=rows, hash=name)


def with_path(engine: Engine, rows: int = 500, **changes: Any) -> Engine:
    return Engine(with_rows(engine.bundle, make_rows(engine, rows, **changes)))
