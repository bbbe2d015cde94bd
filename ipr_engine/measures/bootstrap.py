"""Paired bootstrap over prompts: every method sees the same resamples, so differences are paired (docs/metrics.md)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ipr_engine.errors import InvalidInputError

Array = npt.NDArray[np.float64]

DRAWS = 1000
CHUNK = 128  # draws turned into float64 at once: bounds the memory at chunk x rows x 8 bytes


class Estimate(NamedTuple):
    """A figure, its 95 % bootstrap interval, and the share of draws in which it was defined."""

    value: float
    low: float
    high: float
    defined: float = 1.0

    def to_json(self) -> dict[str, Any]:
        return {name: None if np.isnan(part) else part for name, part in zip(self._fields, self, strict=True)}


class Resamples:
    """How often each prompt occurs in the sample itself (row 0: once each) and in `draws` resamples of it.

    Any figure computed along axis 0 of what `means` and `sums` return is paired by construction.
    """

    def __init__(self, rows: int, *, draws: int = DRAWS, seed: int = 0) -> None:
        if rows < 1 or draws < 0:
            raise InvalidInputError(f"rows, draws: expected rows >= 1 and draws >= 0, got {rows} and {draws}")
        counts = np.random.default_rng(seed).multinomial(rows, np.full(rows, 1 / rows), size=draws)
        self.counts = np.concatenate([np.ones((1, rows), np.int64), counts]).astype(np.uint16)  # (1 + draws, rows)
        self.rows, self.draws, self.seed = rows, draws, seed

    def sums(self, values: Array) -> Array:
        """Sums over the rows of every resample: values (rows, k) or (rows,) -> (1 + draws, k) or (1 + draws,)."""
        if len(values) != self.rows:
            raise InvalidInputError(f"values: expected {self.rows} rows, got {len(values)}")
        parts = np.array_split(self.counts, max(1, len(self.counts) // CHUNK))
        return np.concatenate([part.astype(np.float64) @ values for part in parts])

    def means(self, values: Array, weights: Array | None = None) -> Array:
        """Means over rows, `sum(weight * value) / sum(weight)` where weights of the same shape are given.

        An entry of weight 0 does not count, whatever its value (NaN included). NaN where nothing counts.
        """
        if weights is None:
            return self.sums(values) / self.rows
        total = self.sums(np.where(weights > 0, weights * values, 0.0))
        weight = self.sums(weights)
        return np.divide(total, weight, out=np.full_like(total, np.nan), where=weight > 0)


def estimate(figures: Array) -> Estimate:
    """Value and percentile interval of a figure (1 + draws,), the value in row 0. Undefined draws are left out and counted."""
    draws = figures[1:]
    defined = draws[np.isfinite(draws)]
    if not len(defined):
        return Estimate(float(figures[0]), np.nan, np.nan, 0.0 if len(draws) else np.nan)
    low, high = np.percentile(defined, [2.5, 97.5])
    return Estimate(float(figures[0]), float(low), float(high), len(defined) / len(draws))


def difference(figures: Array, baseline: Array) -> Estimate:
    """Estimate of figures - baseline, both (1 + draws,) from the same resamples."""
    return estimate(figures - baseline)
