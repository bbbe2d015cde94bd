"""Splits that keep near-duplicate prompts together: no test prompt has its twin in training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ipr_engine.data.duplicates import THRESHOLD, duplicate_groups
from ipr_engine.data.outcomes import Outcomes
from ipr_engine.errors import InvalidInputError

SHARES: Mapping[str, float] = {"train": 0.8, "test": 0.2}


@dataclass(frozen=True)
class SplitReport:
    """What a split did.

    Attributes:
        rows: prompts per split. groups: distinct groups. joined: prompts that share their group with another.
        largest: prompts of the largest group.
    """

    rows: dict[str, int]
    groups: int
    joined: int
    largest: int


def split_outcomes(
    outcomes: Outcomes,
    shares: Mapping[str, float] = SHARES,
    *,
    seed: int = 0,
    threshold: float = THRESHOLD,
    verbose: bool = False,
) -> tuple[Outcomes, SplitReport]:
    """Give every prompt a new split; near-duplicates (`duplicates.duplicate_groups`) share theirs.

    Args:
        shares: split name -> share of the prompts; positive, summing to 1. Each dataset is divided by these shares, as
            nearly as its groups allow.
        seed: of the order in which groups are dealt. The result depends on the prompts, not on their order in a file.
    Returns:
        The outcomes with new `splits` (`of_split` selects one), and what was done.
    Raises:
        InvalidInputError: shares or threshold are out of range, or a split would stay empty.
    """
    names = list(shares)
    wanted = np.array([shares[name] for name in names], dtype=np.float64)
    if not names or not all(names) or not (wanted > 0).all() or not math.isclose(wanted.sum(), 1.0, abs_tol=1e-6):
        raise InvalidInputError(f"shares: expected named shares > 0 that sum to 1, got {dict(shares)}")
    if type(seed) is not int or seed < 0:
        raise InvalidInputError(f"seed: expected an int >= 0, got {seed!r}")
    group = duplicate_groups(outcomes.prompts, outcomes.question_keys, threshold=threshold, verbose=verbose)
    split_of_group = _deal(group, outcomes.datasets, wanted, seed)
    splits = tuple(names[split_of_group[g]] for g in group)
    rows = {name: splits.count(name) for name in names}
    empty = [name for name in names if not rows[name]]
    sizes = np.bincount(group)
    if empty:
        raise InvalidInputError(
            f"shares: no prompt is left for {empty[0]!r}: {len(outcomes)} prompts are {len(sizes)} groups of "
            f"near-duplicates, the largest of {sizes.max()}; raise threshold or give question keys of their own"
        )
    report = SplitReport(rows, len(sizes), int(sizes[sizes > 1].sum()), int(sizes.max()))
    return replace(outcomes, splits=splits), report


def _deal(
    group: npt.NDArray[np.int64], datasets: tuple[str, ...], wanted: npt.NDArray[np.float64], seed: int
) -> npt.NDArray[np.int64]:
    """Split index of every group: in random order, each to the split that lacks most prompts of the group's dataset.

    Groups that would fill half of a dataset's smallest split come first, while there is room for them.
    """
    sizes = np.bincount(group)
    first_row = np.unique(group, return_index=True)[1]
    numbers = {name: i for i, name in enumerate(sorted(set(datasets)))}
    dataset = np.array([numbers[datasets[row]] for row in first_row])
    total = np.bincount(dataset, weights=sizes, minlength=len(numbers))
    lacking = total[:, None] * wanted  # (datasets, splits)
    overall = lacking.sum(axis=0)
    order = np.random.default_rng(seed).permutation(len(sizes))
    large = sizes[order] > total[dataset[order]] * wanted.min() / 2
    order = order[np.lexsort((np.where(large, -sizes[order], 0), ~large))]
    result = np.empty(len(sizes), dtype=np.int64)
    for g in order:
        mine = lacking[dataset[g]]
        # among the splits that lack as much, to a prompt, the whole decides: it keeps tiny datasets from going one way
        chosen = int(np.argmax(np.where(mine > mine.max() - 1, overall, -np.inf)))
        result[g] = chosen
        mine[chosen] -= sizes[g]
        overall[chosen] -= sizes[g]
    return result
