"""Every estimator takes `FoldedRows` and gives back `Scores`: quality scores in the packed form that `decide` runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine.training.estimators.ridge import Grams

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class FoldedRows:
    """`FoldedRows` are judged rows, each in a fold.

    Attributes:
        x: (rows, dim) embeddings, of any float type. quality: (rows, models) in [0, 1], NaN where not judged.
        folds: (rows,) fold numbers; `Scores.out_of_fold` comes from as many fits.
        linear_only: trailing columns of x that only shift scores (source intercepts): no region or kink may use them.
        grams: of x and folds, where other fits share them.
        surface: (rows, s) what stands behind the embedding in x of docs/decide.md, of which x here has no column: features that
            trees alone read. source: (rows,) number of the source of each row, 0 is home. None of either: none.
        head_dim: how many columns of x before `linear_only` are a head view.
        copies: how often each prompt stands in the rows: as many rows tell no more than one does.
    """

    x: npt.NDArray[np.floating]
    quality: Array
    folds: npt.NDArray[np.int64]
    linear_only: int = 0
    grams: Grams | None = None
    surface: npt.NDArray[np.floating] | None = None
    source: npt.NDArray[np.int64] | None = None
    head_dim: int = 0
    copies: int = 1


@dataclass(frozen=True)
class Scores:
    """`Scores` are quality scores before calibration, in the packed form of docs/decide.md (the logit, before the sigmoid).

    Attributes:
        tensors: float64 by the bundle's names: skip (models, dim), bias (models,), trunk (hidden, dim), identity (models,
            hidden), up (models, hidden, rank), down (models, rank, dim), out (models, hidden), tree_threshold and tree_leaf,
            and tree_column, int32, of x with the surface behind; those that exist.
        activation: "relu", "silu" or "gelu" (gelu = tanh form, ipr_engine/decide/reference.py).
        out_of_fold: (rows, models), each row's score by a fit that has not seen its fold.
        settings: plain JSON types.
    """

    tensors: Mapping[str, Array]
    activation: str
    out_of_fold: Array
    settings: dict[str, Any]
