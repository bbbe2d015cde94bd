"""Platt's map: quality = sigmoid(slope * score + offset), fitted on scores the head gave to rows it had not seen."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from ipr_engine.errors import InvalidInputError

Array = npt.NDArray[np.float64]


def sigmoid(logit: Array) -> Array:
    return 0.5 * (1.0 + np.tanh(0.5 * logit))


def fit_platt(score: Array, quality: Array, *, iterations: int = 100) -> tuple[float, float]:
    """Slope and offset of greatest likelihood, by Newton's method with step halving.

    The targets are Platt's: (n1 + 1) / (n1 + 2) for a success and 1 / (n0 + 2) for a failure, so that separable
    scores do not run to infinity. A quality between 0 and 1 mixes the two.

    Args:
        score: (rows,). quality: (rows,) in [0, 1].
    Returns:
        slope >= 0, offset. Where a higher score means lower quality the slope is 0 and the map is the mean:
        the map never reverses a head.
    """
    if score.ndim != 1 or score.shape != quality.shape or not len(score):
        raise InvalidInputError(f"score, quality: expected equal 1-d shapes, got {score.shape} and {quality.shape}")
    if not ((quality >= 0) & (quality <= 1)).all():
        raise InvalidInputError("quality: expected values in [0, 1]")
    successes = quality.sum()
    high, low = (successes + 1) / (successes + 2), 1 / (len(quality) - successes + 2)
    target = quality * high + (1 - quality) * low
    level = float(np.log(target.mean() / (1 - target.mean())))

    centre, scale = score.mean(), score.std()
    if scale <= 1e-12 * max(1.0, abs(centre)):  # one value: nothing to learn from it
        return 0.0, level
    standard = (score - centre) / scale  # keeps the 2 x 2 system well conditioned
    design = np.stack([standard, np.ones_like(standard)], axis=1)  # (rows, 2)

    def loss(theta: Array) -> float:
        logit = design @ theta
        return float((np.logaddexp(0.0, logit) - target * logit).mean())

    theta = np.array([0.0, level])
    for _ in range(iterations):
        p = sigmoid(design @ theta)
        gradient = design.T @ (p - target) / len(target)
        if np.abs(gradient).max() < 1e-12:
            break
        hessian = (design * (p * (1 - p))[:, None]).T @ design / len(target) + 1e-12 * np.eye(2)
        step, share, before = np.linalg.solve(hessian, gradient), 1.0, loss(theta)
        while loss(theta - share * step) > before and share > 1e-10:
            share /= 2
        theta = theta - share * step
    slope, offset = float(theta[0] / scale), float(theta[1] - theta[0] * centre / scale)
    return (slope, offset) if slope > 0 else (0.0, level)


def fold_platt(tensors: Mapping[str, Array], slope: Array, offset: Array) -> dict[str, Array]:
    """Fold slope (models,) and offset (models,) into a head's tensors: its score becomes the logit of quality."""
    folded = dict(tensors)
    for name in ("skip", "out"):
        if name in folded:
            folded[name] = slope[:, None] * folded[name]
    folded["bias"] = slope * folded["bias"] + offset
    return folded
