"""`routing_help` routes the same prompts with a new candidate and without it, each predicted by fits that have not seen the prompt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ipr_engine._C import count_texts
from ipr_engine.bundle import Bundle, Price
from ipr_engine.bundle.context_windows import own_tokens
from ipr_engine.measures.curve_figures import CurveFigures
from ipr_engine.measures.resampling import Estimate, difference, estimate, grouped_folds
from ipr_engine.measures.routing import WeightedOutcomes, complete_rows, degenerate_axis
from ipr_engine.training.add.interface import old_measure, old_quality
from ipr_engine.training.add.path_column import FreshRows, Newcomer, fresh_column, unseen_rows
from ipr_engine.training.add.routing_help import RoutingHelp
from ipr_engine.training.fitted_parts import OutOfFold
from ipr_engine.training.selection import FEWEST_ROWS, PromptCosts, prompt_costs

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

HALVES = 2  # of the candidate's answers, whose figures are averaged


def routing_help(base: Bundle, new: Newcomer, price: Price, own: FreshRows | None, *, seed: int) -> RoutingHelp:
    """Say whether routing gains by a candidate.

    Its row is predicted as path rows have it: out of fold, leaning on the others' predictions out of fold, without imputed outcomes. The
    prompts are the bundle's own path rows where they are among the outcomes, else those that no head has seen.

    Args:
        own: of `path_column.own_rows`.
    """
    found = own if own is not None else unseen_rows(base, new)
    if found is None:
        return RoutingHelp(
            new.name, 0, why_not="no prompt on which the others are predicted by fits that have not seen it is judged"
        )
    if new.tokens is None:
        return RoutingHelp(new.name, 0, why_not="it has too few output tokens to know what its answers cost")
    known = [m for m in range(len(base.names)) if not np.isnan(found.others.quality[:, m]).any()]
    column = found.rows.models.index(new.called)
    quality = np.column_stack([old_quality(found.rows, base)[:, known], found.rows.quality[:, column]])
    tokens = np.column_stack(
        [old_measure(found.rows, base, "output_tokens")[:, known], found.rows.output_tokens[:, column]]
    )
    costs = _costs(base, new, price, found, known, tokens)
    full = np.flatnonzero(complete_rows(quality, costs.realised))
    if len(full) < FEWEST_ROWS or len(known) < 2:
        why = f"{len(full)} prompts have outcomes and output tokens of it and of {len(known)} others, fewer than {FEWEST_ROWS} or than 2"
        return RoutingHelp(new.name, len(full), why_not=why)
    outcomes = WeightedOutcomes.complete(quality[full], costs.realised[full])
    return _Beside(base, new, found, costs, seed).told(outcomes, known, full)


def _costs(base: Bundle, new: Newcomer, price: Price, found: FreshRows, known: list[int], tokens: Array) -> PromptCosts:
    """Price the prompts for the candidates known and the new one, the last."""
    listed = [*(base.candidates[m] for m in known), new.candidate]
    prices = replace(base.prices, prices={**base.prices.prices, new.name: price})
    own = own_tokens(listed, count_texts(list(found.rows.prompts)), found.billed)
    return prompt_costs(listed, prices, found.billed, own, tokens)


@dataclass(frozen=True, eq=False)
class _Beside:
    """A `_Beside` routes prompts with the new candidate and without. Its fields are those of `routing_help`, and the prompts' costs."""

    base: Bundle
    new: Newcomer
    found: FreshRows
    costs: PromptCosts
    seed: int

    def told(self, outcomes: WeightedOutcomes, known: list[int], full: Indices) -> RoutingHelp:
        """Judge on the rows `full`; outcomes: of the others `known` and of the new one there."""
        new, found = self.new, self.found
        judge = CurveFigures(outcomes.columns(range(len(known))), [found.rows.question_keys[row] for row in full])
        names = [self.base.names[m] for m in known]
        degenerate = degenerate_axis(judge.axis, judge.singles, names)
        if degenerate is not None:
            return RoutingHelp(new.name, outcomes.rows, why_not=degenerate)
        others = OutOfFold(found.others.quality[:, known], found.others.tokens[:, known])

        def figures(column: tuple[Array, Array] | None) -> Array:
            """Return cost and area of routing with a column for the new candidate, (2, 1 + draws); None leaves it out."""
            models = len(known) + (column is not None)
            both = others if column is None else OutOfFold(*map(np.column_stack, zip(others, column, strict=True)))
            rate = self.costs.output_rate[..., :models]
            expected = self.costs.of_input[:, :models] + rate * both.tokens
            realised = outcomes.columns(range(models))
            return judge.figures(judge.swept(both.quality[full], expected[full], realised))

        quality = found.rows.quality[:, found.rows.models.index(new.called)]
        tokens = found.rows.output_tokens[:, found.rows.models.index(new.called)]
        column = self._column(quality, tokens)
        if column is None:
            return RoutingHelp(new.name, outcomes.rows, why_not="too few of its answers are among these prompts")
        without, beside = figures(None), figures(column)
        doubling = self._from_half(quality, tokens, beside, figures)
        return RoutingHelp(
            new.name,
            outcomes.rows,
            names[judge.axis.best],
            tuple(map(estimate, without)),
            tuple(map(estimate, beside)),
            tuple(difference(a, b) for a, b in zip(beside, without, strict=True)),
            doubling,
        )

    def _column(self, quality: Array, tokens: Array) -> tuple[Array, Array] | None:
        return fresh_column(self.base, self.found, quality, tokens, like=self.new.like, seed=self.seed)

    def _from_half(
        self, quality: Array, tokens: Array, beside: Array, figures: Callable[[tuple[Array, Array]], Array]
    ) -> tuple[Estimate, ...]:
        """Return by how much the figures moved from half of the answers to all; nothing where a half is too few."""
        judged = np.flatnonzero(~np.isnan(quality))
        keys = [self.found.rows.question_keys[row] for row in judged]
        if len(set(keys)) < HALVES:
            return ()
        half_of = grouped_folds(keys, HALVES, self.seed)
        made = []
        for half in range(HALVES):
            hidden = judged[half_of != half]
            seen = [np.where(np.isin(np.arange(len(quality)), hidden), np.nan, table) for table in (quality, tokens)]
            column = self._column(*seen)
            if column is None:
                return ()
            made.append(figures(column))
        return tuple(difference(a, b) for a, b in zip(beside, np.mean(made, axis=0), strict=True))
