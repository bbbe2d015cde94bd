"""`split_outcomes` keeps near-duplicate prompts together, so that no test prompt has a twin in training."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ipr_engine._validate import random_seed
from ipr_engine.data.duplicates import THRESHOLD, duplicate_groups
from ipr_engine.data.outcomes import MIN_KEY, Outcomes, normalised
from ipr_engine.errors import InvalidInputError

SHARES: Mapping[str, float] = {"train": 0.8, "test": 0.2}
MARGIN = 0.01  # of all prompts: a share that is off by more is reported
_FIX = {
    "question_key": "If its prompts ask different questions, give them question keys of their own (column question_key)",
    "equal text": "The same prompt stands there many times: leave the copies out",
    "near-duplicates": "If its prompts ask different questions, raise the threshold",
}


@dataclass(frozen=True)
class SplitReport:
    """A `SplitReport` says what a split did, and where a share was missed.

    Attributes:
        rows, wanted: prompts per split, and the shares asked for. groups: distinct groups.
        joined: prompts that share their group with another.
        largest: prompts of the largest group. origin: what made it one: "question_key" (most of its prompts have one key),
            "equal text" or "near-duplicates". example: prompt_id of one of its prompts.
    """

    rows: dict[str, int]
    wanted: dict[str, float]
    groups: int
    joined: int
    largest: int
    origin: str
    example: str

    @property
    def missed(self) -> dict[str, float]:
        """Return split -> its share, for the shares that are off by more than a prompt and more than MARGIN of all prompts."""
        total = sum(self.rows.values())
        return {
            name: rows / total
            for name, rows in self.rows.items()
            if abs(rows - self.wanted[name] * total) > max(1.0, MARGIN * total) + 1e-9
        }

    @property
    def notice(self) -> str | None:
        """A sentence that says which shares were missed, by how much and why; None where every share was met."""
        if not self.missed:
            return None
        shares = ", ".join(
            f"{name} {share:.3f} instead of {self.wanted[name]:g}" for name, share in self.missed.items()
        )
        total = sum(self.rows.values())
        return (
            f"shares missed: {shares}. {total} prompts are {self.groups} groups that stay together; the largest has {self.largest} "
            f"({self.largest / total:.0%}), made by {self.origin}, prompt_id {self.example!r} among them. {_FIX[self.origin]}"
        )


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
        The outcomes with new `splits` (`of_split` selects one), and what was done; `notice` says where a share was missed.
    Raises:
        InvalidInputError: shares or threshold are out of range, or a split would stay empty.
    """
    names = list(shares)
    wanted = np.array([shares[name] for name in names], dtype=np.float64)
    if not names or not all(names) or not (wanted > 0).all() or not math.isclose(wanted.sum(), 1.0, abs_tol=1e-6):
        raise InvalidInputError(f"shares: expected named shares > 0 that sum to 1, got {dict(shares)}")
    random_seed("seed", seed)
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
    largest = np.flatnonzero(group == sizes.argmax()).tolist()
    report = SplitReport(
        rows=rows,
        wanted=dict(shares),
        groups=len(sizes),
        joined=int(sizes[sizes > 1].sum()),
        largest=len(largest),
        origin=_origin(outcomes, largest),
        example=outcomes.prompt_ids[largest[0]],
    )
    return replace(outcomes, splits=splits), report


def _origin(outcomes: Outcomes, rows: list[int]) -> str:
    """Return what made these rows one group, by what most of them have in common."""
    # Equal texts have equal keys: texts are asked first.
    keys = Counter(key for row in rows if len(key := outcomes.question_keys[row]) >= MIN_KEY)
    texts = Counter(normalised(outcomes.prompts[row]) for row in rows)
    if max(texts.values()) > len(rows) / 2:
        return "equal text"
    return "question_key" if keys and max(keys.values()) > len(rows) / 2 else "near-duplicates"


def _deal(
    group: npt.NDArray[np.int64], datasets: tuple[str, ...], wanted: npt.NDArray[np.float64], seed: int
) -> npt.NDArray[np.int64]:
    """Return the split index of every group: in random order, each goes to the split that lacks most prompts of the group's dataset.

    Groups that would fill half of a dataset's smallest split come first, while there is room for them.
    """
    sizes = np.bincount(group)
    # A group is of the dataset of its first row.
    first_row = np.unique(group, return_index=True)[1]
    numbers = {name: i for i, name in enumerate(sorted(set(datasets)))}
    dataset = np.array([numbers[datasets[row]] for row in first_row])
    total = np.bincount(dataset, weights=sizes, minlength=len(numbers))
    lacking = total[:, None] * wanted  # (datasets, splits)
    overall = lacking.sum(axis=0)
    order = np.random.default_rng(seed).permutation(len(sizes))
    # A large group dealt last would overshoot whichever split is left: those go first, by falling size.
    large = sizes[order] > total[dataset[order]] * wanted.min() / 2
    order = order[np.lexsort((np.where(large, -sizes[order], 0), ~large))]
    result = np.empty(len(sizes), dtype=np.int64)  # (groups,)
    for g in order:
        mine = lacking[dataset[g]]
        # among the splits that lack as much, to a prompt, the whole decides: it keeps tiny datasets from going one way
        chosen = int(np.argmax(np.where(mine > mine.max() - 1, overall, -np.inf)))
        result[g] = chosen
        mine[chosen] -= sizes[g]
        overall[chosen] -= sizes[g]
    return result
