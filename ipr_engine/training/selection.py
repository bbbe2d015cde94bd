"""Which estimator to ship: decided by cross-validation on the training rows alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ipr_engine.errors import InvalidInputError
from ipr_engine.measures.bootstrap import Resamples
from ipr_engine.measures.repeatable import grouped_folds
from ipr_engine.measures.routing import (
    Axis,
    Outcomes,
    bounded_arqgc,
    complete_rows,
    degenerate_axis,
    single_curve,
    sweep_curve,
)
from ipr_engine.measures.sweeps import rule_sweep, worth_grid, worth_sweep
from ipr_engine.training.estimators.by_name import CLOSED_FORM
from ipr_engine.training.fitted_heads import fit_heads, predict

Array = npt.NDArray[np.float64]

FEWEST_ROWS = 50  # complete rows that an area needs; with fewer the Brier score decides


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


def compare_estimators(
    x: Array,
    quality: Array,
    tokens: Array,
    cost: Array,
    input_cost: Array,
    output_rate: Array,
    keys: Sequence[str],
    *,
    source: npt.NDArray[np.int64] | None = None,
    estimators: Sequence[str] = CLOSED_FORM,
    repeats: int = 2,
    folds: int = 5,
    progress: Callable[[str], None] = lambda message: None,
) -> list[EstimatorScore]:
    """Score every estimator by nested, repeated cross-validation; every estimator sees the same folds.

    Args:
        x: (rows, dim). quality, tokens, cost: (rows, models), realised, NaN where unknown. input_cost: (rows, models) USD of
            the prompt as the router would bill it. output_rate: (models,) or (rows, models) USD per output token.
        source: see `fit_heads`; figures are taken on the rows of source 0.
    """
    at_home = np.ones(len(x), np.bool_) if source is None else source == 0
    full = complete_rows(quality, cost) & at_home
    outcomes = Outcomes.complete(quality[full], cost[full]) if full.sum() >= FEWEST_ROWS else None
    scores = []
    for estimator in estimators:
        figures = []
        for repeat in range(repeats):
            outer = grouped_folds(keys, folds, seed=1000 + repeat)
            predicted, length = np.empty_like(quality), np.empty_like(quality)
            for fold in range(folds):
                out = outer == fold
                rest = [key for key, held in zip(keys, out, strict=True) if not held]
                heads = fit_heads(
                    x[~out],
                    quality[~out],
                    tokens[~out],
                    rest,
                    estimator=estimator,
                    source=None if source is None else source[~out],
                    seed=repeat,
                )
                predicted[out], length[out] = predict(heads.tensors, x[out], heads.activation)
            expected = input_cost + output_rate * length
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


def _no_area(outcomes: Outcomes | None) -> str | None:
    """Why no estimator has an area, None where they have."""
    if outcomes is None:
        return f"fewer than {FEWEST_ROWS} prompts have a quality and a cost of every candidate"
    names = [f"candidate {m}" for m in range(outcomes.models)]
    return degenerate_axis(Axis.of(outcomes), single_curve(outcomes, Resamples(outcomes.rows, draws=0)), names)


def _areas(predicted: Array, expected: Array, outcomes: Outcomes | None) -> tuple[float, float]:
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
