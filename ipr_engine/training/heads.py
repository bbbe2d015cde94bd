"""From embeddings and outcomes to the heads of a bundle: scores, calibration, output tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ipr_engine.decide.contract import Heads
from ipr_engine.decide.reference import predict_logit, predict_tokens
from ipr_engine.training.estimators import fit_scores
from ipr_engine.training.folds import grouped_folds
from ipr_engine.training.intercepts import drop_intercepts, with_intercepts
from ipr_engine.training.platt import fit_platt, fold_platt, sigmoid
from ipr_engine.training.tokens import fit_tokens

if TYPE_CHECKING:
    from ipr_engine.training.checkpoint import RunState

Array = npt.NDArray[np.float64]
Tensors = dict[str, npt.NDArray[np.float32]]

# Rows of source 0 that a level or a map can be taken from; a handful would make a constant of a head
FEWEST_AT_HOME = 20
MOST_AT_ONCE = 1 << 22  # numbers of the hidden layer in `predict`: bounds its memory at some 32 MB


@dataclass(frozen=True)
class FittedHeads:
    """Fitted heads of every candidate, in the order of the columns they were fitted on.

    Attributes:
        tensors: of the quality head (skip, bias, trunk, identity, up, down, out: those the estimator has) and the tokens
            head (len_skip, len_bias, len_cap), as docs/design.md section 6 names them, float32.
        activation: of the hidden layer.
        rule_constants: {"hi", "lo"}: mean over rows of the greatest and least predicted quality, out of fold.
        out_of_fold_quality, out_of_fold_tokens: (rows, models), each row by a fit that has not seen its fold; penalties,
            Platt's map and the smearing factor are fitted on all rows.
        folds: (rows,) fold numbers.
        settings: the estimator's, Platt's slopes and offsets, smearing factors; plain JSON types.
    """

    tensors: Tensors
    activation: str
    rule_constants: dict[str, float]
    out_of_fold_quality: Array
    out_of_fold_tokens: Array
    folds: npt.NDArray[np.int64]
    settings: dict[str, Any]


def fit_heads(
    x: Array,
    quality: Array,
    tokens: Array,
    keys: Sequence[str],
    *,
    estimator: str,
    options: Mapping[str, Any] = MappingProxyType({}),
    source: npt.NDArray[np.int64] | None = None,
    folds: int = 5,
    seed: int = 0,
    run: RunState | None = None,
    progress: Callable[[str], None] = lambda message: None,
) -> FittedHeads:
    """Fit quality and tokens heads; calibrate quality per candidate, out of fold; fold the calibration in.

    Args:
        x: (rows, dim) embeddings. quality: (rows, models) in [0, 1], NaN where not judged.
        tokens: (rows, models) output tokens >= 0, NaN where unknown.
        keys: (rows,) the question of each row; one question stays in one fold.
        estimator, options: see `estimators.fit_scores`.
        source: (rows,) number of the source of each row, None for one source. Sources differ in level: each but number 0
            gets an intercept of its own, which the exported heads leave out, so they speak of source 0.
        folds, seed: of the cross-validation that chooses penalties and feeds Platt's map.
    """
    fold_of_row = grouped_folds(keys, folds, seed)
    dim = x.shape[1]
    seen = with_intercepts(x, source)  # (rows, dim + sources - 1)
    scores = fit_scores(
        estimator,
        seen,
        quality,
        fold_of_row,
        linear_only=seen.shape[1] - dim,
        options=options,
        seed=seed,
        run=run,
        progress=progress,
    )
    at_home = np.ones(len(x), np.bool_) if source is None else source == 0
    slope, offset = _calibrate(scores.out_of_fold, quality, at_home)
    calibrated = sigmoid(slope * scores.out_of_fold + offset)
    length = fit_tokens(seen, tokens, fold_of_row, at_home)
    tensors = {
        **fold_platt(drop_intercepts(scores.tensors, dim), slope, offset),
        "len_skip": length.skip[:, :dim],
        "len_bias": length.bias,
        "len_cap": length.cap,
    }
    home = calibrated[at_home]
    return FittedHeads(
        {name: np.ascontiguousarray(value, dtype=np.float32) for name, value in tensors.items()},
        scores.activation,
        {"hi": float(home.max(axis=1).mean()), "lo": float(home.min(axis=1).mean())},
        calibrated,
        length.out_of_fold,
        fold_of_row,
        {
            "estimator": estimator,
            "folds": folds,
            "seed": seed,
            **scores.settings,
            "platt_slope": slope.tolist(),
            "platt_offset": offset.tolist(),
            "smearing": length.smearing.tolist(),
        },
    )


def _calibrate(score: Array, quality: Array, at_home: npt.NDArray[np.bool_]) -> tuple[Array, Array]:
    """Platt's slope and offset (models,), each on its `calibration_rows`."""
    rows = calibration_rows(quality, at_home)
    maps = [fit_platt(score[rows[:, m], m], quality[rows[:, m], m]) for m in range(quality.shape[1])]
    slopes, offsets = zip(*maps, strict=True)
    return np.array(slopes), np.array(offsets)


def calibration_rows(quality: Array, at_home: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """(rows, models): a candidate's judged rows of source 0 where these are enough, else all its judged rows."""
    judged = ~np.isnan(quality)
    home = judged & at_home[:, None]
    return np.where(home.sum(axis=0) >= FEWEST_AT_HOME, home, judged)


def predict(tensors: Mapping[str, npt.NDArray[Any]], x: Array, activation: str = "relu") -> tuple[Array, Array]:
    """Quality and output tokens, both (rows, models), in float64 by the reference: docs/design.md section 3."""
    heads = Heads(**tensors, activation=activation)  # type: ignore[arg-type]  # checked by Heads
    width = max(1, tensors["out"].size if "out" in tensors else 1)
    parts = np.array_split(x, max(1, -(-len(x) * width // MOST_AT_ONCE)))
    logit = np.concatenate([predict_logit(heads, part) for part in parts])
    return sigmoid(logit), predict_tokens(heads, x)
