"""Parts of the logits of frozen heads (docs/decide.md), from their tensors: the columns that products take, and what trees add."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine.decide.reference import sum_leaves

Array = npt.NDArray[np.float64]
Tensors = Mapping[str, npt.NDArray[Any]]


def linear_columns(tensors: Tensors, x: Array) -> Array:
    """Return the columns of x that the products take, (rows, width): the first; trees may read more."""
    width = next(tensors[name].shape[-1] for name in ("skip", "trunk", "down") if name in tensors)
    return x[:, :width]


def added_by_trees(tensors: Tensors, x: Array, group: Sequence[int]) -> Array:
    """Return what a forest adds to the logits of these candidates, (rows, candidates); zeros without one."""
    if "tree_leaf" not in tensors:
        return np.zeros((len(x), len(group)))
    return sum_leaves(tensors["tree_column"], tensors["tree_threshold"], tensors["tree_leaf"][..., list(group)], x)
