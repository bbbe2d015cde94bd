"""Heads that tell prompts apart no better than a constant does; `ipr train` refuses to deliver them without being asked.

A head is constant where its out-of-fold Brier score is not told apart below that of the candidate's mean quality, or where
its out-of-fold predictions hardly differ. Told apart: the upper end of the one-sided 95 % t interval of the paired
difference of squared errors lies below 0. Rows of one question are one observation, since they are not independent.
The mean and Platt's map are both fitted on the rows judged: the map has one degree of freedom more, and where scores say
nothing the statistic stays below half of a standard normal one, so that far fewer than 5 % of such heads pass.

Of rows of several sources with intercepts of their own the mean is each source's: out of fold the prediction has the source's
level, which the delivered head leaves out, so that telling sources apart is no merit of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ipr_engine.errors import InvalidInputError

Array = npt.NDArray[np.float64]

LEAST_SPREAD = 0.01  # standard deviation of predicted quality below which a head routes nothing
NORMAL_QUANTILE = 1.6448536269514722  # 0.95


@dataclass(frozen=True)
class Constancy:
    """One candidate's head against its mean quality, on rows that the head's fit had not seen.

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
        """Why the head counts as constant, None where it does not."""
        if self.spread < LEAST_SPREAD:
            return f"its predicted qualities have a standard deviation of {self.spread:.4f}, below {LEAST_SPREAD:g}"
        if not self.upper < 0:
            return (
                f"its Brier score {self.brier:.4f} is not told apart below {self.brier_of_mean:.4f} of the mean quality "
                f"(difference at most {self.upper:+.4f} at 95 %)"
            )
        return None


def constancy(
    predicted: Array, quality: Array, keys: Sequence[str], source: npt.NDArray[np.int64] | None = None
) -> Constancy:
    """Judge one head by its out-of-fold predictions.

    Args:
        predicted: (rows,) out of fold. quality: (rows,) in [0, 1]. keys: (rows,) the question of each row.
        source: (rows,) where each source has an intercept of its own; None: one mean for all.
    Raises:
        InvalidInputError: there are no rows, or shapes disagree.
    """
    if predicted.ndim != 1 or predicted.shape != quality.shape or len(keys) != len(quality) or not len(quality):
        raise InvalidInputError(
            f"predicted, quality, keys: expected equal rows > 0, got {predicted.shape}, {quality.shape} and {len(keys)}"
        )
    own, of_mean = np.square(predicted - quality), np.square(_means(quality, source) - quality)
    spread = float((predicted - _means(predicted, source)).std())
    return Constancy(float(own.mean()), float(of_mean.mean()), _upper_end(own - of_mean, keys), spread)


def _means(values: Array, source: npt.NDArray[np.int64] | None) -> Array:
    """(rows,) the mean over the rows of each row's source."""
    if source is None:
        return np.full(len(values), values.mean())
    at = np.unique(source, return_inverse=True)[1]
    means: Array = np.bincount(at, weights=values) / np.bincount(at)
    return means[at]


def constant_heads(
    names: Sequence[str],
    predicted: Array,
    quality: Array,
    keys: Sequence[str],
    rows: npt.NDArray[np.bool_],
    source: npt.NDArray[np.int64] | None = None,
) -> dict[str, str]:
    """Candidate -> why its head counts as constant, for those that do.

    Args:
        predicted: (rows, models) out of fold. quality: (rows, models), NaN where not judged.
        rows: (rows, models) True where a head is to be judged; at least one a candidate.
        source: (rows,) as of `constancy`.
    """
    found = {}
    for m, name in enumerate(names):
        at = np.flatnonzero(rows[:, m]).tolist()
        sources = None if source is None else source[at]
        reason = constancy(predicted[at, m], quality[at, m], [keys[i] for i in at], sources).reason
        if reason is not None:
            found[name] = reason
    return found


def refuse_constant(constant: Mapping[str, str], candidates: int) -> None:
    """Raise InvalidInputError where there is any."""
    if constant:
        first, reason = next(iter(constant.items()))
        raise InvalidInputError(
            f"outcomes: {len(constant)} of {candidates} heads are constant: out of fold they tell prompts apart no better than the "
            f"candidate's mean quality does: {', '.join(map(repr, constant))}. Of {first!r}: {reason}. Give more prompts, or prompts "
            "that differ for these candidates; see that question_key and splits are right (`ipr data check`); leave the candidates "
            "out; or deliver the heads marked as constant with --allow-constant (allow_constant=True)"
        )


def _upper_end(difference: Array, keys: Sequence[str]) -> float:
    """Of the one-sided 95 % t interval of a mean over rows, clustered by question."""
    question = np.unique(np.asarray(keys, dtype=str), return_inverse=True)[1]
    clusters = int(question.max()) + 1
    if clusters < 2:
        return float("inf")
    mean = float(difference.mean())
    sums = np.bincount(question, weights=difference - mean)
    error = float(np.sqrt(np.square(sums).sum() * clusters / (clusters - 1))) / len(difference)
    return mean + _t_quantile(clusters - 1) * error


def _t_quantile(freedom: int) -> float:
    """Student's 0.95 quantile by the Cornish-Fisher expansion (Abramowitz and Stegun 26.7.5): within 1 % from 3 degrees on."""
    z, n = NORMAL_QUANTILE, float(freedom)
    terms = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96, (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + terms[0] / n + terms[1] / n**2 + terms[2] / n**3
