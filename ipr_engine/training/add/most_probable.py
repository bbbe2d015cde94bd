"""`most_probable` fits a linear or a logistic model whose weights have a Gaussian prior, by Newton's method."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ipr_engine.training.fitted_heads import sigmoid

Array = npt.NDArray[np.float64]

STEPS, ENOUGH = 50, 1e-6  # Newton's: the most, and the greatest change of a weight that ends them


def platt_targets(y: Array) -> Array:
    """Return y (rows,) in [0, 1] as Platt's targets (`fitted_heads.fit_platt`): an unbroken run of successes has no finite logit."""
    successes = y.sum()
    high, low = (successes + 1) / (successes + 2), 1 / (len(y) - successes + 2)
    return np.asarray(y * high + (1 - y) * low)


def most_probable(
    columns: Array, y: Array, prior: Array, precision: Array, noise: float | None, start: Array, bias: float
) -> tuple[Array, float]:
    """Find the most probable weights (columns,) and a free bias by Newton's method with step halving. `noise` is the variance of y; None
    takes a logistic loss."""

    def loss(w: Array, b: float) -> float:
        line = columns @ w + b
        fit = np.logaddexp(0.0, line) - y * line if noise is None else np.square(y - line) / (2 * noise)
        return float(fit.sum() + (precision * np.square(w - prior)).sum() / 2)

    w, before = start, loss(start, bias)
    for _ in range(STEPS):
        line = columns @ w + bias
        p = line if noise is not None else sigmoid(line)
        curve = np.full(len(y), 1 / noise) if noise is not None else np.maximum(p * (1 - p), 1e-9)
        residual = (y - p) / (noise or 1.0)
        # The bias has no prior and is eliminated: columns are centred by the curvature's weights.
        centre = curve @ columns / curve.sum()
        weighted = columns * curve[:, None]
        hessian = columns.T @ weighted - curve.sum() * np.outer(centre, centre) + np.diag(precision)
        gradient = columns.T @ residual - centre * residual.sum() - precision * (w - prior)
        step = np.linalg.solve(hessian, gradient)
        shift, share = float(residual.sum() / curve.sum() - centre @ step), 1.0
        while (now := loss(w + share * step, bias + share * shift)) > before and share > 1e-6:
            share /= 2
        if now > before:
            break
        w, bias, before = w + share * step, bias + share * shift, now
        if noise is not None or max(np.abs(share * step).max(), abs(share * shift)) < ENOUGH:  # squared loss: one step
            break
    return w, bias
