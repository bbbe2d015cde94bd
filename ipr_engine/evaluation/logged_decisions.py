"""`LoggedDecisions` are recorded decisions that chance had a say in, each with its score and what another policy or bundle chooses."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
UNSCORED, NO_ID = "without a score", "without an id"
NO_CHANCE = "chance had no say: without exploration"
FAILED = "another candidate answered than was asked"
UNDECIDED = "nobody is chosen now"
BEYOND = "the candidate chosen now was not eligible"


@dataclass
class LoggedDecisions:
    """A `LoggedDecisions` holds one row a decision that can be used, columns by candidate.

    Attributes:
        models: of columns: the candidates of the bundle that decides now, then others that were recorded.
        scores, propensity: of the candidate that was asked, and its chance. logged: its column.
        target, recorded: columns of the choice now, and of the recorded policy's.
        predicted, expected_usd: (rows, models) qualities and costs as they are predicted now; of a candidate that is not known now
            0, and NaN.
        cost_usd: as it was billed, NaN where scores do not tell.
        texts: what the encoder reads of each prompt, None where it is not kept.
        groups: rows of one conversation have one number.
        left_out: reason -> records. refused: why records were not decided again -> records. records: lines in all.
        by_figures: rows decided from recorded figures, without the heads.
    """

    models: tuple[str, ...]
    scores: Floats
    propensity: Floats
    logged: npt.NDArray[np.int64]
    target: npt.NDArray[np.int64]
    recorded: npt.NDArray[np.int64]
    predicted: Floats
    expected_usd: Floats
    cost_usd: Floats
    texts: tuple[str | None, ...]
    groups: npt.NDArray[np.int64]
    left_out: Counter[str]
    refused: Counter[str]
    records: int
    by_figures: int

    def __len__(self) -> int:
        return len(self.scores)

    def chances(self, chosen: npt.NDArray[np.int64]) -> Floats:
        """Return (rows, models), 1 for the chosen candidate."""
        return np.eye(len(self.models))[chosen]
