"""Coefficients of an estimate of tokens, fitted to counted or recorded tokens."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

ROUNDS = 12
STEPS = 400
NEAR = 0.02  # relative errors below it weigh alike: the loss is |error| beyond, squared within
RIDGE = 1e-4  # against collinear terms, as a share of a term's mean square
PRIOR_ROWS = 100.0  # what the profile to stay near weighs, in rows


def fit_coefficients(terms: Array, tokens: Array, near: Array | None = None) -> Array:
    """Return coefficients >= 0 whose estimate `terms @ coefficients` has the least mean relative error.

    Args:
        terms: (rows, terms) float64, what each text is made of. tokens: (rows,) > 0.
        near: (terms,) coefficients to stay near where the rows say little; None: near 0. They are first scaled as a
            whole to the rows, so that few rows are enough for a tokenizer that is coarser or finer throughout.
    Raises:
        ValueError: shapes differ, or tokens are not all > 0.
    """
    if terms.ndim != 2 or tokens.shape != (len(terms),) or not (tokens > 0).all():
        raise ValueError(f"tokens: expected ({len(terms)},) values > 0, got {tokens.shape}")
    shares = terms / tokens[:, None]
    weights = np.ones(len(tokens))
    aim, ridge = np.zeros(terms.shape[1]), RIDGE * len(tokens)
    if near is not None:
        estimate = shares @ near
        aim = near / np.median(estimate) if np.median(estimate) > 0 else near
        ridge = PRIOR_ROWS
    coefficients = aim
    square = (shares**2).mean(axis=0)
    square = np.maximum(square, 1e-6 * square.max())
    for _ in range(ROUNDS):
        weighted = shares * weights[:, None]
        gram = weighted.T @ shares + np.diag(ridge * square * weights.mean())
        target = weighted.sum(axis=0) + ridge * square * weights.mean() * aim
        coefficients = nonnegative_minimum(gram, target, coefficients)
        weights = 1 / np.maximum(np.abs(shares @ coefficients - 1), NEAR)
    return coefficients


def nonnegative_minimum(gram: Array, target: Array, start: Array) -> Array:
    """Return the x >= 0 of the least `x @ gram @ x / 2 - target @ x`, by coordinate descent from `start`.

    gram: (n, n), symmetric and positive definite.
    """
    at = np.maximum(start, 0).astype(np.float64)
    slope = gram @ at - target
    diagonal = np.diag(gram)
    for _ in range(STEPS):
        most = 0.0
        for j in range(len(at)):
            step = max(-at[j], -slope[j] / diagonal[j])
            if step != 0.0:
                at[j] += step
                slope += gram[:, j] * step
                most = max(most, abs(step) * float(np.sqrt(diagonal[j])))
        if most < 1e-9:
            break
    return at
