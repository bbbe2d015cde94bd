"""Tensors of heads by candidate: which of them all candidates share, and where a candidate's row lies in the others.

A candidate's row is its part of every tensor that is not shared: tensor[m], of a forest's leaves tensor[:, :, m].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Tensor = NDArray[Any]
FOREST = ("tree_column", "tree_threshold", "tree_leaf")
SHARED = frozenset({"trunk", "tree_column", "tree_threshold"})
_LEAVES = "tree_leaf"  # (trees, leaves, models): the one tensor whose last axis is the candidates'


def part_of(name: str, tensor: Tensor, rows: Sequence[int]) -> Tensor:
    """Return the part of a tensor that these candidates have, by position: a shared tensor is itself."""
    if name in SHARED:
        return tensor
    return np.ascontiguousarray(tensor[..., list(rows)] if name == _LEAVES else tensor[list(rows)])


def of_candidates(tensors: Mapping[str, Tensor], rows: Sequence[int]) -> dict[str, Tensor]:
    """Return the tensors of these candidates, by position, in this order."""
    return {name: part_of(name, tensor, rows) for name, tensor in tensors.items()}


def row_of(tensors: Mapping[str, Tensor], at: int) -> dict[str, Tensor]:
    """Return the row of one candidate, by position; -1 is the last."""
    own = {name: tensor for name, tensor in tensors.items() if name not in SHARED}
    return {name: tensor[..., at] if name == _LEAVES else tensor[at] for name, tensor in own.items()}


def mean_row(tensors: Mapping[str, Tensor], rows: Sequence[int]) -> dict[str, Tensor]:
    """Return the mean of these candidates' rows, float32; of one candidate its own bits."""
    row = {}
    for name, tensor in tensors.items():
        if name not in SHARED:
            axis, part = -1 if name == _LEAVES else 0, part_of(name, tensor, rows)
            mean = part.take(0, axis=axis) if len(rows) == 1 else part.mean(axis=axis, dtype=np.float64)
            row[name] = np.array(mean, np.float32, order="C")
    return row


def with_row(tensors: Mapping[str, Tensor], row: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors with one candidate more, the last."""

    def grown(name: str, tensor: Tensor) -> Tensor:
        if name in SHARED:
            return tensor
        # (models, ...) and (1, ...) give (models + 1, ...)
        axis = -1 if name == _LEAVES else 0
        return np.concatenate([tensor, np.expand_dims(row[name], axis)], axis=axis)

    return {name: grown(name, tensor) for name, tensor in tensors.items()}
