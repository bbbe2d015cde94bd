"""A `CalibrationReport` holds calibrated grades against labels that their map had not seen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from ipr_engine.measures.prediction import brier, expected_calibration_error

Array = npt.NDArray[np.float64]

DRAWS = 400
Z = 1.96


@dataclass(frozen=True, kw_only=True)
class GradedModel:
    """A `GradedModel` is one model's mean label beside its mean calibrated grade.

    off: grade - label; low, high: its 95 % interval, clustered by question.
    """

    name: str
    rows: int
    label: float
    grade: float
    off: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class CalibrationReport:
    """A `CalibrationReport` is what can be said of a calibration.

    Attributes:
        questions, rows: labels. ece: expected calibration error (docs/metrics.md); ece_low, ece_high: 95 % bootstrap over questions,
            whose draws are biased upward, as the ECE of few rows is.
        brier, brier_of_mean: mean squared error of the grades, and of the labels' mean.
        models: each one's means. pairs_apart: pairs of models whose labels differ by more than chance (95 %, paired by question);
        pairs_kept: of these, whose grades are in the same order. kendall_tau: over all pairs; None where it is not defined.
        questions_needed: to know each model's mean within 0.03, by the spread of what is left of the labels.
    """

    questions: int
    rows: int
    ece: float
    ece_low: float
    ece_high: float
    brier: float
    brier_of_mean: float
    models: tuple[GradedModel, ...]
    pairs_apart: int
    pairs_kept: int
    kendall_tau: float | None
    questions_needed: int


def judge_map(
    predicted: Array,
    labels: Array,
    groups: Sequence[str],
    models: Sequence[str],
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> CalibrationReport:
    """Hold calibrated grades (rows,) against labels (rows,) of questions (rows,) and models (rows,).

    draws: of the bootstrap; without any, the ends of the interval are NaN.
    """
    question = np.unique(np.asarray(groups), return_inverse=True)[1]
    names, column = np.unique(np.asarray(models), return_inverse=True)
    low, high = _bootstrapped_ece(predicted, labels, question, draws, seed)
    made = [_graded(str(name), predicted, labels, question, column == m) for m, name in enumerate(names)]
    pairs = list(combinations(range(len(names)), 2))
    apart = [pair for pair in pairs if _apart(labels, question, column, *pair)]
    signs = {(a, b): np.sign((made[a].label - made[b].label) * (made[a].grade - made[b].grade)) for a, b in pairs}
    ties = [sum(getattr(made[a], of) != getattr(made[b], of) for a, b in pairs) for of in ("label", "grade")]
    widest = max((one.high - one.low) / 2 * math.sqrt(one.rows) for one in made)
    return CalibrationReport(
        questions=int(question.max()) + 1,
        rows=len(labels),
        ece=expected_calibration_error(predicted, labels),
        ece_low=low,
        ece_high=high,
        brier=brier(predicted, labels),
        brier_of_mean=float(np.var(labels)),
        models=tuple(made),
        pairs_apart=len(apart),
        pairs_kept=sum(bool(signs[pair] > 0) for pair in apart),
        kendall_tau=float(sum(signs.values())) / math.sqrt(ties[0] * ties[1]) if all(ties) else None,
        questions_needed=math.ceil((widest / 0.03) ** 2),
    )


def _graded(name: str, predicted: Array, labels: Array, question: npt.NDArray[np.int64], rows: Array) -> GradedModel:
    difference = (predicted - labels)[rows]
    off, error = _clustered_mean(difference, question[rows])
    return GradedModel(
        name=name,
        rows=int(rows.sum()),
        label=float(labels[rows].mean()),
        grade=float(predicted[rows].mean()),
        off=off,
        low=max(-1.0, off - Z * error),
        high=min(1.0, off + Z * error),
    )


def _apart(labels: Array, question: npt.NDArray[np.int64], column: npt.NDArray[np.int64], one: int, other: int) -> bool:
    """Return whether the labels of two models differ by more than chance, on the questions that both have."""
    count = int(question.max()) + 1
    means = []
    for model in (one, other):
        rows = column == model
        total = np.bincount(question[rows], weights=labels[rows], minlength=count)
        answered = np.bincount(question[rows], minlength=count)
        means.append(np.divide(total, answered, out=np.full(count, np.nan), where=answered > 0))
    difference = (means[0] - means[1])[~np.isnan(means[0] - means[1])]
    if len(difference) < 2:
        return False
    return bool(abs(difference.mean()) > Z * difference.std(ddof=1) / math.sqrt(len(difference)))


def _clustered_mean(values: Array, question: npt.NDArray[np.int64]) -> tuple[float, float]:
    """Return the mean of rows and its standard error, rows of one question being one observation."""
    cluster = np.unique(question, return_inverse=True)[1]
    count = int(cluster.max()) + 1
    mean = float(values.mean())
    if count < 2:
        return mean, math.inf
    sums = np.bincount(cluster, weights=values - mean)
    return mean, float(np.sqrt(np.square(sums).sum() * count / (count - 1))) / len(values)


def _bootstrapped_ece(
    predicted: Array, labels: Array, question: npt.NDArray[np.int64], draws: int, seed: int
) -> tuple[float, float]:
    if not draws:
        return math.nan, math.nan
    rng = np.random.default_rng(seed)
    order = np.argsort(question, kind="stable")
    starts = np.searchsorted(question[order], np.arange(question.max() + 2))
    rows_of = [order[a:b] for a, b in zip(starts[:-1], starts[1:], strict=True)]
    found = []
    for _ in range(draws):
        rows = np.concatenate([rows_of[i] for i in rng.integers(0, len(rows_of), len(rows_of))])
        found.append(expected_calibration_error(predicted[rows], labels[rows]))
    low, high = np.percentile(found, [2.5, 97.5])
    return float(low), float(high)
