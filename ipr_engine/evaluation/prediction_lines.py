"""This file makes the lines of a summary that hold predictions against outcomes, by candidate, by estimator, for RouteLLM's pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine.evaluation.baselines import Predictions
from ipr_engine.evaluation.evaluation_inputs import Split
from ipr_engine.measures import prediction
from ipr_engine.measures.prediction import LEAST_SPREAD
from ipr_engine.measures.resampling import Resamples, estimate
from ipr_engine.measures.routing import Axis, Curve, arena_score

Array = npt.NDArray[np.float64]
CPT_LEVELS = (0.2, 0.5, 0.8)


def constant_here(models: Sequence[str], known: Mapping[str, str], predicted: Array) -> dict[str, str]:
    """Name the candidates whose heads are constant, by the bundle or by their predictions (rows, models) here, each with the reason."""
    found = {}
    for m, name in enumerate(models):
        spread = float(predicted[:, m].std())
        if name in known:
            found[name] = known[name]
        elif len(predicted) > 1 and spread < LEAST_SPREAD:
            found[name] = f"its predicted qualities have a standard deviation of {spread:.4f} on these prompts"
    return found


def candidate_lines(
    models: Sequence[str], train: Split | None, test: Split, singles: Curve, constant: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Return a line a candidate. The ECE of a constant head is left out: a constant at the mean is calibrated whatever it is worth.

    Args:
        train: None where both splits are the same rows.
    """
    result = []
    for m, name in enumerate(models):
        # [m] keeps the column's axis: the measures take (rows, models).
        scores = _scores(test.predicted[:, [m]], test.outcomes.quality[:, [m]])
        line: dict[str, Any] = {
            "name": name,
            "quality": estimate(singles.quality[:, m]).to_json(),
            "cost_usd": estimate(singles.cost[:, m]).to_json(),
            "predicted_quality": float(test.predicted[:, m].mean()),
            "predicted_cost_usd": float(test.predicted_cost[:, m].mean()),
            "arena_score": _known(float(arena_score(singles.quality[:1, m], singles.cost[:1, m])[0])),
            **(scores | {"ece": None} if name in constant else scores),
            "constant": constant.get(name),
        }
        if train is not None:
            line["train_quality"] = float(np.nanmean(train.outcomes.quality[:, m]))
            line["train_cost_usd"] = float(np.nanmean(train.outcomes.cost[:, m]))
        if test.tokens is not None and test.predicted_tokens is not None and np.isfinite(test.tokens[:, m]).any():
            line["tokens"] = _error(test.predicted_tokens[:, [m]], test.tokens[:, [m]])
        result.append(line)
    return result


def _error(predicted: Array, realised: Array) -> dict[str, float | None]:
    """Return `prediction.amount_error`, None where nothing real is above 0."""
    return {name: _known(part) for name, part in prediction.amount_error(predicted, realised)._asdict().items()}


def _known(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _scores(predicted: Array, quality: Array) -> dict[str, float]:
    return {
        "mae": prediction.mae(predicted, quality),
        "brier": prediction.brier(predicted, quality),
        "ece": prediction.expected_calibration_error(predicted, quality),
    }


def prediction_line(test: Split, predicted: Array, predicted_cost: Array) -> dict[str, Any]:
    """Return the figures of one estimator's predictions (rows, models) of quality and cost."""
    quality, cost = test.outcomes.quality, test.outcomes.cost
    top = predicted.argmax(axis=1)
    differ = prediction.differing(quality)  # where all candidates have one outcome, every choice is a hit
    first, three = prediction.hits(predicted, quality), prediction.hits(predicted, quality, min(3, quality.shape[1]))
    chosen = prediction.of_chosen(predicted, top), prediction.of_chosen(quality, top)
    return {
        **_scores(predicted, quality),
        "ece_of_best_predicted": prediction.expected_calibration_error(*chosen),
        "top1": float(first.mean()),
        "top1_where_differing": float(first[differ].mean()) if differ.any() else None,
        "top3": float(three.mean()),
        "top3_where_differing": float(three[differ].mean()) if differ.any() else None,
        "rows_differing": int(differ.sum()),
        "cost": _error(predicted_cost, cost),
    }


def pair_lines(
    test: Split, axis: Axis, estimates: Mapping[str, Predictions], resamples: Resamples, models: Sequence[str]
) -> dict[str, Any]:
    """Return RouteLLM's figures (arXiv 2406.18665) on the two ends of the axis; complete rows."""
    weak, strong = test.outcomes.quality[:, axis.cheapest], test.outcomes.quality[:, axis.best]
    tables = {"router": test.predicted, **{name: e.quality for name, e in estimates.items()}}
    result: dict[str, Any] = {"weak": models[axis.cheapest], "strong": models[axis.best], "routers": []}
    for name, predicted in tables.items():
        sent, quality = pair_curve(predicted[:, axis.best] - predicted[:, axis.cheapest], weak, strong, resamples)
        line = {
            "name": name,
            "apgr": estimate(apgr(sent, quality)).to_json(),
            **{f"cpt_{level:.0%}": estimate(cpt(sent, quality, level)).to_json() for level in CPT_LEVELS},
        }
        result["routers"].append(line)
    return result


def pair_curve(score: Array, weak: Array, strong: Array, resamples: Resamples) -> tuple[Array, Array]:
    """Return RouteLLM's curve: share of prompts sent to the strong model against quality, (1 + draws, points) each.

    Prompts go to the strong model in order of falling `score` (rows,); prompts of equal score go in one step.
    """
    order = np.argsort(-score, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)  # the last row of every distinct score
    ends, totals = resamples.steps(ends), resamples.totals[:, None]
    start = np.zeros((len(totals), 1))
    sent = resamples.running(np.ones(len(score)), order, ends) / totals
    gained = resamples.running(strong - weak, order, ends) / totals
    base = resamples.means(weak)[:, None]
    return np.concatenate([start, sent], axis=1), base + np.concatenate([start, gained], axis=1)


def apgr(sent: Array, quality: Array) -> Array:
    """Return RouteLLM's average performance gap recovered of a `pair_curve`, (1 + draws,); NaN where there is no gap."""
    weak, strong = quality[:, :1], quality[:, -1:]
    with np.errstate(all="ignore"):
        recovered = (quality - weak) / (strong - weak)
        area = (np.diff(sent, axis=1) * (recovered[:, 1:] + recovered[:, :-1])).sum(axis=1) / 2
    return np.where((strong > weak)[:, 0], area, np.nan)


def cpt(sent: Array, quality: Array, level: float) -> Array:
    """Return RouteLLM's call-performance threshold: the least share of strong calls that recovers `level` of the gap."""
    result = np.full(len(sent), np.nan)
    for d, (x, q) in enumerate(zip(sent, quality, strict=True)):
        if q[-1] <= q[0]:
            continue
        recovered = (q - q[0]) / (q[-1] - q[0])
        i = int(np.argmax(recovered >= level))  # the last point recovers 1
        if i == 0:
            result[d] = x[0]
        else:
            part = (level - recovered[i - 1]) / (recovered[i] - recovered[i - 1])
            result[d] = x[i - 1] + part * (x[i] - x[i - 1])
    return result
