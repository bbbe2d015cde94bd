"""What `ipr train` delivers: the estimator that wins a cross-validation on the training rows, and heads that are not constant.

A head is constant where it tells prompts apart no better than the candidate's mean quality does; `Constancy` has the test.
`ipr train` refuses to deliver such heads without being asked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ipr_engine.bundle import Candidate, PriceList
from ipr_engine.errors import InvalidInputError
from ipr_engine.measures.resampling import Resamples, grouped_folds
from ipr_engine.measures.routing import (
    Axis,
    WeightedOutcomes,
    bounded_arqgc,
    complete_rows,
    degenerate_axis,
    single_curve,
    sweep_curve,
)
from ipr_engine.measures.sweeps import rule_sweep, worth_grid, worth_sweep
from ipr_engine.policy.price_table import PriceTable
from ipr_engine.training.estimators.by_name import CLOSED_FORM
from ipr_engine.training.fitted_heads import HeadRows, fit_heads, predict

Array = npt.NDArray[np.float64]

FEWEST_ROWS = 50  # complete rows that an area needs; with fewer the Brier score decides
LEAST_SPREAD = 0.01  # standard deviation of predicted quality below which a head routes nothing
NORMAL_QUANTILE = 1.6448536269514722  # 0.95


@dataclass(frozen=True)
class EstimatorScore:
    """One estimator's figures, one entry per repeat, of predictions that never saw their row (penalties, Platt included).

    Attributes:
        area_worth, area_minmax: Bounded-ARQGC (docs/metrics.md) of the sweeps of worth and of tau; NaN without an axis.
        brier: mean over judged pairs.
    """

    estimator: str
    area_worth: tuple[float, ...]
    area_minmax: tuple[float, ...]
    brier: tuple[float, ...]

    @property
    def area(self) -> float:
        """Mean of both sweeps over the repeats: what the choice goes by."""
        return float(np.mean(self.area_worth) + np.mean(self.area_minmax)) / 2


@dataclass(frozen=True, eq=False)
class PromptCosts:
    """Costs of rows in USD.

    Attributes:
        realised: (rows, models), NaN where unknown. of_input: (rows, models) of the prompt as the router would bill it.
        output_rate: (models,) or (rows, models) per output token.
    """

    realised: Array
    of_input: Array
    output_rate: Array


def prompt_costs(
    listed: Sequence[Candidate],
    prices: PriceList,
    billed: Array,
    own: npt.NDArray[np.float32] | None,
    output_tokens: Array,
) -> PromptCosts:
    """Costs from the price list, of prompts billed (rows,) by the encoder's tokenizer and (rows, models) by the candidates' own."""
    price_rows = [prices.prices[candidate.name] for candidate in listed]
    rates = PriceTable(price_rows, [candidate.token_ratio for candidate in listed])
    bills = rates.counted(billed.astype(np.int64), own)
    of_input = rates.cost(bills, np.zeros((1, len(listed))))
    return PromptCosts(rates.cost(bills, output_tokens), of_input, rates.out_rates(bills))


def compare_estimators(
    rows: HeadRows,
    costs: PromptCosts,
    *,
    estimators: Sequence[str] = CLOSED_FORM,
    repeats: int = 2,
    folds: int = 5,
    progress: Callable[[str], None] = lambda message: None,
) -> list[EstimatorScore]:
    """Score every estimator by nested, repeated cross-validation; every estimator sees the same folds.

    Figures are taken on the rows of source 0 alone.
    """
    x, quality, at_home = rows.x, rows.quality, rows.at_home
    full = complete_rows(quality, costs.realised) & at_home
    outcomes = WeightedOutcomes.complete(quality[full], costs.realised[full]) if full.sum() >= FEWEST_ROWS else None
    scores = []
    for estimator in estimators:
        figures = []
        for repeat in range(repeats):
            outer = grouped_folds(rows.keys, folds, seed=1000 + repeat)
            predicted, length = np.empty_like(quality), np.empty_like(quality)
            for fold in range(folds):
                out = outer == fold
                heads = fit_heads(rows.take(~out), estimator=estimator, seed=repeat)
                predicted[out], length[out] = predict(heads.tensors, x[out], heads.activation)
            expected = costs.of_input + costs.output_rate * length
            error = float(np.nanmean(np.square(predicted - quality)[at_home]))
            figures.append((*_areas(predicted[full], expected[full], outcomes), error))
        worth, minmax, brier = zip(*figures, strict=True)
        scores.append(EstimatorScore(estimator, worth, minmax, brier))
        area = "undefined" if np.isnan(scores[-1].area) else f"{scores[-1].area:.3f}"
        progress(f"{estimator}: area {area}, Brier {np.mean(brier):.4f}")
    why = _no_area(outcomes)
    if why is not None:
        progress(f"the area is undefined, so the Brier score chooses: {why}")
    return scores


def _no_area(outcomes: WeightedOutcomes | None) -> str | None:
    """Why no estimator has an area, None where they have."""
    if outcomes is None:
        return f"fewer than {FEWEST_ROWS} prompts have a quality and a cost of every candidate"
    names = [f"candidate {m}" for m in range(outcomes.models)]
    return degenerate_axis(Axis.of(outcomes), single_curve(outcomes, Resamples(outcomes.rows, draws=0)), names)


def _areas(predicted: Array, expected: Array, outcomes: WeightedOutcomes | None) -> tuple[float, float]:
    if outcomes is None:
        return np.nan, np.nan
    once, axis = Resamples(outcomes.rows, draws=0), Axis.of(outcomes)
    singles = single_curve(outcomes, once)
    sweeps = (worth_sweep(predicted, expected, worth_grid(outcomes.cost)), rule_sweep(predicted, expected, "minmax"))
    worth, minmax = (float(bounded_arqgc(sweep_curve(s, outcomes, once), axis, singles)[0]) for s in sweeps)
    return worth, minmax


def as_json(scores: Sequence[EstimatorScore]) -> list[dict[str, object]]:
    """For a bundle's provenance: means over the repeats, None where an area is not defined."""

    def mean(values: tuple[float, ...]) -> float | None:
        return None if np.isnan(values).any() else round(float(np.mean(values)), 6)

    return [
        {
            "estimator": score.estimator,
            "area_worth": mean(score.area_worth),
            "area_minmax": mean(score.area_minmax),
            "brier": mean(score.brier),
        }
        for score in scores
    ]


def winner(scores: Sequence[EstimatorScore]) -> str:
    """The estimator of greatest mean area; of least Brier score where no area is defined."""
    if not scores:
        raise InvalidInputError("estimators: expected at least one to choose from")
    if all(np.isnan(score.area) for score in scores):
        return min(scores, key=lambda score: float(np.mean(score.brier))).estimator
    return max(scores, key=lambda score: score.area).estimator


@dataclass(frozen=True)
class Constancy:
    """One candidate's head against its mean quality, on rows that the head's fit had not seen.

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
