"""This file has the threshold and the order of `decide` in numpy, for code that applies a rule to qualities and costs it has.

The compiled op, the Triton kernel and `reference.decide` each state them again, and tests hold them against one another.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[Any]


class ThresholdRule(Protocol):
    """A `ThresholdRule` holds the coefficients of a threshold: `policy.rules.Coefficients`, or a point of a calibration map."""

    @property
    def alpha_hi(self) -> float: ...
    @property
    def alpha_lo(self) -> float: ...
    @property
    def offset(self) -> float: ...


def level(rule: ThresholdRule, hi: Any, lo: Any, dtype: Any = np.float32) -> Any:
    """Return (alpha_hi*hi + alpha_lo*lo) + offset, in the op's order of operations.

    Args:
        hi, lo: the highest and lowest quality among the allowed candidates, numbers or arrays of `dtype`.
    """
    # Each operation rounds to `dtype`, in the order the op has: numpy scalars of it, never Python floats.
    return (dtype(rule.alpha_hi) * hi + dtype(rule.alpha_lo) * lo) + dtype(rule.offset)


def threshold(rule: ThresholdRule, hi: Any, lo: Any, dtype: Any = np.float32) -> Any:
    """Return the quality that a candidate has to reach: min(level, hi)."""
    return np.minimum(level(rule, hi, lo, dtype), hi)


def order(quality: Floats, cost: Floats, worth: float, tie_rank: Floats) -> list[int]:
    """Return the candidates by cost - worth * quality; ties go to the higher quality, then to the lower tie_rank.

    Args:
        quality, cost: (models,) of one dtype, in which the objective is computed. tie_rank: (models,).
    """
    objective = cost - quality.dtype.type(worth) * quality
    return [int(m) for m in np.lexsort((tie_rank, -quality, objective))]  # the last key is the first to sort by
