"""A plan asks one candidate, checks its answer, and asks a dearer one where the check fires: an option more, with its price.

What a plan is worth and what it costs are expectations before anything is asked: of the plan's own quality, and of both calls with the
second as often as the check is expected to fire. Both are predicted from the prompt's embedding, by heads that have not seen the
prompt's fold. So a plan is chosen where its objective is the least, as any candidate is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ipr_engine.measures.routing import WeightedOutcomes
from studies.checked_answers import CheckedAnswers
from studies.crossed import FOLDS, crossed, folds_of, predict_others

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Plan:
    """A `Plan` names candidates by column.

    Attributes:
        first: is asked. second: is asked, and answers, where the check fires.
        also: is asked with the first, for the check alone; None: nobody is.
        share: of the prompts on which the check is to fire, where it has a threshold; None where it has none.
        unless: the second is asked where the check does *not* fire: what fires is taken as the answer.
    """

    first: int
    second: int
    also: int | None = None
    share: float | None = None
    unless: bool = False

    def named(self, models: Sequence[str]) -> str:
        """Return the plan in words, the second candidate after the first."""
        first, second = (models[m].removeprefix("claude-") for m in (self.first, self.second))
        when = "unless it fires" if self.unless else "if it fires"
        return f"{first}, then {second} {when}"


@dataclass(frozen=True, eq=False)
class Check:
    """A `Check` is plans, and where each of them asks its second candidate.

    Attributes:
        name: shown. plans: (plans,). price: USD of one check.
        fires: takes answers and the rows (rows,) that may be fitted on; gives (rows, plans), 1 where the second is asked. Rows that may
            be fitted on are out of fold.
    """

    name: str
    plans: tuple[Plan, ...]
    fires: Callable[[CheckedAnswers, Mask], Array]
    price: float = 0.0

    def before(self, cost: Array) -> Array:
        """Return what plans cost before the check has spoken, (rows, plans): calls and the check. cost: (rows, models or more)."""
        columns = [cost[:, p.first] + (0.0 if p.also is None else cost[:, p.also]) + self.price for p in self.plans]
        return np.stack(columns, axis=1)

    @property
    def seconds(self) -> list[int]:
        return [plan.second for plan in self.plans]


@dataclass(frozen=True, eq=False)
class PricedOptions:
    """`PricedOptions` are what a router chooses from: candidates first, then plans, (rows, options) each.

    Attributes:
        quality, cost: predicted, each row by a fit that has not seen its question. outcomes: what really came of it.
    """

    quality: Array
    cost: Array
    outcomes: WeightedOutcomes


def cross_fit(answers: CheckedAnswers, check: Check | None) -> PricedOptions:
    """Predict candidates and plans fold by fold. check: None for candidates alone."""
    if check is None:
        return PricedOptions(*crossed(answers.x, answers.outcomes, answers.keys), answers.outcomes)
    folds = folds_of(answers.keys)
    count = len(answers.models) + len(check.plans)
    quality, cost, real_quality, real_cost = (np.empty((answers.rows, count)) for _ in range(4))
    for fold in range(FOLDS):
        fit, out = folds != fold, folds == fold
        fires = check.fires(answers, fit)
        real = realised(answers, check, fires)
        quality[out], cost[out] = predict_options(answers, check, fires, fit)
        real_quality[out], real_cost[out] = real.quality[out], real.cost[out]
    return PricedOptions(quality, cost, WeightedOutcomes.complete(real_quality, real_cost))


def realised(answers: CheckedAnswers, check: Check, fires: Array) -> WeightedOutcomes:
    """Return what candidates and plans were worth and cost, (rows, models + plans)."""
    first = answers.quality[:, [plan.first for plan in check.plans]]
    quality = np.where(fires > 0, answers.quality[:, check.seconds], first)
    cost = check.before(answers.cost) + fires * answers.cost[:, check.seconds]
    return WeightedOutcomes.complete(
        np.concatenate([answers.quality, quality], axis=1), np.concatenate([answers.cost, cost], axis=1)
    )


def predict_options(answers: CheckedAnswers, check: Check, fires: Array, fit: Mask) -> tuple[Array, Array]:
    """Predict quality and cost of the rows that are not fitted on, (other rows, models + plans) each.

    Qualities of candidates and plans are fitted together. Costs of calls come from the candidates' own heads; a plan's second call is
    weighed by the chance that it is asked.
    """
    real = realised(answers, check, fires)
    quality, cost = predict_others(answers.x, real.quality, real.cost, answers.keys, fit)
    chance, _ = predict_others(answers.x, fires, fires, answers.keys, fit)
    plans = check.before(cost) + chance * cost[:, check.seconds]
    return quality, np.concatenate([cost[:, : len(answers.models)], plans], axis=1)
