"""`off_policy` estimates what another policy would have got on logged decisions, from the candidates that were really asked.

A log decides by chance: candidate m answers prompt i with a known propensity. Where the other policy would have chosen the candidate that
was asked, its score counts 1 / propensity times; elsewhere nothing is known but a prediction.

    ips   mean of w * score, w = e / p: e the other policy's chance of the logged candidate, p the propensity (Horvitz & Thompson 1952)
    snips the same over the mean of w (Swaminathan & Joachims 2015)
    dr    mean of predicted score of the other policy + w * (score - predicted): doubly robust (Dudik, Langford & Li, ICML 2011)

**Intervals.** A few prompts of large weight decide a mean, and most logs have none of them: normal intervals are too narrow then. These
are of the Euclidean likelihood (Karampatziakis, Langford & Mineiro, NeurIPS 2020, sec. 4, gives the form for bandits): all weightings of
the log, and of one row more that it might have had, in which the mean of w is 1 as it must be, and which are as likely as chi-square
allows. In closed form: the regression of the summands on w, read at w = 1, and its residuals' standard error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine.errors import InvalidInputError

Array = npt.NDArray[np.float64]
CHI_SQUARE_95 = 3.841458820694124  # of one degree of freedom
FEWEST_DRAWS = 10  # intervals of fewer are too narrow; of so many, tests/measures/test_off_policy.py holds them to 93 %


@dataclass(frozen=True, kw_only=True)
class OffPolicyValue:
    """An `OffPolicyValue` is one estimate of a mean score, with its 95 % interval.

    Attributes:
        value: as the weights give it; by chance it may lie beyond [0, 1] and beyond its interval.
        low, high: ends of the interval, within [0, 1], where every mean score lies; of a difference within [-1, 1].
    """

    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, Any]:
        """Return the estimate as plain JSON."""
        return {"value": self.value, "low": self.low, "high": self.high}


@dataclass(frozen=True, kw_only=True)
class OffPolicyDifference:
    """An `OffPolicyDifference` holds how much more one policy's mean score is than another's, on the same rows: within [-1, 1].

    Attributes:
        differing: rows in which their chances differ; of the others nothing has to be known.
        ips, dr: dr where there are predictions.
    """

    differing: int
    ips: OffPolicyValue
    dr: OffPolicyValue | None


@dataclass(frozen=True, kw_only=True)
class OffPolicy:
    """An `OffPolicy` holds the estimates of another policy's mean score.

    Attributes:
        rows: logged decisions; questions: groups of them that count as one draw.
        matched: rows in which the other policy may have chosen what was logged. effective: rows that the weights are worth.
        most_weight: the other policy's highest chance of a logged candidate over the lowest propensity in the log: what the intervals
            take for the largest weight. A candidate of a lower propensity that was never drawn may have had a larger one.
        mean_weight: 1 but for chance; far from it, propensities are wrong.
        ips, snips, dr: dr where there are predictions.
    """

    rows: int
    questions: int
    matched: int
    effective: float
    most_weight: float
    mean_weight: float
    ips: OffPolicyValue
    snips: float
    dr: OffPolicyValue | None


def off_policy(
    scores: Array,
    logged: npt.NDArray[np.int64],
    propensity: Array,
    target: Array,
    *,
    predicted: Array | None = None,
    groups: npt.NDArray[np.int64] | None = None,
) -> OffPolicy:
    """Estimate the mean score of another policy on logged decisions.

    Args:
        scores: (rows,) in [0, 1], of the candidate that was asked.
        logged: (rows,) which one that was, a column of target. propensity: (rows,) with what chance it was chosen, in (0, 1].
        target: (rows, models) the other policy's chance of each candidate; a 1 in each row where it does not draw.
        predicted: (rows, models) predicted scores in [0, 1], fitted on other data; None: no doubly robust estimate.
        groups: (rows,) rows of one group are one draw, prompts of one conversation, say; None: each its own.
    Raises:
        InvalidInputError: a shape or a range differs from the above, there are fewer than 10 draws, too few for an interval, or no row
            could tell of the other policy.
    """
    _check(scores, logged, propensity, target, predicted)
    rows = len(scores)
    every = np.arange(rows)
    _check_draws(rows, groups)
    weight = target[every, logged] / propensity
    if not weight.any():
        raise InvalidInputError(
            "target: the other policy never chooses a candidate that was logged; nothing is known of it: log with exploration"
        )
    most = float(np.max(target[every, logged].max() / propensity.min()))
    sizes, parts = np.ones(rows), every
    if groups is not None:
        parts = np.unique(groups, return_inverse=True)[1]
        sizes = np.bincount(parts).astype(np.float64)
    total, base = weight * scores, np.zeros(rows)
    reach = (0.0, most)
    ips = _interval(total, base, weight, (0.0, 1.0), reach, parts)
    dr = None
    if predicted is not None:
        own = predicted[every, logged]
        base = (target * predicted).sum(axis=1)
        dr = _interval(base + weight * (scores - own), base, weight, _span(own), reach, parts)
    return OffPolicy(
        rows=rows,
        questions=len(sizes) if groups is not None else rows,
        matched=int((weight > 0).sum()),
        effective=float(weight.sum() ** 2 / (weight**2).sum()),
        most_weight=most,
        mean_weight=float(weight.mean()),
        ips=ips,
        snips=float(total.sum() / weight.sum()),
        dr=dr,
    )


def off_policy_difference(
    scores: Array,
    logged: npt.NDArray[np.int64],
    propensity: Array,
    target: Array,
    other: Array,
    *,
    predicted: Array | None = None,
    groups: npt.NDArray[np.int64] | None = None,
) -> OffPolicyDifference:
    """Estimate how much more the mean score of one policy is than that of another, paired on the same logged decisions.

    Where both would have chosen alike the difference is 0 whatever was logged, so two policies of few differing choices are told apart by
    far fewer rows than either mean needs. The arguments are those of `off_policy`; other: (rows, models) as target.
    Raises:
        InvalidInputError: as `off_policy`, but for a row that could tell.
    """
    _check(scores, logged, propensity, target, predicted)
    _check(scores, logged, propensity, other, predicted)
    every = np.arange(len(scores))
    _check_draws(len(scores), groups)
    chances = target[every, logged], other[every, logged]
    weight = (chances[0] - chances[1]) / propensity
    least = float(propensity.min())
    reach = -float(chances[1].max()) / least, float(chances[0].max()) / least
    parts = every if groups is None else np.unique(groups, return_inverse=True)[1]
    ips = _interval(weight * scores, np.zeros(len(scores)), weight, (0.0, 1.0), reach, parts)
    dr = None
    if predicted is not None:
        own = predicted[every, logged]
        base = ((target - other) * predicted).sum(axis=1)
        dr = _interval(base + weight * (scores - own), base, weight, _span(own), reach, parts)
    return OffPolicyDifference(differing=int((target != other).any(axis=1).sum()), ips=ips, dr=dr)


def _span(predicted: Array) -> tuple[float, float]:
    """Return the residuals of a row that the log might have had: its score 0 where most was predicted, or 1 where least was."""
    return -float(predicted.max()), 1.0 - float(predicted.min())


def _interval(
    summands: Array,
    base: Array,
    weight: Array,
    span: tuple[float, float],
    reach: tuple[float, float],
    parts: npt.NDArray[np.int64],
) -> OffPolicyValue:
    """Return the mean of the summands and its interval.

    Args:
        span: of score minus predicted. parts: the group of each row.
        reach: of the weights. Their mean is 1; 0 of a difference of two policies, which some are below.
    """
    mean = 0.0 if reach[0] < 0 else 1.0
    low = min(_end(summands, base, weight, (w, w * span[0 if w > 0 else 1]), mean, parts) for w in reach)
    high = -min(_end(-summands, -base, weight, (w, -w * span[1 if w > 0 else 0]), mean, parts) for w in reach)
    return OffPolicyValue(
        value=float(summands.mean()),
        low=float(np.clip(low, mean - 1.0, 1.0)) + 0.0,  # no -0.0
        high=float(np.clip(high, mean - 1.0, 1.0)) + 0.0,
    )


def _end(
    summands: Array,
    base: Array,
    weight: Array,
    more: tuple[float, float],
    mean: float,
    parts: npt.NDArray[np.int64],
) -> float:
    """Return the lower end of a mean, with one group more: of this weight, and of the worst residual there can be.

    mean: of the weights, as it must be.
    """
    groups = int(parts.max()) + 1
    y, x = np.bincount(parts, summands), np.bincount(parts, weight)
    rows = np.bincount(parts).astype(np.float64)
    size = float(rows.mean())
    w, residue = more
    y, x, rows = np.append(y, size * (base.mean() + residue)), np.append(x, size * w), np.append(rows, size)
    # Means of rows, though drawn by groups: deviations of a group's sums from what its rows should bring.
    mean_y, mean_x = y.sum() / rows.sum(), x.sum() / rows.sum()
    dy, dx = y - rows * mean_y, x - rows * mean_x
    spread = float(dx @ dx)
    slope = float(dx @ dy) / spread if spread > 0 else 0.0
    residual = dy - slope * dx
    centre = mean_y + slope * (mean - mean_x)
    error = np.sqrt(float(residual @ residual) * (groups + 1) / groups) / rows.sum()
    return float(centre - np.sqrt(CHI_SQUARE_95) * error)


def _check(
    scores: Array, logged: npt.NDArray[np.int64], propensity: Array, target: Array, predicted: Array | None
) -> None:
    if scores.ndim != 1:
        raise InvalidInputError(f"scores: expected (rows,), got {scores.shape}")
    rows = len(scores)
    if logged.shape != (rows,) or propensity.shape != (rows,) or target.ndim != 2 or len(target) != rows:
        raise InvalidInputError("logged, propensity, target: expected as many rows as scores, target (rows, models)")
    if not ((scores >= 0) & (scores <= 1)).all():
        raise InvalidInputError("scores: expected numbers in [0, 1]")
    if not ((logged >= 0) & (logged < target.shape[1])).all():
        raise InvalidInputError("logged: expected columns of target")
    if not ((propensity > 0) & (propensity <= 1)).all():
        raise InvalidInputError(
            "propensity: expected numbers above 0 and at most 1; a choice without chance tells nothing"
        )
    if not ((target >= 0) & (target <= 1)).all() or not np.allclose(target.sum(axis=1), 1.0):
        raise InvalidInputError("target: expected chances that sum to 1 in each row")
    if predicted is not None and (predicted.shape != target.shape or not ((predicted >= 0) & (predicted <= 1)).all()):
        raise InvalidInputError("predicted: expected numbers in [0, 1], (rows, models) as target")


def _check_draws(rows: int, groups: npt.NDArray[np.int64] | None) -> None:
    if groups is not None and groups.shape != (rows,):
        raise InvalidInputError(f"groups: expected as many rows as scores, ({rows},), got {groups.shape}")
    draws = rows if groups is None else len(np.unique(groups))
    if draws < FEWEST_DRAWS:
        name, unit = ("scores", "rows") if groups is None else ("groups", "groups")
        raise InvalidInputError(
            f"{name}: expected at least {FEWEST_DRAWS} {unit}, got {draws}: too few for an interval; log more"
        )
