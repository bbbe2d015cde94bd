"""A trial fits on the training split, predicts the test split, and measures: every study repeats it with something changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine.evaluation.baselines import ESTIMATORS as BASELINES
from ipr_engine.measures.resampling import Estimate, Resamples, difference, estimate, one_thread
from ipr_engine.measures.routing import bounded_arqgc, single_curve, sweep_curve
from ipr_engine.measures.sweeps import rule_constants, rule_sweep, worth_sweep
from ipr_engine.training.fitted_heads import HeadRows, fit_heads, predict
from studies.cases import FOLDS, Case, Rows

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.integer]

NANO = 1e9  # the tokens head predicts cost in billionths of a dollar: the same form as output tokens at a price each


@dataclass(frozen=True, eq=False)
class Prediction:
    """A `Prediction` is what a router believes: (rows, models) of test, and of train out of fold. Costs in USD."""

    quality: Array
    cost: Array
    train_quality: Array
    train_cost: Array


def fit_and_predict(
    case: Case,
    train_x: Array,
    test_x: Array,
    estimator: str,
    *,
    options: Mapping[str, Any] = MappingProxyType({}),
    train: Rows | None = None,
    seed: int = 0,
) -> Prediction:
    """Fit heads as `ipr train` does, and predict; cost comes from the tokens head's own form, fitted on recorded costs.

    Args:
        train_x, test_x: (rows, dim) of `train` and of the case's test rows. train: rows to fit on, None for the case's.
    """
    rows = case.train if train is None else train
    ranked = (rows.cost == rows.cost[:1]).all()  # one cost a candidate: nothing to predict
    with one_thread():
        heads = fit_heads(
            HeadRows(train_x, rows.quality, rows.cost * NANO, rows.data.question_keys),
            estimator=estimator,
            options=options,
            folds=FOLDS,
            seed=seed,
        )
        quality, cost = predict(heads.tensors, test_x, heads.activation)
    if ranked:
        level = rows.cost[:1]
        return Prediction(quality, np.tile(level, (len(test_x), 1)), heads.out_of_fold_quality, rows.cost)
    return Prediction(quality, cost / NANO, heads.out_of_fold_quality, heads.out_of_fold_tokens / NANO)


def fit_baseline(case: Case, name: str, train_x: Array, test_x: Array) -> Prediction:
    """Fit kNN, k-means or ridge of `ipr eval`, tuned on the training split."""
    with one_thread():
        fit = BASELINES[name](train_x, case.train.outcomes, case.folds, test_x)
    return Prediction(fit.quality, fit.cost, fit.train_quality, fit.train_cost)


def sweep(prediction: Prediction, rule: str, *, mean_cost: Array | None = None, on_train: bool = False) -> Indices:
    """Return choices (points, rows) of a rule's sweep: "worth", "minmax", "max" or "fixed"; with one cost a candidate if given."""
    quality = prediction.train_quality if on_train else prediction.quality
    cost = (prediction.train_cost if on_train else prediction.cost) if mean_cost is None else mean_cost
    if rule == "worth":
        return worth_sweep(quality, np.broadcast_to(cost, quality.shape))
    return rule_sweep(quality, cost, rule, constants=rule_constants(prediction.train_quality))


def area(case: Case, choices: Indices) -> Array:
    """Return Bounded-ARQGC (best single = 1) on the test rows, (1 + draws,)."""
    return bounded_arqgc(sweep_curve(choices, case.test.outcomes, case.resamples), case.axis, case.singles)


def area_on_train(case: Case, choices: Indices) -> float:
    """Return `area` of out-of-fold predictions on the training rows: choices are made by it."""
    once = Resamples(case.train.outcomes.rows, draws=0)
    curve = sweep_curve(choices, case.train.outcomes, once)
    return float(bounded_arqgc(curve, case.axis, single_curve(case.train.outcomes, once))[0])


def hull_area(case: Case) -> Array:
    """Return the area of random mixes along the training hull of single candidates, (1 + draws,)."""
    return bounded_arqgc(case.hull, case.axis, case.singles)


def brier(prediction: Prediction, case: Case) -> float:
    return float(np.square(prediction.quality - case.test.quality).mean())


def shown(figures: Array | Estimate, *, digits: int = 3) -> str:
    """Return a figure with its interval; - where it is undefined."""
    value = figures if isinstance(figures, Estimate) else estimate(figures)
    if np.isnan(value.value):
        return "-"
    return f"{value.value:.{digits}f} [{value.low:.{digits}f}, {value.high:.{digits}f}]"


def shown_percent(figure: Mapping[str, Any]) -> str:
    """Return a relative change with its interval, from what `Estimate.to_json` gives."""
    return f"{figure['value']:+.0%} [{figure['low']:+.0%}, {figure['high']:+.0%}]"


def shown_difference(figures: Array, baseline: Array, *, digits: int = 3) -> str:
    """Return the paired difference with its interval, bold where it is above or below zero throughout; - where it is undefined."""
    d = difference(figures, baseline)
    if np.isnan(d.value):
        return "-"
    text = f"{d.value:+.{digits}f} [{d.low:+.{digits}f}, {d.high:+.{digits}f}]"
    return f"**{text}**" if d.low > 0 or d.high < 0 else text


def best_of(areas: Mapping[str, Array], names: Sequence[str]) -> str:
    """Return the name whose figure on test is greatest."""
    return max(names, key=lambda name: float(areas[name][0]))
