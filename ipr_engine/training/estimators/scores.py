"""What every estimator gives back: quality scores in the packed form that `decide` runs, not yet calibrated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Scores:
    """Quality scores before calibration, in the packed form of docs/design.md section 3 (the logit, before the sigmoid).

    Attributes:
        tensors: float64 by the bundle's names: skip (models, dim), bias (models,), trunk (hidden, dim), identity (models,
            hidden), up (models, hidden, rank), down (models, rank, dim), out (models, hidden); those that exist.
        activation: "relu", "silu" or "gelu" (gelu = tanh form, ipr_engine/decide/reference.py).
        out_of_fold: (rows, models), each row's score by a fit that has not seen its fold.
        settings: plain JSON types.
    """

    tensors: Mapping[str, Array]
    activation: str
    out_of_fold: Array
    settings: dict[str, Any]
