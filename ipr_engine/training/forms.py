"""Which form of ridge to ship: decided by cross-validation on the training split alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ipr_engine.training.evaluate import brier, curve_area, sweep_tau, sweep_worth
from ipr_engine.training.folds import grouped_folds
from ipr_engine.training.heads import fit_heads, predict
from ipr_engine.training.ridge import FORMS

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class FormScore:
    """One form's figures, one entry per repeat, of predictions that never saw their row (penalties and Platt included).

    Attributes:
        area_tau: area of the `minmax` curve between the cheapest and the best single; what the choice goes by.
        area_worth: the same for the sweep of `worth` at tau = 1.
        brier: mean over candidates.
    """

    form: str
    area_tau: tuple[float, ...]
    area_worth: tuple[float, ...]
    brier: tuple[float, ...]


def compare_forms(
    x: Array,
    quality: Array,
    tokens: Array,
    cost: Array,
    input_cost: Array,
    output_rate: Array,
    keys: Sequence[str],
    *,
    forms: Sequence[str] = FORMS,
    repeats: int = 5,
    folds: int = 5,
) -> list[FormScore]:
    """Score every form by nested, repeated cross-validation; every form sees the same folds.

    Args:
        x: (rows, dim). quality, tokens, cost: (rows, models), realised. input_cost: (rows, models) USD of the prompt
            as the router would bill it. output_rate: (models,) USD per output token.
    """
    scores = []
    for form in forms:
        rows = []
        for repeat in range(repeats):
            outer = grouped_folds(keys, folds, seed=1000 + repeat)
            predicted, length = np.empty_like(quality), np.empty_like(quality)
            for fold in range(folds):
                held_out = outer == fold
                rest = [key for key, out in zip(keys, held_out, strict=True) if not out]
                heads = fit_heads(x[~held_out], quality[~held_out], tokens[~held_out], rest, form=form, seed=repeat)
                predicted[held_out], length[held_out] = predict(heads.tensors, x[held_out])
            expected = input_cost + output_rate * length
            areas = [curve_area(sweep(predicted, expected), quality, cost) for sweep in (sweep_tau, sweep_worth)]
            rows.append((*areas, float(brier(predicted, quality).mean())))
        area_tau, area_worth, error = zip(*rows, strict=True)
        scores.append(FormScore(form, area_tau, area_worth, error))
    return scores


def winner(scores: Sequence[FormScore]) -> str:
    """The form of greatest mean area under the `minmax` curve."""
    return max(scores, key=lambda score: float(np.mean(score.area_tau))).form
