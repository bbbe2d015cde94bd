"""The figures of the model card, with bootstrap intervals over prompts, as one plain dictionary."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine.training.evaluate import (
    TAUS,
    Frame,
    area,
    bootstrap_weights,
    calibration_error,
    choose,
    hull,
    interval,
    realised,
    saving_at,
    sweep_tau,
    sweep_worth,
    token_error,
)

Array = npt.NDArray[np.float64]

SHOWN_TAUS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)
SHARES = (1.0, 0.99, 0.98, 0.95)
DRAWS = 1000


def candidate_figures(predicted: Array, quality: Array, weights: Array) -> list[dict[str, Any]]:
    """Per candidate: mean quality, mean prediction, Brier score and calibration error, with intervals."""
    squared = np.square(predicted - quality)
    error = calibration_error(predicted, quality)
    return [
        {
            "quality": (quality[:, m].mean(), interval(weights @ quality[:, m])),
            "predicted": predicted[:, m].mean(),
            "brier": (squared[:, m].mean(), interval(weights @ squared[:, m])),
            "brier_of_mean": float(quality[:, m].var()),
            "ece": float(error[m]),
        }
        for m in range(quality.shape[1])
    ]


def curve_point(
    choices: npt.NDArray[np.int64], quality: Array, cost: Array, best: int, weights: Array
) -> dict[str, Any]:
    """Realised quality and cost of one row of choices, and the share of the best single's cost that it saves."""
    rows = np.arange(len(quality))
    got, paid = quality[rows, choices], cost[rows, choices]
    return {
        "quality": (got.mean(), interval(weights @ got)),
        "cost": (paid.mean(), interval(weights @ paid)),
        "saved": (1 - paid.mean() / cost[:, best].mean(), interval(1 - (weights @ paid) / (weights @ cost[:, best]))),
        "kept": (
            got.mean() / quality[:, best].mean(),
            interval((weights @ got) / (weights @ quality[:, best])),
        ),
        "candidates_used": len(np.unique(choices)),
    }


def routing_figures(
    predicted: Array,
    predicted_cost: Array,
    quality: Array,
    cost: Array,
    by_dataset: Array,
    train: tuple[Array, Array, Array, Array],
    seed: int,
) -> dict[str, Any]:
    """The quality-cost figures of one test split.

    Args:
        predicted, predicted_cost: (rows, models), what the router believes. quality, cost: (rows, models), realised.
        by_dataset: (rows, models) mean training quality of the row's dataset: a router that knows only the dataset.
        train: predicted, predicted_cost, quality, cost of the training split, out of fold: where tau is chosen.
    """
    weights = bootstrap_weights(len(quality), DRAWS, seed)
    frame = Frame.of(quality, cost)
    corners = [frame.cheapest, frame.best]
    mean_quality, mean_cost = weights @ quality, weights @ cost  # (draws, models)
    sweeps = {
        "minmax": sweep_tau(predicted, predicted_cost),
        "worth": sweep_worth(predicted, predicted_cost),
        "task": sweep_worth(by_dataset, predicted_cost),
    }
    curves: dict[str, Any] = {}
    hull_draws = np.empty(DRAWS)
    for d in range(DRAWS):
        on = hull(mean_cost[d], mean_quality[d])
        hull_draws[d] = area(mean_cost[d, on], mean_quality[d, on], mean_cost[d, corners], mean_quality[d, corners])
    on = hull(cost.mean(axis=0), quality.mean(axis=0))
    singles = (cost.mean(axis=0), quality.mean(axis=0))
    full_cost, full_quality = singles[0][frame.best], singles[1][frame.best]

    def savings(c: Array, q: Array) -> list[float]:
        return [saving_at(c, q, share * full_quality, full_cost) for share in SHARES]

    hull_area = area(singles[0][on], singles[1][on], singles[0][corners], singles[1][corners])
    curves["hull"] = {
        "area": (hull_area, interval(hull_draws)),
        "savings": savings(singles[0][on], singles[1][on]),
    }
    for name, choices in sweeps.items():
        got, paid = realised(choices, quality), realised(choices, cost)  # (points, rows)
        draws = np.array(
            [
                area(c, q, mean_cost[d, corners], mean_quality[d, corners])
                for d, (c, q) in enumerate(zip(weights @ paid.T, weights @ got.T, strict=True))
            ]
        )
        c, q = paid.mean(axis=1), got.mean(axis=1)
        value = area(c, q, singles[0][corners], singles[1][corners])
        curves[name] = {
            "area": (value, interval(draws)),
            "over_hull": (value - hull_area, interval(draws - hull_draws)),
            "savings": savings(c, q),
        }

    return {
        "rows": len(quality),
        "cheapest": frame.cheapest,
        "best": frame.best,
        "hull": [int(m) for m in on],
        "curves": curves,
        "points": {
            tau: curve_point(choose(predicted, predicted_cost, tau=tau), quality, cost, frame.best, weights)
            for tau in SHOWN_TAUS
        },
        "chosen_on_train": _chosen_on_train(train, predicted, predicted_cost, quality, cost, frame.best, weights),
        "oracle": curve_point(choose(quality, cost, tau=0.0), quality, cost, frame.best, weights),
    }


def _chosen_on_train(
    train: tuple[Array, Array, Array, Array],
    predicted: Array,
    predicted_cost: Array,
    quality: Array,
    cost: Array,
    best: int,
    weights: Array,
) -> list[dict[str, Any]]:
    """For each share: the greatest tau that keeps it on the training split (out of fold), and what it does on test."""
    train_predicted, train_cost, train_quality, _ = train
    kept = realised(sweep_tau(train_predicted, train_cost, TAUS), train_quality).mean(axis=1)[::-1]  # by rising tau
    wanted = train_quality.mean(axis=0).max()
    result = []
    for share in SHARES:
        reached = np.flatnonzero(kept >= share * wanted)
        tau = float(TAUS[reached[-1]]) if len(reached) else None
        point = None
        if tau is not None:
            point = curve_point(choose(predicted, predicted_cost, tau=tau), quality, cost, best, weights)
        result.append({"share": share, "tau": tau, "point": point})
    return result


def token_figures(predicted: Array, tokens: Array) -> list[dict[str, float]]:
    """Per candidate: mean tokens, mean prediction, median relative error."""
    error = token_error(predicted, tokens)
    return [
        {"mean": tokens[:, m].mean(), "predicted": predicted[:, m].mean(), "median_error": float(error[m])}
        for m in range(tokens.shape[1])
    ]
