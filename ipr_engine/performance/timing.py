"""`fit_timing` fits seconds to the first token and seconds per output token to recorded answers.

    seconds of an answer = ttft_s + tpot_s * output tokens          both >= 0, Huber's loss

Huber's loss counts errors beyond 1.345 standard deviations by their size, not its square: an answer that stalled does not move the line.
Where the time of the first token was recorded, ttft_s is fitted to it alone, and tpot_s to what came after.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ipr_engine.bundle.performance import MOST_SECONDS, UNITS

Array = npt.NDArray[np.float64]

LEAST = 20  # answers
FOLDS = 5
ROUNDS = 60
EDGE = 1.345  # in standard deviations: 95 % of the efficiency of least squares where errors are normal (Huber)
NORMAL = 1.4826  # standard deviations in the median absolute error of a normal distribution
Z = 1.96


class Interval(NamedTuple):
    """An `Interval` is a fitted number and its 95 % interval, which holds for errors of any spread (the sandwich), cut at 0."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class TimingFit:
    """A `TimingFit` is the fit to the answers of one model.

    Attributes:
        answers: how many it was fitted to. with_ttft: whether these tell the time of their first token.
        left_out: answers that do not tell it, where it is fitted to; they were not read.
        error_s: mean absolute error of an answer's seconds, by fits that have not seen it.
        bias_s: mean of predicted - recorded: below 0 the fit promises less time than answers take.
        error_of_mean_s: what error_s is where the mean of the other answers is predicted instead.
    """

    answers: int
    with_ttft: bool
    left_out: int
    ttft_s: Interval
    tpot_s: Interval
    error_s: float
    bias_s: float
    error_of_mean_s: float

    def to_json(self) -> dict[str, Any]:
        """Return the fit in plain JSON types."""
        parts = {"ttft_s": self.ttft_s._asdict(), "tpot_s": self.tpot_s._asdict()}
        return {**vars(self), **parts}


@dataclass(frozen=True)
class Refusal:
    """A `Refusal` says why nothing was fitted to the answers of one model."""

    reason: str


def fit_timing(output_tokens: Array, seconds: Array, ttft_seconds: Array | None = None) -> TimingFit | Refusal:
    """Fit one model's answers.

    Args:
        output_tokens: (answers,), >= 0. seconds: (answers,), of whole answers, >= 0. ttft_seconds: (answers,), NaN where not
            recorded; where at least LEAST are, the fit is to those answers alone.
    Returns:
        The fit; or why there is none: too few answers, answers that do not tell the two numbers apart, or numbers that are no
        seconds (`bundle.performance.MOST_SECONDS`).
    """
    with_ttft = ttft_seconds is not None and int(np.isfinite(ttft_seconds).sum()) >= LEAST
    first, left_out = np.zeros_like(seconds), 0
    if with_ttft and ttft_seconds is not None:
        kept = np.isfinite(ttft_seconds)
        left_out = int((~kept).sum())
        output_tokens, seconds, first = output_tokens[kept], seconds[kept], ttft_seconds[kept]
    if len(seconds) < LEAST:
        return Refusal(f"{len(seconds)} answers, at least {LEAST} are needed")
    if with_ttft and not output_tokens.any():
        return Refusal("no answer has output tokens")
    if not with_ttft and (output_tokens == output_tokens[0]).all():
        return Refusal(
            f"every answer has {output_tokens[0]:g} output tokens, so seconds to the first token and seconds per output token cannot "
            "be told apart; record answers of other lengths, or the time of the first token"
        )

    def line(rows: npt.NDArray[Any]) -> tuple[Interval, Interval]:
        ones, tokens = np.ones((len(seconds[rows]), 1)), output_tokens[rows, None]
        if with_ttft:
            return _huber(ones, first[rows])[0], _huber(tokens, seconds[rows] - first[rows])[0]
        ttft, tpot = _huber(np.concatenate([ones, tokens], axis=1), seconds[rows])
        return ttft, tpot

    ttft, tpot = line(np.arange(len(seconds)))
    for name, value in (("ttft_s", ttft.value), ("tpot_s", tpot.value)):
        if value > MOST_SECONDS[name]:
            return Refusal(
                f"{name} would be {value:.4g} {UNITS[name]}, at most {MOST_SECONDS[name]:g} are expected: if the times are "
                "milliseconds, say so by the column's name (latency_ms, ttft_ms), or divide them by 1,000"
            )
    # Errors of answers that the fit has not seen, beside those of predicting the mean.
    fold = np.random.default_rng(0).permutation(len(seconds)) % FOLDS
    predicted, mean = np.empty_like(seconds), np.empty_like(seconds)
    for out in (fold == number for number in range(FOLDS)):
        start, slope = line(np.flatnonzero(~out))
        predicted[out] = start.value + slope.value * output_tokens[out]
        mean[out] = seconds[~out].mean()
    return TimingFit(
        answers=len(seconds),
        with_ttft=with_ttft,
        left_out=left_out,
        ttft_s=ttft,
        tpot_s=tpot,
        error_s=float(np.abs(predicted - seconds).mean()),
        bias_s=float((predicted - seconds).mean()),
        error_of_mean_s=float(np.abs(mean - seconds).mean()),
    )


def _huber(terms: Array, y: Array) -> list[Interval]:
    """Fit coefficients >= 0 of terms (rows, 1 or 2), by reweighting; each comes with its interval."""
    # Terms are scaled to about 1: their squares stay comparable, however long the answers are.
    size = np.maximum(terms.mean(axis=0), 1e-300)
    scaled, weights = terms / size, np.ones(len(y))
    at = np.full(terms.shape[1], np.inf)
    for _ in range(ROUNDS):
        before, at = at, _least(scaled, y, weights)
        # The scale is estimated anew each round, by the median absolute error: an answer that stalled does not widen it.
        residual = y - scaled @ at
        edge = EDGE * max(NORMAL * float(np.median(np.abs(residual))), 1e-12 * float(np.abs(y).max()))
        if edge == 0 or np.allclose(at, before, rtol=1e-9, atol=0):
            break
        weights = np.minimum(1.0, edge / np.maximum(np.abs(residual), edge))
    spread = _spread(scaled, residual, edge)
    return [
        Interval(*(float(max(0.0, v) / s) for v in (value, value - Z * d, value + Z * d)))
        for value, d, s in zip(at, spread, size, strict=True)
    ]


def _least(terms: Array, y: Array, weights: Array) -> Array:
    """Solve the weighted least squares of coefficients >= 0: of one or two terms, each set of those above 0 is tried."""
    # With at most two terms, trying every set of positive ones is exact. All of them come first: where no coefficient is below 0, no
    # other set is better, and the losses need not be compared, whose difference may be below float64's digits.
    gram, target = terms.T @ (terms * weights[:, None]), terms.T @ (y * weights)
    models = len(target)
    best, least = np.zeros(models), 0.0
    for kept in ([0],) if models == 1 else ([0, 1], [0], [1]):
        found = np.zeros(models)
        found[kept] = np.linalg.lstsq(gram[np.ix_(kept, kept)], target[kept], rcond=None)[0]
        if not (found >= 0).all():
            continue
        if len(kept) == models:
            return found
        loss = float(found @ gram @ found / 2 - target @ found)
        if loss < least:
            best, least = found, loss
    return best


def _spread(terms: Array, residual: Array, edge: float) -> Array:
    """Return standard errors of an M-estimate (terms,): the sandwich, each error divided by 1 - leverage (HC3).

    An answer far longer than the others pulls the line to itself: its own error says little of how far the line may be off.
    """
    # Errors beyond the edge are counted by their size: their influence is the edge, and the bread has none of them.
    inside = np.abs(residual) <= edge
    bread = np.asarray(np.linalg.pinv(terms[inside].T @ terms[inside]), np.float64)
    leverage = np.einsum("ij,jk,ik->i", terms, bread, terms) * inside
    slope = np.clip(residual, -edge, edge) / np.maximum(1 - leverage, 1e-6)
    meat = (terms * np.square(slope)[:, None]).T @ terms
    variance = np.asarray(np.diag(bread @ meat @ bread), np.float64)
    return np.sqrt(np.maximum(variance, 0))
