"""What makes a fit repeatable: folds by question, and sums in one thread.

Copies of one question always share a fold, so no fold is scored by its own twin.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

from ipr_engine._extras import need
from ipr_engine.errors import InvalidInputError


def grouped_folds(keys: Sequence[str], folds: int, seed: int) -> npt.NDArray[np.int64]:
    """Fold number of every row, shape (rows,): groups are shuffled with `seed`, then dealt round robin.

    Raises:
        InvalidInputError: fewer than two folds, or fewer distinct keys than folds.
    """
    distinct, group_of_row = np.unique(np.asarray(keys, dtype=str), return_inverse=True)
    if folds < 2 or len(distinct) < folds:
        raise InvalidInputError(
            f"folds: expected 2 to {len(distinct)} (the distinct questions), got {folds}; prompts of one question_key count as one "
            "question: give different questions keys of their own"
        )
    fold_of_group = np.empty(len(distinct), dtype=np.int64)
    fold_of_group[np.random.default_rng(seed).permutation(len(distinct))] = np.arange(len(distinct)) % folds
    return fold_of_group[group_of_row]


@contextmanager
def one_thread() -> Iterator[None]:
    """Run numpy's and torch's sums in one thread: their order, hence every last bit, then repeats on one machine."""
    with need("threadpoolctl", "a repeatable fit").threadpool_limits(limits=1):
        yield
