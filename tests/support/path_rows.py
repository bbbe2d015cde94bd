"""Path rows are generated: random ones for a bundle's writer, and ones that an engine's own heads predict, with drawn outcomes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ipr_engine import Engine
from ipr_engine.bundle import Bundle, BundleParts, PathRows, heads_sha256, write_bundle
from tests.support.bundles import bundle_parts
from tests.support.calibration_data import make_prompts
from tests.support.seeds import seeded


def make_path_rows(
    candidates: Sequence[str],
    *,
    rows: int = 40,
    heads: tuple[str, ...] = (),
    seed: int = 0,
    again: bool = False,
    own: bool = False,
) -> PathRows:
    """Draw predictions and outcomes; the first row is judged on no candidate but the first."""
    shape = (rows, len(candidates))
    rng = seeded("path rows", shape, seed)
    outcome = rng.choice(np.array([0, 254, 127, 255], np.uint8), shape, p=[0.4, 0.4, 0.1, 0.1])
    outcome[0, 1:] = 255

    def quality() -> np.ndarray:
        return rng.random(shape).astype(np.float16)

    def tokens() -> np.ndarray:  # numbers that a float16 of 64s holds
        return np.float32(64) * np.exp(rng.normal(3, 2, shape)).astype(np.float16).astype(np.float32)

    return PathRows(
        candidates=tuple(candidates),
        quality=quality(),
        tokens_out=tokens(),
        outcome=outcome,
        billed_tokens=rng.integers(0, 1 << 20, rows).astype(np.uint32),
        tokens_in=rng.integers(1, 1 << 20, shape).astype(np.float32) if own else None,
        again_quality=quality() if again else None,
        again_tokens_out=tokens() if again else None,
        heads=heads,
    )


def with_path_rows(parts: dict[str, Any], given: PathRows | None = None, **shape: Any) -> dict[str, Any]:
    """Return arguments of `write_bundle` with path rows of its first heads: those given, or generated ones of this shape."""
    names = [candidate.name for candidate in parts["candidates"]]
    made = make_path_rows(names, **shape) if given is None else given
    return {**parts, "path_rows": replace(made, heads=(heads_sha256(parts["heads"][0]),))}


def make_path_bundle(folder: Path, *, rows: int = 40, **shape: Any) -> Bundle:
    parts = with_path_rows(bundle_parts(folder / "sources", **shape), rows=rows)
    return Bundle.load(write_bundle(folder / "bundles", BundleParts(**parts)))


def make_rows(engine: Engine, rows: int = 500, split: str = "path", **changes: Any) -> PathRows:
    """Draw path rows of an engine's first heads: an outcome is 1 with the chance that they predict."""
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
    """Return the bundle with these path rows, under a hash of its own."""
    name = hashlib.sha256(f"{bundle.hash} {rows and rows.quality.tobytes()!r}".encode()).hexdigest()
    return replace(bundle, path_rows=rows, hash=name)


def with_path(engine: Engine, rows: int = 500, **changes: Any) -> Engine:
    return Engine(with_rows(engine.bundle, make_rows(engine, rows, **changes)))


def assert_equal_rows(a: PathRows | None, b: PathRows | None) -> None:
    """Assert that rows are equal to the bit, heads apart."""
    assert a is not None
    assert b is not None
    assert a.candidates == b.candidates
    for name in ("quality", "tokens_out", "outcome", "billed_tokens", "tokens_in", "again_quality", "again_tokens_out"):
        one, two = getattr(a, name), getattr(b, name)
        assert (one is None) == (two is None), name
        if one is not None:
            assert one.dtype == two.dtype, name
            assert one.shape == two.shape, name
            assert one.tobytes() == two.tobytes(), name
