"""An arm fits heads on the rows of one source, of another, or of both: the transfer study compares these arms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ipr_engine.data import Outcomes as OutcomeData
from ipr_engine.errors import InvalidInputError
from ipr_engine.measures.resampling import one_thread
from ipr_engine.training.fitted_heads import FittedHeads, HeadRows, fit_heads
from studies.cases import FOLDS
from studies.views import Views

Array = npt.NDArray[np.float64]

OWN, OTHER, LEVELLED, POOLED = "own rows", "the other source alone", "both, intercept dropped", "both, pooled"
ARMS = (OWN, OTHER, LEVELLED, POOLED)


@dataclass(frozen=True, eq=False)
class Judged:
    """A `Judged` holds rows to fit on, in the target's columns.

    Attributes:
        x: (rows, dim). quality, tokens: (rows, models), NaN where not judged. keys: the question of each row.
    """

    x: Array
    quality: Array
    tokens: Array
    keys: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.keys)

    def take(self, rows: npt.NDArray[np.int64] | npt.NDArray[np.bool_]) -> Judged:
        index = np.arange(len(self))[rows]
        return Judged(self.x[index], self.quality[index], self.tokens[index], tuple(self.keys[i] for i in index))


def judged(data: OutcomeData, models: tuple[str, ...], named: Mapping[str, str], views: Views) -> Judged:
    """Return rows of `data` that judge any of `models`.

    Args:
        models: the target's candidates, one a column. named: what `data` calls those it has; the others stay NaN.
    """
    quality, tokens = (np.full((len(data), len(models)), np.nan) for _ in range(2))
    for column, model in enumerate(models):
        if model in named:
            at = data.models.index(named[model])
            quality[:, column], tokens[:, column] = data.quality[:, at], data.output_tokens[:, at]
    keep = np.isfinite(quality).any(axis=1)
    prompts = [prompt for prompt, kept in zip(data.prompts, keep, strict=True) if kept]
    keys = tuple(key for key, kept in zip(data.question_keys, keep, strict=True) if kept)
    return Judged(views.see("static", prompts), quality[keep], tokens[keep], keys)


def fit_arm(arm: str, own: Judged, other: Judged, estimator: str, *, seed: int = 0) -> FittedHeads:
    """Fit heads of one arm; out-of-fold figures cover the own rows first, then the other's (of `OTHER`: the other's alone).

    Both sources' rows are pooled as if they were one traffic, or with an intercept for the other source that the
    exported heads leave out (`heads.fit_heads`).
    """
    if arm not in ARMS:
        raise InvalidInputError(f"arm: expected one of {', '.join(ARMS)}, got {arm!r}")
    rows = own if arm == OWN else other if arm == OTHER else _stack(own, other)
    source = np.repeat([0, 1], [len(own), len(other)]) if arm == LEVELLED else None
    with one_thread():
        return fit_heads(
            HeadRows(rows.x, rows.quality, rows.tokens, rows.keys, source=source),
            estimator=estimator,
            folds=FOLDS,
            seed=seed,
        )


def _stack(a: Judged, b: Judged) -> Judged:
    x, quality, tokens = (np.concatenate([getattr(a, name), getattr(b, name)]) for name in ("x", "quality", "tokens"))
    return Judged(x, quality, tokens, (*a.keys, *b.keys))
