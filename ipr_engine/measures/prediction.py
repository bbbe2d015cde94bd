"""How good predicted quality, tokens and cost are; docs/metrics.md has the formulas. NaN outcomes are left out."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ipr_engine.errors import InvalidInputError

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

BINS = 10


class Bin(NamedTuple):
    """One bin of a reliability diagram: mean prediction, mean outcome, its standard error, and how many."""

    predicted: float
    realised: float
    standard_error: float
    pairs: int


def _pairs(predicted: Array, realised: Array) -> tuple[Array, Array]:
    """Predictions and outcomes that are there, flat."""
    if predicted.shape != realised.shape:
        raise InvalidInputError(f"predicted, realised: expected equal shapes, got {predicted.shape}, {realised.shape}")
    known = np.isfinite(realised)
    if not known.any():
        raise InvalidInputError("realised: expected at least one outcome, got none")
    if not np.isfinite(predicted[known]).all():
        raise InvalidInputError("predicted: expected a finite value wherever there is an outcome")
    return predicted[known], realised[known]


def mae(predicted: Array, realised: Array) -> float:
    """Mean absolute error over all known pairs."""
    p, y = _pairs(predicted, realised)
    return float(np.abs(p - y).mean())


def brier(predicted: Array, quality: Array) -> float:
    """Mean squared error over all known pairs (Brier's score where quality is 0 or 1)."""
    p, y = _pairs(predicted, quality)
    return float(np.square(p - y).mean())


def reliability(predicted: Array, quality: Array, bins: int = BINS) -> list[Bin]:
    """Bins of about equal count, cut at quantiles of the predictions; equal predictions share a bin, empty bins are gone."""
    p, y = _pairs(predicted, quality)
    edges = np.sort(p)[np.arange(1, bins) * len(p) // bins]
    of_bin = np.searchsorted(edges, p, side="right")
    result = []
    for b in np.unique(of_bin):
        inside = y[of_bin == b]
        error = inside.std() / np.sqrt(len(inside))
        result.append(Bin(float(p[of_bin == b].mean()), float(inside.mean()), float(error), len(inside)))
    return result


def expected_calibration_error(predicted: Array, quality: Array, bins: int = BINS) -> float:
    """Mean over pairs of |mean prediction - mean outcome| of the pair's bin, see `reliability`."""
    parts = reliability(predicted, quality, bins)
    total = sum(part.pairs for part in parts)
    return sum(part.pairs * abs(part.predicted - part.realised) for part in parts) / total


def of_chosen(table: Array, choice: Indices) -> Array:
    """(rows,): the entry of the chosen candidate."""
    return np.asarray(table[np.arange(len(table)), choice])


def hits(predicted: Array, quality: Array, k: int = 1) -> npt.NDArray[np.bool_]:
    """(rows,): one of the k candidates of highest prediction attains the row's maximum. Ties by column order."""
    known = np.isfinite(quality)
    ranked = np.argsort(np.where(known, -predicted, np.inf), axis=1, kind="stable")[:, :k]
    best = np.where(known, quality, -np.inf).max(axis=1, keepdims=True)
    if not np.isfinite(best).all():
        raise InvalidInputError("quality: expected at least one outcome in every row")
    found = np.take_along_axis(np.where(known, quality, -np.inf), ranked, axis=1)
    return np.asarray((found == best).any(axis=1))


def differing(quality: Array) -> npt.NDArray[np.bool_]:
    """(rows,): candidates do not all have the same outcome, so the choice matters."""
    known = np.isfinite(quality)
    top = np.where(known, quality, -np.inf).max(axis=1)
    bottom = np.where(known, quality, np.inf).min(axis=1)
    return np.asarray(top > bottom)


def cheapest_best(quality: Array, cost: Array) -> Indices:
    """(rows,): the cheapest candidate among those that attain the row's maximum. Ties by column order."""
    known = np.isfinite(quality) & np.isfinite(cost)
    if not known.any(axis=1).all():
        raise InvalidInputError("quality, cost: expected at least one outcome in every row")
    top = np.where(known, quality, -np.inf).max(axis=1, keepdims=True)
    return np.asarray(np.where(known & (quality == top), cost, np.inf).argmin(axis=1))


def macro_f1(choice: Indices, label: Indices) -> float:
    """Unweighted mean of F1 over the candidates that occur as choice or as label."""
    scores = []
    for m in np.unique(np.concatenate([choice, label])):
        both = np.sum((choice == m) & (label == m))
        scores.append(2 * both / (np.sum(choice == m) + np.sum(label == m)))
    return float(np.mean(scores))


class Error(NamedTuple):
    """Of an amount (tokens, USD): mean |error|, median of |error| / real over real > 0, sum predicted / sum real."""

    mean_absolute: float
    median_relative: float
    bias: float


def amount_error(predicted: Array, realised: Array) -> Error:
    p, y = _pairs(predicted, realised)
    positive = y > 0
    relative = float(np.median(np.abs(p - y)[positive] / y[positive])) if positive.any() else float("nan")
    return Error(float(np.abs(p - y).mean()), relative, float(p.sum() / y.sum()) if y.sum() else float("nan"))
