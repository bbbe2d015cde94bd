"""This file makes resamples of prompts for intervals, folds of questions for cross-validation, and sums that repeat to the last bit.

The bootstrap is paired: every method sees the same resamples (docs/metrics.md). Copies of one question always share a fold, so
that no fold is scored by its own twin.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ipr_engine._extras import need
from ipr_engine.errors import InvalidInputError

Array = npt.NDArray[np.float64]

DRAWS = 1000
MOST_APART = 1 << 15  # prompts that are drawn one by one; more are drawn in as many groups
MOST_STEPS = 512  # of a running sum, where prompts are drawn in groups
COLUMNS = 32  # summed by group at once
CHUNK = 128  # draws turned into float64 at once: bounds the memory at chunk x rows x 8 bytes


class Estimate(NamedTuple):
    """An `Estimate` is a figure, its 95 % bootstrap interval, and the share of draws in which it was defined."""

    value: float
    low: float
    high: float
    defined: float = 1.0

    def to_json(self) -> dict[str, Any]:
        """Return the figure as plain JSON, None for NaN."""
        return {name: None if np.isnan(part) else part for name, part in zip(self._fields, self, strict=True)}

    def shown(self, sign: str = "", *, percent: bool = False) -> str:
        """Return the figure with its interval, "-" where it is undefined. sign: "+" for a difference."""
        form = f"{sign}.0%" if percent else f"{sign}.2f"
        return "-" if np.isnan(self.value) else f"{self.value:{form}} [{self.low:{form}}, {self.high:{form}}]"


class Resamples:
    """`Resamples` count how often each prompt occurs in the sample itself (row 0: once each) and in `draws` resamples of it.

    Any figure computed along axis 0 of what `means` and `sums` return is paired by construction.

    More than `MOST_APART` prompts are dealt by chance into as many groups of equal size, to one prompt, and groups are drawn: a sum over
    a group of independent prompts is as good a draw as a prompt, and time and memory of the draws stay those of `MOST_APART` prompts. Row
    0 is the whole sample still.

    Attributes:
        counts: (1 + draws, prompts or groups). totals: (1 + draws,) prompts in each resample.
    """

    def __init__(self, rows: int, *, draws: int = DRAWS, seed: int = 0) -> None:
        if rows < 1 or draws < 0:
            raise InvalidInputError(f"rows, draws: expected rows >= 1 and draws >= 0, got {rows} and {draws}")
        self.rows, self.draws, self.seed = rows, draws, seed
        drawn = min(rows, MOST_APART)
        random, chance = np.random.default_rng(seed), np.full(drawn, 1 / drawn)
        # A prompt is drawn a few times at most: 16 bits hold the count, in a quarter of the memory.
        self.counts = np.ones((1 + draws, drawn), np.uint16)
        for begin in range(1, 1 + draws, CHUNK):
            some = self.counts[begin : begin + CHUNK]
            some[:] = random.multinomial(drawn, chance, size=len(some))
        self.totals = np.full(1 + draws, float(rows))
        if rows > drawn:
            self._deal(random.permutation(rows) % drawn)

    @classmethod
    def of_questions(cls, keys: Sequence[str], *, draws: int = DRAWS, seed: int = 0) -> Resamples:
        """Draw whole questions of keys (rows,): copies of one prompt, or rewordings, tell no more than one does."""
        question, distinct = numbered(keys)
        drawn = cls(distinct, draws=draws, seed=seed)
        drawn.rows = len(keys)
        if len(keys) > MOST_APART:
            drawn._deal(question if distinct <= MOST_APART else drawn._group[question])
            return drawn
        drawn.counts = drawn.counts[:, question]
        drawn.totals = drawn.counts.sum(axis=1, dtype=np.float64)
        return drawn

    def _deal(self, group: npt.NDArray[np.int64]) -> None:
        """Draw groups of rows, each a column of counts. group: (rows,) the group of each; none is empty."""
        self._group, self._order = group, np.argsort(group, kind="stable")
        sizes = np.bincount(group, minlength=self.counts.shape[1]).astype(np.float64)
        self._begins = (np.cumsum(sizes) - sizes).astype(np.int64)
        self.totals = self._drawn(sizes)

    def sums(self, values: Array) -> Array:
        """Sum over the rows of every resample: values (rows, k) or (rows,) -> (1 + draws, k) or (1 + draws,)."""
        if len(values) != self.rows:
            raise InvalidInputError(f"values: expected {self.rows} rows, got {len(values)}")
        if self.rows <= MOST_APART:
            return self._drawn(values)
        wide = values.reshape(self.rows, -1)
        columns = range(0, wide.shape[1], COLUMNS)
        parts = [np.add.reduceat(wide[:, at : at + COLUMNS][self._order], self._begins, axis=0) for at in columns]
        sums: Array = np.concatenate(parts, axis=1).astype(np.float64, copy=False)
        return self._drawn(sums.reshape(len(sums), *values.shape[1:]))

    def running(self, values: Array, order: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]) -> Array:
        """Sum values (rows,) over the first rows in an order (rows,), up to each of the places `ends`: (1 + draws, ends)."""
        if self.rows <= MOST_APART:
            counts = self.counts[:, order].astype(np.float64)
            return np.asarray(np.cumsum(counts * values[order], axis=1)[:, ends])
        step = np.empty(self.rows, np.int64)
        step[order] = np.searchsorted(ends, np.arange(self.rows))  # those after the last end count for none
        inside = step < len(ends)
        cell = self._group[inside] * len(ends) + step[inside]
        table = np.bincount(cell, values[inside], self.counts.shape[1] * len(ends)).astype(np.float64, copy=False)
        return np.asarray(np.cumsum(self._drawn(table.reshape(-1, len(ends))), axis=1))

    def steps(self, ends: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the places at which a running sum is taken, of those that it could be: all, or `MOST_STEPS` where groups are drawn."""
        if self.rows <= MOST_APART or len(ends) <= MOST_STEPS:
            return ends
        return ends[np.unique(np.linspace(0, len(ends) - 1, MOST_STEPS).astype(np.int64))]

    def _drawn(self, values: Array) -> Array:
        """Sum values of prompts or groups over every resample."""
        parts = np.array_split(self.counts, max(1, len(self.counts) // CHUNK))
        return np.concatenate([part.astype(np.float64) @ values for part in parts])

    def means(self, values: Array, weights: Array | None = None) -> Array:
        """Take means over rows, `sum(weight * value) / sum(weight)` where weights of the same shape are given.

        An entry of weight 0 does not count, whatever its value (NaN included). NaN where nothing counts.
        """
        if weights is None:
            return np.asarray(self.sums(values) / self.totals.reshape(-1, *[1] * (values.ndim - 1)))
        total = self.sums(np.where(weights > 0, weights * values, 0.0))
        weight = self.sums(weights)
        return np.divide(total, weight, out=np.full_like(total, np.nan), where=weight > 0)


def resamples_of(keys: Sequence[str], *, draws: int = DRAWS, seed: int = 0) -> Resamples:
    """Draw the whole questions of keys (rows,), see `Resamples.of_questions`; prompts, by the row, where no question repeats."""
    if len(set(keys)) == len(keys):
        return Resamples(len(keys), draws=draws, seed=seed)
    return Resamples.of_questions(keys, draws=draws, seed=seed)


def estimate(figures: Array) -> Estimate:
    """Return value and percentile interval of a figure (1 + draws,), the value in row 0. Undefined draws are left out and counted."""
    draws = figures[1:]
    defined = draws[np.isfinite(draws)]
    if not len(defined):
        return Estimate(float(figures[0]), np.nan, np.nan, 0.0 if len(draws) else np.nan)
    low, high = np.percentile(defined, [2.5, 97.5])
    return Estimate(float(figures[0]), float(low), float(high), len(defined) / len(draws))


def difference(figures: Array, baseline: Array) -> Estimate:
    """Estimate figures - baseline, both (1 + draws,) from the same resamples."""
    return estimate(figures - baseline)


def numbered(keys: Sequence[str]) -> tuple[npt.NDArray[np.int64], int]:
    """Return the number of each key among the distinct ones in order, (rows,), and how many these are."""
    # Not by an array of text: numpy gives every cell the width of the widest, four bytes a character.
    distinct = {key: number for number, key in enumerate(sorted(set(keys)))}
    return np.fromiter((distinct[key] for key in keys), np.int64, len(keys)), len(distinct)


def grouped_folds(keys: Sequence[str], folds: int, seed: int) -> npt.NDArray[np.int64]:
    """Give every row a fold number, (rows,): questions are shuffled with `seed`, then dealt round robin.

    Raises:
        InvalidInputError: fewer than two folds, or fewer distinct keys than folds.
    """
    group_of_row, distinct = numbered(keys)
    if folds < 2 or distinct < folds:
        raise InvalidInputError(
            f"folds: expected 2 to {distinct} (the distinct questions), got {folds}; prompts of one question_key count as one "
            "question: give different questions keys of their own"
        )
    # Dealt after a shuffle: folds of equal size, whatever the order of the keys.
    fold_of_group = np.empty(distinct, dtype=np.int64)
    fold_of_group[np.random.default_rng(seed).permutation(distinct)] = np.arange(distinct) % folds
    return fold_of_group[group_of_row]


def drawn_questions(keys: Sequence[str], most: int, seed: int) -> npt.NDArray[np.bool_]:
    """Mark rows of whole questions drawn by chance, (rows,): as many questions, in the order drawn, as have at most `most` rows together.

    One question at least is drawn.
    """
    question, distinct = numbered(keys)
    order = np.random.default_rng(seed).permutation(distinct)
    sizes = np.bincount(question, minlength=distinct)[order]
    chosen = np.zeros(distinct, np.bool_)
    chosen[order[: max(1, int(np.searchsorted(np.cumsum(sizes), most, side="right")))]] = True
    return np.asarray(chosen[question])


@contextmanager
def one_thread() -> Iterator[None]:
    """Run numpy's and torch's sums in one thread: their order, hence every last bit, then repeats on one machine."""
    with need("threadpoolctl", "a repeatable fit").threadpool_limits(limits=1):
        yield
