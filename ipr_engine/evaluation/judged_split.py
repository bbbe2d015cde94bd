"""One split of an evaluation: what happened on its prompts, and what the router under test says of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ipr_engine.measures.routing import WeightedOutcomes

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Split:
    """One split: outcomes and what the router sees and believes; every array has the split's rows.

    Attributes:
        x: (rows, dim) embeddings, for the baselines that need some.
        groups: (rows,) question keys; copies of one question share one.
        predicted, predicted_cost: (rows, models) of the router under test.
        sweeps: name -> choices (points, rows) of the router under test, the cheap end first; the same in both splits.
        tokens, predicted_tokens: (rows, models) output tokens, None where unknown.
    """

    outcomes: WeightedOutcomes
    x: Array
    groups: Sequence[str]
    predicted: Array
    predicted_cost: Array
    sweeps: Mapping[str, Indices]
    tokens: Array | None = None
    predicted_tokens: Array | None = None
