"""From embeddings and outcomes to the linear heads of a bundle: scores, calibration, output tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine.training.folds import grouped_folds
from ipr_engine.training.platt import fit_platt, fold_platt, sigmoid
from ipr_engine.training.ridge import fit_form
from ipr_engine.training.tokens import fit_tokens

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class LinearHeads:
    """Fitted heads of every candidate, in the order of the columns they were fitted on.

    Attributes:
        tensors: `skip`, `bias`, `len_skip`, `len_bias`, `len_cap` as docs/design.md section 6 names them, float32.
        rule_constants: {"hi", "lo"}: mean over rows of the greatest and least predicted quality, out of fold.
        out_of_fold_quality, out_of_fold_tokens: (rows, models), each row by ridge weights that have not seen its fold; the
            penalty, Platt's map and the smearing factor are fitted on all rows.
        folds: (rows,) fold numbers.
        settings: form, penalties, Platt's slopes and offsets, smearing factors.
    """

    tensors: dict[str, npt.NDArray[np.float32]]
    rule_constants: dict[str, float]
    out_of_fold_quality: Array
    out_of_fold_tokens: Array
    folds: npt.NDArray[np.int64]
    settings: dict[str, Any]


def fit_heads(
    x: Array, quality: Array, tokens: Array, keys: Sequence[str], *, form: str, folds: int = 5, seed: int = 0
) -> LinearHeads:
    """Fit linear quality and tokens heads on complete rows.

    Args:
        x: (rows, dim) embeddings. quality: (rows, models) in [0, 1]. tokens: (rows, models) output tokens >= 0.
        keys: (rows,) the question of each row; one question stays in one fold.
        form: one of ridge.FORMS. folds, seed: of the cross-validation that chooses penalties and feeds Platt's map.
    """
    fold_of_row = grouped_folds(keys, folds, seed)
    fit = fit_form(form, x, quality, fold_of_row)
    columns = range(quality.shape[1])
    maps = np.array([fit_platt(fit.out_of_fold[:, m], quality[:, m]) for m in columns])  # (models, 2)
    slope, offset = maps[:, 0], maps[:, 1]
    skip, bias = fold_platt(fit.weights, fit.bias, slope, offset)
    calibrated = sigmoid(slope * fit.out_of_fold + offset)
    length = fit_tokens(x, tokens, fold_of_row)
    tensors = {"skip": skip, "bias": bias, "len_skip": length.skip, "len_bias": length.bias, "len_cap": length.cap}
    return LinearHeads(
        {name: np.ascontiguousarray(value, dtype=np.float32) for name, value in tensors.items()},
        {"hi": float(calibrated.max(axis=1).mean()), "lo": float(calibrated.min(axis=1).mean())},
        calibrated,
        length.out_of_fold,
        fold_of_row,
        {
            "form": form,
            "folds": folds,
            "seed": seed,
            "penalties": fit.penalties,
            "platt_slope": slope.tolist(),
            "platt_offset": offset.tolist(),
            "smearing": length.smearing.tolist(),
        },
    )


def predict(tensors: dict[str, npt.NDArray[np.float32]], x: Array) -> tuple[Array, Array]:
    """Quality and output tokens, both (rows, models), of linear heads, in float64: docs/design.md section 3."""
    wide = {name: tensor.astype(np.float64) for name, tensor in tensors.items()}
    quality = sigmoid(x @ wide["skip"].T + wide["bias"])
    tokens = np.minimum(np.exp(x @ wide["len_skip"].T + wide["len_bias"]), wide["len_cap"])
    return quality, tokens
