"""This file measures predicted quality, tokens and cost (formulas: docs/metrics.md), and names the heads that say nothing of prompts.

NaN outcomes are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ipr_engine.errors import InvalidInputError
from ipr_engine.measures.resampling import numbered

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.integer]

BINS = 10
LEAST_SPREAD = 0.01  # standard deviation of predicted quality below which a head routes nothing
NORMAL_QUANTILE = 1.6448536269514722  # 0.95


class Bin(NamedTuple):
    """A `Bin` is one bin of a reliability diagram: mean prediction, mean outcome, its standard error, and how many."""

    predicted: float
    realised: float
    standard_error: float
    pairs: int


def _pairs(predicted: Array, realised: Array) -> tuple[Array, Array]:
    """Return the predictions and outcomes of known pairs, flat."""
    if predicted.shape != realised.shape:
        raise InvalidInputError(f"predicted, realised: expected equal shapes, got {predicted.shape}, {realised.shape}")
    known = np.isfinite(realised)
    if not known.any():
        raise InvalidInputError("realised: expected at least one outcome, got none")
    if not np.isfinite(predicted[known]).all():
        raise InvalidInputError("predicted: expected a finite value wherever there is an outcome")
    return predicted[known], realised[known]


def mae(predicted: Array, realised: Array) -> float:
    """Return the mean absolute error over all known pairs."""
    p, y = _pairs(predicted, realised)
    return float(np.abs(p - y).mean())


def brier(predicted: Array, quality: Array) -> float:
    """Return the mean squared error over all known pairs: Brier's score where quality is 0 or 1."""
    p, y = _pairs(predicted, quality)
    return float(np.square(p - y).mean())


def reliability(predicted: Array, quality: Array, bins: int = BINS) -> list[Bin]:
    """Sort known pairs into bins of about equal count, cut at quantiles of the predictions. Equal predictions share a bin; empty bins
    are left out."""
    p, y = _pairs(predicted, quality)
    # Equal predictions lie on the same side of an edge, so they share a bin and bins may be fewer than asked.
    edges = np.sort(p)[np.arange(1, bins) * len(p) // bins]
    of_bin = np.searchsorted(edges, p, side="right")
    result = []
    for b in np.unique(of_bin):
        inside = y[of_bin == b]
        error = inside.std() / np.sqrt(len(inside))
        result.append(Bin(float(p[of_bin == b].mean()), float(inside.mean()), float(error), len(inside)))
    return result


def expected_calibration_error(predicted: Array, quality: Array, bins: int = BINS) -> float:
    """Return the mean over pairs of abs(mean prediction - mean outcome) of the pair's bin (`reliability`)."""
    parts = reliability(predicted, quality, bins)
    total = sum(part.pairs for part in parts)
    return sum(part.pairs * abs(part.predicted - part.realised) for part in parts) / total


def of_chosen(table: Array, choice: Indices) -> Array:
    """Return the entry of the chosen candidate in each row of a (rows, models) table: (rows,)."""
    return np.asarray(table[np.arange(len(table)), choice])


def hits(predicted: Array, quality: Array, k: int = 1) -> npt.NDArray[np.bool_]:
    """Tell for each row whether one of the k candidates of highest prediction attains the row's maximum: (rows,). Ties go by column
    order."""
    # Candidates without an outcome are ranked last and can neither hit nor set the maximum.
    known = np.isfinite(quality)
    ranked = np.argsort(np.where(known, -predicted, np.inf), axis=1, kind="stable")[:, :k]
    best = np.where(known, quality, -np.inf).max(axis=1, keepdims=True)
    if not np.isfinite(best).all():
        raise InvalidInputError("quality: expected at least one outcome in every row")
    found = np.take_along_axis(np.where(known, quality, -np.inf), ranked, axis=1)
    return np.asarray((found == best).any(axis=1))


def differing(quality: Array) -> npt.NDArray[np.bool_]:
    """Tell for each row whether its candidates differ in outcome, so that the choice matters: (rows,)."""
    known = np.isfinite(quality)
    top = np.where(known, quality, -np.inf).max(axis=1)
    bottom = np.where(known, quality, np.inf).min(axis=1)
    return np.asarray(top > bottom)


def cheapest_best(quality: Array, cost: Array) -> Indices:
    """Return the cheapest candidate among those that attain the row's maximum: (rows,). Ties go by column order."""
    known = np.isfinite(quality) & np.isfinite(cost)
    if not known.any(axis=1).all():
        raise InvalidInputError("quality, cost: expected at least one outcome in every row")
    top = np.where(known, quality, -np.inf).max(axis=1, keepdims=True)
    return np.asarray(np.where(known & (quality == top), cost, np.inf).argmin(axis=1))


def macro_f1(choice: Indices, label: Indices) -> float:
    """Return the unweighted mean of F1 over the candidates that occur as choice or as label."""
    scores = []
    for m in np.unique(np.concatenate([choice, label])):
        both = np.sum((choice == m) & (label == m))
        scores.append(2 * both / (np.sum(choice == m) + np.sum(label == m)))
    return float(np.mean(scores))


class Error(NamedTuple):
    """An `Error` is that of a predicted amount (tokens, USD).

    mean_absolute: of the errors. median_relative: of abs(error) / real over real > 0. bias: sum predicted / sum real.
    """

    mean_absolute: float
    median_relative: float
    bias: float


def amount_error(predicted: Array, realised: Array) -> Error:
    """Hold predicted amounts against realised ones, over known pairs."""
    p, y = _pairs(predicted, realised)
    positive = y > 0
    relative = float(np.median(np.abs(p - y)[positive] / y[positive])) if positive.any() else float("nan")
    return Error(float(np.abs(p - y).mean()), relative, float(p.sum() / y.sum()) if y.sum() else float("nan"))


@dataclass(frozen=True)
class Constancy:
    """A `Constancy` holds one candidate's head against its mean quality, on rows that the head's fit had not seen.

    The head is constant where its Brier score is not told apart below that of the mean, or where its predictions hardly differ.
    Told apart: the upper end of the one-sided 95 % t interval of the paired difference of squared errors lies below 0. Rows of
    one question are one observation, since they are not independent.

    The mean and Platt's map are both fitted on the rows judged. The map has one degree of freedom more. Where scores say
    nothing, the statistic stays below half of a standard normal one, so that far fewer than 5 % of such heads pass.

    Of several sources with intercepts of their own, each source has its own mean. Out of fold the prediction has the source's
    level, which the delivered head leaves out: telling sources apart is no merit of it.

    Attributes:
        brier, brier_of_mean: mean squared error of the predictions and of the mean quality.
        upper: upper end of the one-sided 95 % interval of brier - brier_of_mean.
        spread: standard deviation of the predictions.
    """

    brier: float
    brier_of_mean: float
    upper: float
    spread: float

    @property
    def reason(self) -> str | None:
        """The reason why the head counts as constant; None where it does not."""
        if self.spread < LEAST_SPREAD:
            return f"its predicted qualities have a standard deviation of {self.spread:.4f}, below {LEAST_SPREAD:g}"
        if not self.upper < 0:
            return (
                f"its Brier score {self.brier:.4f} is not told apart below {self.brier_of_mean:.4f} of the mean quality "
                f"(difference at most {self.upper:+.4f} at 95 %)"
            )
        return None


def constant_heads(
    names: Sequence[str],
    predicted: Array,
    quality: Array,
    keys: Sequence[str],
    rows: npt.NDArray[np.bool_],
    source: npt.NDArray[np.int64] | None = None,
) -> dict[str, str]:
    """Name the candidates whose heads are constant, each with the reason.

    Args:
        predicted: (rows, models) out of fold. quality: (rows, models), NaN where not judged.
        rows: (rows, models) True where a head is to be judged; at least one a candidate.
        source: (rows,) as in `constancy`.
    """
    found = {}
    question = numbered(keys)[0]
    for m, name in enumerate(names):
        at = np.flatnonzero(rows[:, m])
        sources = None if source is None else source[at]
        reason = constancy(predicted[at, m], quality[at, m], question[at], sources).reason
        if reason is not None:
            found[name] = reason
    return found


def constancy(
    predicted: Array, quality: Array, keys: Sequence[str] | Indices, source: Indices | None = None
) -> Constancy:
    """Judge one head by its out-of-fold predictions.

    Args:
        predicted: (rows,) out of fold. quality: (rows,) in [0, 1]. keys: (rows,) the question of each row, or its number.
        source: (rows,) where each source has an intercept of its own; None: one mean for all.
    Raises:
        InvalidInputError: there are no rows, or shapes disagree.
    """
    if predicted.ndim != 1 or predicted.shape != quality.shape or len(keys) != len(quality) or not len(quality):
        raise InvalidInputError(
            f"predicted, quality, keys: expected equal rows > 0, got {predicted.shape}, {quality.shape} and {len(keys)}"
        )
    # Where sources have intercepts of their own, both are centred source by source: telling sources apart is no merit of the head.
    own, of_mean = np.square(predicted - quality), np.square(_means(quality, source) - quality)
    spread = float((predicted - _means(predicted, source)).std())
    return Constancy(float(own.mean()), float(of_mean.mean()), _upper_end(own - of_mean, keys), spread)


def _means(values: Array, source: Indices | None) -> Array:
    """Return for each row the mean over the rows of its source: (rows,)."""
    if source is None:
        return np.full(len(values), values.mean())
    at = np.unique(source, return_inverse=True)[1]
    means: Array = np.bincount(at, weights=values) / np.bincount(at)
    return means[at]


def _upper_end(difference: Array, keys: Sequence[str] | Indices) -> float:
    """Return the upper end of the one-sided 95 % t interval of a mean over rows, clustered by question."""
    question = np.unique(keys if isinstance(keys, np.ndarray) else numbered(keys)[0], return_inverse=True)[1]
    clusters = int(question.max()) + 1
    if clusters < 2:
        return float("inf")
    # Standard error of a mean of clustered rows: squares of the clusters' sums, with the factor clusters / (clusters - 1).
    mean = float(difference.mean())
    sums = np.bincount(question, weights=difference - mean)
    error = float(np.sqrt(np.square(sums).sum() * clusters / (clusters - 1))) / len(difference)
    return mean + _t_quantile(clusters - 1) * error


def _t_quantile(freedom: int) -> float:
    """Return Student's 0.95 quantile by the Cornish-Fisher expansion (Abramowitz and Stegun 26.7.5): within 1 % from 3 degrees on."""
    z, n = NORMAL_QUANTILE, float(freedom)
    terms = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96, (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + terms[0] / n + terms[1] / n**2 + terms[2] / n**3
