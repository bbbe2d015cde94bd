"""A `CellChooser` says which (prompt, candidate) cells of an outcome table to buy next; an `AcquisitionPlan` how it spends.

The first round buys whole rows: every candidate on prompts in random order. Each later round asks which candidates a router fitted on
what is known would choose (`routed_shares.contender_shares`), and goes on down the same prompts with those that are chosen enough for
what they cost. Candidates that hardly any setting would choose are asked no more; they keep their rows. Which cells are
bought never depends on a prompt's own outcomes, only on the candidates' as a whole, so that the table stays a fair sample of prompts.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ipr_engine._validate import nonnegative
from ipr_engine.collection.acquisition_plan import AcquisitionPlan
from ipr_engine.collection.routed_shares import contender_shares, leading_directions
from ipr_engine.errors import InvalidInputError
from ipr_engine.measures.resampling import one_thread

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.int64]

FEWEST_ROWS = 40  # whole rows that later rounds need; `ipr train` needs 20 judged prompts of a candidate
ROUTED = 400  # prompts on which contenders are looked for


class CellChooser:
    """A `CellChooser` holds a table's prompts and expected costs, and chooses cells from what is known of their quality.

    It keeps no state of a collection: the same table gives the same cells, so that a collection that was interrupted goes on.

    Args:
        embeddings: (prompts, dim), finite. expected_cost: (prompts, models), USD, finite and > 0.
    Raises:
        InvalidInputError: shapes disagree, or a value is out of range.
    """

    def __init__(self, embeddings: Array, expected_cost: Array, plan: AcquisitionPlan | None = None) -> None:
        x, cost = np.asarray(embeddings, np.float64), np.asarray(expected_cost, np.float64)
        if x.ndim != 2 or cost.ndim != 2 or len(x) != len(cost) or not cost.size:
            raise InvalidInputError(
                "embeddings, expected_cost: expected (prompts, dim) and (prompts, models) of equal prompts > 0, "
                f"got {x.shape} and {cost.shape}"
            )
        if not np.isfinite(x).all():
            raise InvalidInputError("embeddings: expected finite values")
        if not (np.isfinite(cost) & (cost > 0)).all():
            raise InvalidInputError("expected_cost: expected finite values > 0; give a free candidate a small price")
        self.plan = AcquisitionPlan() if plan is None else plan
        self._cost = cost
        random = np.random.default_rng(self.plan.seed)
        self._order = random.permutation(len(x))
        self._routed = np.sort(random.permutation(len(x))[:ROUTED])
        with one_thread():
            self._z = leading_directions(x)

    def next(
        self, quality: Array, bought: Mask, budget_usd: float, *, most_calls: int | None = None
    ) -> tuple[Indices, Indices]:
        """Choose what to buy for `budget_usd` more.

        Args:
            quality: (prompts, models) in [0, 1], NaN where unknown. bought: (prompts, models), what was asked, answered or not.
            budget_usd: what the cells may cost, by their expected costs, >= 0.
            most_calls: so many cells at most; None: what the plan's share of all cells leaves.
        Returns:
            The rows and the columns of the cells, (cells,) each, in the order to buy them: no cell that was bought, none twice, prompt
            by prompt. They are empty where the next prompt's cells cost more than the budget, or everything worth buying is bought.
        Raises:
            InvalidInputError: shapes disagree, or a value is out of range.
        """
        quality, bought = self._checked(quality, bought)
        budget = nonnegative("budget_usd", budget_usd)
        calls = int(self.plan.calls_share * bought.size) - int(bought.sum()) if most_calls is None else most_calls
        wanted = self.contenders(quality, bought)
        return self._walk(wanted, bought, budget, calls)

    def contenders(self, quality: Array, bought: Mask) -> Mask:
        """Return which candidates are worth buying next, (models,); all of them before enough whole rows are known."""
        quality, bought = self._checked(quality, bought)
        known = ~np.isnan(quality)
        if known.all(axis=1).sum() < min(FEWEST_ROWS, len(known)) or known.sum(axis=0).min() < 2:
            return np.ones(quality.shape[1], np.bool_)
        plan = self.plan
        with one_thread():
            share = contender_shares(
                self._z, quality, self._cost, self._routed, draws=plan.draws, seed=plan.seed + int(bought.sum())
            )
        mean = self._cost.mean(axis=0)
        expense = mean / mean.sum()
        return np.asarray(share >= plan.least * expense) & (share > 0)

    def _walk(self, wanted: Mask, bought: Mask, budget: float, calls: int) -> tuple[Indices, Indices]:
        """Go down the prompts with the wanted candidates until the money or the calls run out."""
        asked = wanted & ~bought[self._order]  # (prompts, models), in the order of buying
        spent = np.cumsum(np.where(asked, self._cost[self._order], 0.0).sum(axis=1))
        whole = (spent <= budget) & (np.cumsum(asked.sum(axis=1)) <= calls)
        place, columns = np.nonzero(asked[: int(whole.sum())])
        return self._order[place], columns

    def _checked(self, quality: Array, bought: Mask) -> tuple[Array, Mask]:
        q, b = np.asarray(quality, np.float64), np.asarray(bought)
        if q.shape != self._cost.shape or b.shape != self._cost.shape or b.dtype != np.bool_:
            raise InvalidInputError(
                f"quality, bought: expected {self._cost.shape} of float and bool, got {q.shape} and {b.shape} of {b.dtype}"
            )
        if ((q < 0) | (q > 1)).any():
            raise InvalidInputError("quality: expected values in [0, 1], NaN where unknown")
        return q, b
