"""An `AcquisitionPlan` says how a part of an outcome table is bought (`acquisition.CellChooser`)."""

from __future__ import annotations

from dataclasses import dataclass

from ipr_engine._validate import nonnegative, random_seed, shown, unit_interval
from ipr_engine.errors import InvalidInputError


@dataclass(frozen=True, kw_only=True)
class AcquisitionPlan:
    """An `AcquisitionPlan` says how a budget is spent.

    Attributes:
        first_share: of the budget, in (0, 1]: what whole rows of the first round cost. 1 buys whole rows alone.
        rounds: in all, >= 1. Every later round spends an equal part of what is left.
        calls_share: of all cells, in (0, 1]: no more than these are bought.
        least: in [0, 1]: a candidate is bought where its share of the routed prompts over its share of the expense is at least this.
        draws: from the posterior, >= 1. seed: of the order of prompts and of the draws.
    """

    first_share: float = 0.3
    rounds: int = 5
    calls_share: float = 1.0
    least: float = 0.03
    draws: int = 24
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("first_share", "calls_share", "least"):
            value = unit_interval(name, getattr(self, name))
            if name != "least" and not value:
                raise InvalidInputError(f"{name}: expected a value above 0, got {value}")
        for name in ("rounds", "draws"):
            count = getattr(self, name)
            if type(count) is not int or count < 1:
                raise InvalidInputError(f"{name}: expected an int >= 1, got {shown(count)}")
        random_seed("seed", self.seed)

    def budgets(self, total_usd: float) -> tuple[float, ...]:
        """Return what each round may spend, in USD; all together `total_usd`."""
        total = nonnegative("total_usd", total_usd)
        if self.rounds == 1:
            return (total,)
        later = total * (1 - self.first_share) / (self.rounds - 1)
        return (total * self.first_share, *[later] * (self.rounds - 1))
