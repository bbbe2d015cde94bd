"""Roofs say what the machine can do at most, measured, and what a transformer asks of it."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ipr_engine._extras import need
from ipr_engine.encoders.manifest import Export

SIDE = 1024  # of the square matrices multiplied: 12 MB in all, beyond the second cache, where large batches live
COPY_BYTES = 1 << 28


@dataclass(frozen=True)
class Roofs:
    """`Roofs` holds what was measured: float32 GFLOP/s of a matrix product, GB/s of a copy (read plus write)."""

    gflops: float
    gb_per_s: float


def measure_roofs(threads: int, *, seconds: float = 1.0) -> Roofs:
    """Return the best of repeated products (numpy's BLAS, `threads` threads) and copies (one thread)."""
    threadpool_limits = need("threadpoolctl", "the roof of matrix products", "eval").threadpool_limits

    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((SIDE, SIDE)).astype(np.float32) for _ in range(2))
    out = np.empty_like(a)
    source, target = np.ones(COPY_BYTES // 4, np.float32), np.empty(COPY_BYTES // 4, np.float32)
    with threadpool_limits(threads):
        product = _best(lambda: np.matmul(a, b, out=out), seconds)
    copy = _best(lambda: np.copyto(target, source), seconds)
    return Roofs(gflops=2 * SIDE**3 / product / 1e9, gb_per_s=2 * COPY_BYTES / copy / 1e9)


def _best(call: Any, seconds: float) -> float:
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best


def layers_of(export: Export) -> Mapping[str, int] | None:
    """Return width, depth and so on from config.json; None where it does not use the common names."""
    config = json.loads(export.file("config").read_bytes())
    names = {"hidden": "hidden_size", "layers": "num_hidden_layers", "inner": "intermediate_size"}
    if not all(isinstance(config.get(key), int) for key in names.values()) or export.architecture != "bert":
        return None
    return {name: config[key] for name, key in names.items()}


def flops(sizes: Mapping[str, int], lengths: Sequence[int]) -> float:
    """Count multiplications and additions of a BERT's matrix products over rows of these lengths, without padding."""
    width, inner = sizes["hidden"], sizes["inner"]
    a_token = 2 * (4 * width * width + 2 * width * inner)
    return float(sum(sizes["layers"] * tokens * (a_token + 4 * tokens * width) for tokens in lengths))


def weight_bytes(sizes: Mapping[str, int], *, bytes_each: int) -> float:
    """Return the bytes of the matrices that one forward pass reads, whatever its batch."""
    width, inner = sizes["hidden"], sizes["inner"]
    return float(sizes["layers"] * (4 * width * width + 2 * width * inner) * bytes_each)
