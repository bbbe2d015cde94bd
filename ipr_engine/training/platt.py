"""Platt's map makes a score a quality: quality = sigmoid(slope * score + offset), fitted on scores out of fold."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from ipr_engine.errors import InvalidInputError
from ipr_engine.training.estimators.ridge import alike

Array = npt.NDArray[np.float64]

# Prior of `fit_pooled_platt`: a candidate's slope over that of all, and its offset from that of all, in logits
SLOPE_WIDTH, OFFSET_WIDTH = 0.1, 0.05
FLATTEST = 0.1  # logits a standard deviation of the scores; the slope's width does not fall below what this one has
POOLED_STEPS = 50  # Newton's, from the map of all
# Rows of source 0 that a level or a map can be taken from; a handful would make a constant of a head
FEWEST_AT_HOME = 20
AT_ONCE = 1 << 22  # scores that `fit_platts` fits at once: bounds its memory


def sigmoid(logit: Array) -> Array:
    """Return 1 / (1 + exp(-logit)), by tanh, which does not overflow."""
    return 0.5 * (1.0 + np.tanh(0.5 * logit))  # any shape


def calibrate(score: Array, quality: Array, at_home: npt.NDArray[np.bool_], pooled: bool | None) -> tuple[Array, Array]:
    """Fit Platt's slope and offset (models,), each on its `calibration_rows`; of a sparse table by `fit_pooled_platt`."""
    rows = calibration_rows(quality, at_home)
    if np.isnan(quality).any() if pooled is None else pooled:
        return fit_pooled_platt(score, quality, rows)
    slope, offset = np.empty(quality.shape[1]), np.empty(quality.shape[1])
    for known, columns in alike(rows):
        slope[columns], offset[columns] = fit_platts(score[np.ix_(known, columns)], quality[np.ix_(known, columns)])
    return slope, offset


def calibration_rows(quality: Array, at_home: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Mark a candidate's judged rows of source 0 where these are enough, else all its judged rows: (rows, models)."""
    judged = ~np.isnan(quality)
    # Too few of a candidate's rows at home: those of other sources, at another level, are better than a map of a handful.
    home = judged & at_home[:, None]
    return np.where(home.sum(axis=0) >= FEWEST_AT_HOME, home, judged)


def fit_platt(score: Array, quality: Array, *, iterations: int = 100) -> tuple[float, float]:
    """Fit slope and offset of greatest likelihood to one column of scores: `fit_platts`."""
    if score.ndim != 1 or score.shape != quality.shape:
        raise InvalidInputError(f"score, quality: expected equal 1-d shapes, got {score.shape} and {quality.shape}")
    slope, offset = fit_platts(score[:, None], quality[:, None], iterations=iterations)
    return float(slope[0]), float(offset[0])


def fit_platts(score: Array, quality: Array, *, iterations: int = 100) -> tuple[Array, Array]:
    """Fit slope and offset of greatest likelihood to every column, by Newton's method with step halving.

    The targets are Platt's: (n1 + 1) / (n1 + 2) for a success and 1 / (n0 + 2) for a failure, so that separable
    scores do not run to infinity. A quality between 0 and 1 mixes the two.

    Args:
        score: (rows, columns). quality: (rows, columns) in [0, 1].
    Returns:
        slope >= 0 and offset, (columns,) each. Where a higher score means lower quality the slope is 0 and the map is the mean:
        the map never reverses a head.
    """
    if score.ndim != 2 or score.shape != quality.shape or not len(score):
        raise InvalidInputError(f"score, quality: expected equal 2-d shapes, got {score.shape} and {quality.shape}")
    if not ((quality >= 0) & (quality <= 1)).all():
        raise InvalidInputError("quality: expected values in [0, 1]")
    some = max(1, AT_ONCE // len(score))
    parts = [
        _newton(score[:, begin : begin + some], quality[:, begin : begin + some], iterations)
        for begin in range(0, score.shape[1], some)
    ]
    slopes, offsets = zip(*parts, strict=True)
    return np.concatenate(slopes), np.concatenate(offsets)


def _newton(score: Array, quality: Array, iterations: int) -> tuple[Array, Array]:
    """Fit the columns of `fit_platts`, all at once."""
    # A quality between 0 and 1 is a share of a success and of a failure.
    successes = quality.sum(axis=0)
    high, low = (successes + 1) / (successes + 2), 1 / (len(quality) - successes + 2)
    target = quality * high + (1 - quality) * low
    level = np.log(target.mean(axis=0) / (1 - target.mean(axis=0)))

    centre, scale = score.mean(axis=0), score.std(axis=0)
    told = scale > 1e-12 * np.maximum(1.0, np.abs(centre))  # one value: nothing to learn from it
    standard = (score - centre) / np.where(told, scale, 1.0)  # keeps the 2 x 2 systems well conditioned
    theta = np.stack([np.zeros_like(level), level])  # (2, columns)
    moving = np.flatnonzero(told)  # the columns that are not at their maximum yet
    for _ in range(iterations):
        x, wanted, now = standard[:, moving], target[:, moving], theta[:, moving]
        p = sigmoid(x * now[0] + now[1])
        gradient = np.stack([((p - wanted) * x).mean(axis=0), (p - wanted).mean(axis=0)])
        going = np.abs(gradient).max(axis=0) >= 1e-12
        moving = moving[going]
        if not len(moving):
            break
        x, wanted, now, gradient = x[:, going], wanted[:, going], now[:, going], gradient[:, going]
        weight = (p * (1 - p))[:, going]
        # 1e-12 keeps the systems solvable where every p is 0 or 1.
        a, b, c = (weight * x * x).mean(axis=0) + 1e-12, (weight * x).mean(axis=0), weight.mean(axis=0) + 1e-12
        step = np.stack([c * gradient[0] - b * gradient[1], a * gradient[1] - b * gradient[0]]) / (a * c - b * b)
        theta[:, moving] = now - _halved(x, wanted, now, step) * step
    # Back from the standardised score.
    slope = theta[0] / np.where(told, scale, 1.0)
    rising = told & (slope > 0)
    return np.where(rising, slope, 0.0), np.where(rising, theta[1] - slope * centre, level)


def _halved(x: Array, target: Array, theta: Array, step: Array) -> Array:
    """Return the share of each column's step that makes its loss no greater: 1, halved as often as it takes, (columns,)."""

    def loss(at: Array, of: npt.NDArray[np.integer]) -> Array:
        logit = x[:, of] * at[0] + at[1]
        return np.asarray((np.logaddexp(0.0, logit) - target[:, of] * logit).mean(axis=0))

    share = np.ones(x.shape[1])
    every = np.arange(x.shape[1])
    most = loss(theta, every) + 1e-15  # at the maximum rounding would decide
    worse = every
    while len(worse):
        worse = worse[loss(theta[:, worse] - share[worse] * step[:, worse], worse) > most[worse]]
        worse = worse[share[worse] > 1e-10]
        share[worse] /= 2
    return share


def fit_pooled_platt(score: Array, quality: Array, rows: npt.NDArray[np.bool_]) -> tuple[Array, Array]:
    """Fit a map for each candidate, held near the map of all candidates together by a Gaussian prior.

    A map of its own moves a candidate that was judged on few rows by the noise of these rows, and the greatest of many predictions
    is then often one that the noise raised. The scores have the candidates' levels already, and those lean on the whole table.

    Args:
        score, quality: (rows, models), in `rows` finite and in [0, 1]. rows: (rows, models), those that a candidate's map is fitted on.
    Returns:
        slope >= 0 and offset, (models,) each. With ever more rows they become those of `fit_platt` without Platt's targets.
    """
    slope, offset = fit_platt(score[rows], quality[rows])
    centre, scale = score[rows].mean(), max(float(score[rows].std()), 1e-12)
    common = np.array([slope * scale, offset + slope * centre])  # of the standardised score
    precision = np.array([1 / (SLOPE_WIDTH * max(common[0], FLATTEST)) ** 2, 1 / OFFSET_WIDTH**2])
    maps = np.empty((2, score.shape[1]))
    for m in range(score.shape[1]):
        design = np.stack([(score[rows[:, m], m] - centre) / scale, np.ones(int(rows[:, m].sum()))], axis=1)
        theta = common
        for _ in range(POOLED_STEPS):
            p = sigmoid(design @ theta)
            gradient = design.T @ (p - quality[rows[:, m], m]) + precision * (theta - common)
            step = np.linalg.solve((design * (p * (1 - p))[:, None]).T @ design + np.diag(precision), gradient)
            theta = theta - step
            if np.abs(step).max() < 1e-9:
                break
        own = max(float(theta[0]), 0.0)
        maps[:, m] = own / scale, theta[1] - own * centre / scale
    return maps[0], maps[1]


def fold_platt(tensors: Mapping[str, Array], slope: Array, offset: Array) -> dict[str, Array]:
    """Fold slope (models,) and offset (models,) into a head's tensors: its score becomes the logit of quality."""
    folded = dict(tensors)
    for name in ("skip", "out"):
        if name in folded:
            folded[name] = slope[:, None] * folded[name]
    if "tree_leaf" in folded:
        folded["tree_leaf"] = slope * folded["tree_leaf"]  # (trees, leaves, models)
    folded["bias"] = slope * folded["bias"] + offset
    return folded
