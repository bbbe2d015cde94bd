"""Sources mixed: each but the first gets an intercept, so that its level does not pass for what its prompts say."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

# The intercept's column: large beside an embedding of norm 1, so that a penalty meant for embeddings hardly shrinks it.
HEIGHT = 10.0

READS_X = ("skip", "trunk", "down")  # the tensors whose last axis is x


def with_intercepts(x: Array, source: npt.NDArray[np.int64] | None) -> Array:
    """x (rows, dim) and one indicator column for every source but number 0, (rows, dim + sources - 1)."""
    if source is None:
        return x
    indicator = np.eye(int(source.max()) + 1)[source][:, 1:] * HEIGHT
    return np.concatenate([x, indicator], axis=1)


def drop_intercepts(tensors: Mapping[str, Array], dim: int) -> dict[str, Array]:
    """The tensors on x (dim,) alone: scores as if every prompt came from source 0. A linear part of zeros only is left out."""
    kept = {name: value[..., :dim] if name in READS_X else value for name, value in tensors.items()}
    if "out" in kept and "skip" in kept and not kept["skip"].any():
        del kept["skip"]
    return kept
