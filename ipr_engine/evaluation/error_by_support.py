"""`support_figures` shows what `support` says about error: squared error and regret of prompts by support (docs/metrics.md, 2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine.errors import InvalidInputError
from ipr_engine.measures.prediction import of_chosen
from ipr_engine.measures.resampling import DRAWS, Resamples, difference, estimate, resamples_of

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

BINS = 5
FIGURES = ("brier", "brier_of_means", "regret", "regret_of_best_single")


@dataclass(frozen=True, eq=False)
class Judged:
    """A `Judged` holds prompts whose outcomes are known, with the router's predictions of them.

    Attributes:
        name: of the source.
        support: (rows,) in [0, 1].
        predicted, quality: (rows, models), complete.
        means: (models,) mean training quality of the candidates: what is predicted without reading the prompt.
        groups: (rows,) question keys; copies of one question share one.
    """

    name: str
    support: Array
    predicted: Array
    quality: Array
    means: Array
    groups: Sequence[str]


def prompt_errors(judged: Judged) -> dict[str, Array]:
    """Return the figures of FIGURES per prompt, (rows,) each."""
    if not judged.predicted.shape == judged.quality.shape == (len(judged.support), len(judged.means)):
        raise InvalidInputError(
            f"judged: expected tables of (rows, models), got predicted {judged.predicted.shape}, quality "
            f"{judged.quality.shape}, support {judged.support.shape}, means {judged.means.shape}"
        )
    if not all(np.isfinite(part).all() for part in (judged.support, judged.predicted, judged.quality)):
        raise InvalidInputError("judged: expected finite support, predictions and quality; drop the other rows")
    # Regret is of quality alone: a router that pays less may rightly choose another candidate.
    best = judged.quality.max(axis=1)  # (rows,)
    return {
        "brier": np.square(judged.predicted - judged.quality).mean(axis=1),
        "brier_of_means": np.square(judged.means - judged.quality).mean(axis=1),
        "regret": best - of_chosen(judged.quality, judged.predicted.argmax(axis=1)),
        "regret_of_best_single": best - judged.quality[:, judged.means.argmax()],
    }


def bins_of(support: Array, bins: int = BINS) -> Indices:
    """Give every row a bin number, (rows,): about equal counts, cut at quantiles of support. Equal supports share a bin, empty ones are
    left out."""
    edges = np.sort(support)[np.arange(1, bins) * len(support) // bins]
    return np.asarray(np.unique(np.searchsorted(edges, support, side="right"), return_inverse=True)[1])


def support_figures(judged: Judged, *, draws: int = DRAWS, seed: int = 0, bins: int = BINS) -> dict[str, Any]:
    """Return the mean errors of all prompts and of bins by support, and how those of low support differ from the rest.

    Returns:
        plain JSON: {"name", "models", "overall": line, "bins": [line, ...], "low_minus_high": {figure: estimate} or None},
        a line being {"support": [least, mean, greatest], "prompts", and an estimate per figure}. low_minus_high: prompts
        of support below the median minus the others, paired; None where all have one support.
    """
    errors = np.stack([prompt_errors(judged)[name] for name in FIGURES], axis=1)  # (rows, figures)
    resamples = resamples_of(judged.groups, draws=draws, seed=seed)
    # Halves, not bins: their difference is one figure, and paired, since both come from the same resamples.
    low = judged.support < np.median(judged.support)
    halves = None
    if low.any():
        below, above = (_means(errors, side, resamples) for side in (low, ~low))
        halves = {name: difference(below[:, i], above[:, i]).to_json() for i, name in enumerate(FIGURES)}
    number = bins_of(judged.support, bins)
    return {
        "name": judged.name,
        "models": len(judged.means),
        "overall": _line(judged.support, errors, np.ones(len(errors), np.bool_), resamples),
        "bins": [_line(judged.support, errors, number == b, resamples) for b in range(number.max() + 1)],
        "low_minus_high": halves,
    }


def _means(errors: Array, rows: npt.NDArray[np.bool_], resamples: Resamples) -> Array:
    """Take means over some rows of every resample: (1 + draws, figures)."""
    return resamples.means(errors, np.broadcast_to(rows[:, None], errors.shape).astype(np.float64))


def _line(support: Array, errors: Array, rows: npt.NDArray[np.bool_], resamples: Resamples) -> dict[str, Any]:
    """Describe some rows: their support, their number, and an estimate per figure."""
    means = _means(errors, rows, resamples)
    inside = support[rows]
    return {
        "support": [float(inside.min()), float(inside.mean()), float(inside.max())],
        "prompts": int(rows.sum()),
        **{name: estimate(means[:, i]).to_json() for i, name in enumerate(FIGURES)},
    }
