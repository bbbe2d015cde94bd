"""This file packs heads and policies into the arrays that the kernel reads, by numpy alone. decide.py tells their layout."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine.decide.contract import DecidePlan, DecidePolicy, Heads
from ipr_engine.errors import InvalidInputError

POLICY_NUMBERS, MORE_TIERS = 16, 7  # of a policy: floats before its rates, price tiers above the first; as in choose.py
DIM_PADDING, HIDDEN_PADDING = 128, 64  # the largest block_dim and block_hidden of LaunchParams: no block is cut

Floats = npt.NDArray[np.float32]


def round_up(value: int, step: int) -> int:
    """Return the smallest multiple of `step` that is at least `value`."""
    return -(-value // step) * step


def pack_weights(heads: Heads) -> Floats:
    """Return all matrices in one array, in the order that decide.py tells: dim and hidden padded with zeros."""
    models = len(heads.bias)
    parts: list[Floats] = []

    def put(array: Floats | None, *shape: int) -> None:
        if array is not None:
            padded = np.zeros(shape, np.float32)
            padded[tuple(slice(size) for size in array.shape)] = array
            parts.append(padded.ravel())

    dim = round_up(width_of(heads), DIM_PADDING)
    hidden = 0 if heads.out is None else round_up(heads.out.shape[1], HIDDEN_PADDING)
    rank = 0 if heads.down is None else heads.down.shape[1]
    put(heads.skip, models, dim)
    put(heads.len_skip, models, dim)
    put(heads.trunk, hidden, dim)
    put(heads.down, models, rank, dim)
    # rank before hidden: the kernel takes one rank of many hidden units at a time
    put(None if heads.up is None else np.swapaxes(heads.up, 1, 2), models, rank, hidden)
    put(heads.identity, models, hidden)
    put(heads.out, models, hidden)
    return np.concatenate(parts)


def pack_vectors(heads: Heads) -> Floats:
    """Return bias, len_bias, len_cap (+inf where there is none), tie rank (its order, exact in float32), each (padded,), and a forest.

    The forest, where there is one: thresholds and columns (trees, 2^depth) each, leaves (trees, 2^depth, padded).
    """
    models = len(heads.bias)
    packed = np.zeros((4, round_up(models, 16)), np.float32)
    packed[0, :models] = heads.bias
    packed[1, :models] = 0 if heads.len_bias is None else heads.len_bias
    packed[2, :models] = np.inf if heads.len_cap is None else heads.len_cap
    packed[3, :models] = np.arange(models) if heads.tie_rank is None else np.argsort(np.argsort(heads.tie_rank))
    return np.concatenate([packed.ravel(), *_pack_forest(heads)])


def _pack_forest(heads: Heads) -> list[Floats]:
    """Return the parts of a forest, in the order that decide.py tells; none without."""
    threshold, column, leaf = heads.tree_threshold, heads.tree_column, heads.tree_leaf
    if threshold is None or column is None or leaf is None:
        return []
    trees, leaves, models = leaf.shape
    parts = (np.zeros((trees, leaves), np.float32), np.zeros((trees, leaves), np.int32))
    parts[0][:, :-1], parts[1][:, :-1] = threshold, column
    padded = np.zeros((trees, leaves, round_up(models, 16)), np.float32)
    padded[..., :models] = leaf
    return [part.view(np.float32).ravel() for part in (*parts, padded)]


def forest_of(heads: Heads) -> tuple[int, int]:
    """Return the number and the depth of the trees; zeros where there are none."""
    if heads.tree_leaf is None:
        return 0, 0
    trees, leaves, _ = heads.tree_leaf.shape
    return int(trees), int(leaves).bit_length() - 1


def pack_policy(checker: DecidePlan, **terms: Any) -> Floats:
    """Return a policy as a row of GpuPlan.policies, (policy_width,).

    Args:
        checker: any plan of as many candidates: the terms are checked against it.
        terms: DecidePolicy's keywords.

    Raises:
        InvalidInputError: as DecidePolicy.
    """
    more = DecidePolicy(checker, **terms).tiers - 1
    if more > MORE_TIERS:
        raise InvalidInputError(f"tier_above: expected at most {MORE_TIERS} thresholds on a GPU, got {more}")
    models = checker.models
    row = np.zeros(policy_width(models), np.float32)
    row[:5] = terms["alpha_hi"], terms["alpha_lo"], terms["offset"], terms["worth"], more
    columns = row[POLICY_NUMBERS:].reshape(4 + 3 * MORE_TIERS, -1)[:, :models]  # a view: writes go to the row
    in_rate, out_rate = np.atleast_2d(terms["in_rate"], terms["out_rate"])  # (tiers, models) each
    columns[:4] = in_rate[0], out_rate[0], terms["fixed_usd"], terms["allowed"]
    columns[4::3] = np.inf  # a batch may hold rows of policies with more tiers
    for tier in range(more):
        columns[4 + 3 * tier : 7 + 3 * tier] = terms["tier_above"][tier], in_rate[tier + 1], out_rate[tier + 1]
    return row


def policy_width(models: int) -> int:
    """Return the number of floats in a policy's row."""
    return POLICY_NUMBERS + (4 + 3 * MORE_TIERS) * round_up(models, 16)


def dim_of(heads: Heads) -> int:
    """Return the number of columns that x has."""
    return width_of(heads) if heads.dim is None else heads.dim


def width_of(heads: Heads) -> int:
    """Return how many columns of x the products take, the first: fewer than all only beside a forest."""
    for array in (heads.skip, heads.trunk, heads.down):
        if array is not None:
            return int(array.shape[-1])
    raise InvalidInputError("skip: expected an array, since trunk and down are absent too, got None")
