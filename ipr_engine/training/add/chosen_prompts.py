"""`choose_prompts` says on which prompts of an outcome table a new candidate is judged, where it cannot be judged on all.

Prompts on which every candidate is right, or none, say little of a newcomer: it is most likely as the others are. So a prompt's
chance is higher where candidates disagree, and the draw is systematic along the prompts sorted by mean quality: every
level of difficulty gets its part. No prompt's chance is 0 (docs/studies/chosen_prompts.md).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ipr_engine.errors import InvalidInputError

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

FLOOR = 0.15  # added to the standard deviation of the candidates' quality, at most 0.5


def choose_prompts(quality: Array, count: int, *, seed: int = 0) -> Indices:
    """Choose prompts to judge a new candidate on.

    Args:
        quality: (prompts, candidates) of the candidates that are there already, in [0, 1], NaN where not judged; each prompt is
            judged for one candidate at least.
        count: so many prompts.
        seed: of the draw.
    Returns:
        (count,) rising rows of `quality`; all of them where there are no more than `count`.
    Raises:
        InvalidInputError: an argument is not as above.
    """
    q = np.asarray(quality, np.float64)
    if q.ndim != 2 or not q.size:
        raise InvalidInputError(f"quality: expected (prompts, candidates), got {q.shape}")
    if ((q < 0) | (q > 1)).any() or np.isnan(q).all(axis=1).any():
        raise InvalidInputError(
            "quality: expected values in [0, 1], and some of every prompt; leave out prompts without any"
        )
    if type(count) is not int or count < 1:
        raise InvalidInputError(f"count: expected an int >= 1, got {count!r}")
    if count >= len(q):
        return np.arange(len(q))
    level = np.nanmean(q, axis=1)
    random = np.random.default_rng(seed)
    order = np.lexsort((random.random(len(q)), level))
    reach = np.cumsum(_chances(np.sqrt(level * (1 - level))[order] + FLOOR, count))
    return np.sort(order[np.searchsorted(reach, random.random() + np.arange(count)).clip(0, len(q) - 1)])


def _chances(weight: Array, count: int) -> Array:
    """Return inclusion probabilities (prompts,) in proportion to `weight`, none above 1, that sum to `count`."""
    certain = np.zeros(len(weight), np.bool_)
    while True:
        left = count - int(certain.sum())
        chance = np.where(certain, 1.0, weight * left / weight[~certain].sum())
        if not (chance[~certain] >= 1).any():
            return chance
        certain |= chance >= 1
