"""`needed_prompts` says how many prompts a promise of tau would need to be certified, from what the collected ones show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

TAUS = (0.1, 0.2, 0.3, 0.5)
KEEPS = 0.5  # of the quality that may be lost: a router that loses more than half of it is harder to certify
TEST = 1.2  # standard errors that the test by betting needs for each of the normal test (bounds.py)
CALIBRATION_SHARE = 0.2


@dataclass(frozen=True)
class NeededPrompts:
    """A `NeededPrompts` says what a promise needs.

    Attributes:
        tau: of the promise. calibration: scored prompts that no head has seen; prompts: collected ones, of which these are a part.
    """

    tau: float
    calibration: int
    prompts: int


def needed_prompts(
    quality: npt.NDArray[np.float64], best: int, cheapest: int, *, risk: float = 0.1, taus: Sequence[float] = TAUS
) -> list[NeededPrompts]:
    """Return what each promise would need; none where the cheapest candidate is as good as the best one.

    A promise allows a loss of tau * gap in mean quality. A router that loses half of it must be told apart from one that loses all:
    n = (1.2 * z * s / (tau * gap / 2))^2 prompts, where s is the standard deviation of best minus cheapest, prompt by prompt.

    Args:
        quality: (prompts, models), NaN where not known. best, cheapest: columns.
    """
    both = quality[:, [best, cheapest]]
    both = both[~np.isnan(both).any(axis=1)]
    if len(both) < 2:
        return []
    apart = both[:, 0] - both[:, 1]
    gap, spread = float(apart.mean()), float(apart.std(ddof=1))
    if gap <= 0:
        return []
    z = NormalDist().inv_cdf(1 - risk)
    counts = [math.ceil((TEST * z * spread / (tau * gap * (1 - KEEPS))) ** 2) for tau in taus]
    return [
        NeededPrompts(tau, count, math.ceil(count / CALIBRATION_SHARE)) for tau, count in zip(taus, counts, strict=True)
    ]
