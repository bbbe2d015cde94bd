"""What a policy does with prompts that are unlike the fitting data: one candidate answers, or the cheapest (docs/formats.md)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ipr_engine.decide.contract import CAUSE

UNSUPPORTED = CAUSE.index("unsupported")
BEST, CHEAPEST = "best", "cheapest"


class Unsupported(NamedTuple):
    """What a policy does with rows of little support.

    Attributes:
        min_support: rows whose support is below it, in [0, 1], are not decided by predicted quality; 0: none are.
        asked: "best", "cheapest" or a candidate's name; None where min_support is 0 and nothing was asked.
        candidate: who answers them; None: the cheapest on each prompt.
    """

    min_support: float = 0.0
    asked: str | None = None
    candidate: str | None = None

    def op_terms(self, names: Sequence[str], kept: Sequence[str]) -> dict[str, Any]:
        """DecidePolicy's arguments; kept: whom the caller's conditions leave."""
        if not self.min_support:
            return {}
        return {
            "min_support": self.min_support,
            "unsupported": -1 if self.candidate is None else names.index(self.candidate),
            "unsupported_allowed": np.array([name in kept for name in names], np.bool_),
        }

    def remarks(self) -> list[str]:
        """What a promise does not count, in words."""
        if not self.min_support:
            return []
        to = "the cheapest on each" if self.candidate is None else self.candidate
        return [f"prompts of support below {self.min_support:g} go to {to}, which this does not count"]


EVERY_ROW_PLAIN = Unsupported()
