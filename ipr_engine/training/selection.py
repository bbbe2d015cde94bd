"""`ipr train` delivers the estimator that wins a cross-validation on the training rows, and no constant head unasked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ipr_engine.bundle import Candidate, PriceList
from ipr_engine.errors import InvalidInputError
from ipr_engine.measures.resampling import Resamples, drawn_questions, grouped_folds
from ipr_engine.measures.routing import (
    SHARE,
    Axis,
    WeightedOutcomes,
    bounded_arqgc,
    complete_rows,
    cost_kept,
    degenerate_axis,
    single_curve,
    sweep_curve,
)
from ipr_engine.measures.sweeps import rule_sweep, worth_grid, worth_sweep
from ipr_engine.policy.price_table import PriceTable
from ipr_engine.training.estimators.by_name import CLOSED_FORM
from ipr_engine.training.fitted_heads import FOLDS, FitRows, HeadRows, fit_heads, predict

Array = npt.NDArray[np.float64]

MOST_COMPARED = (
    20_000  # rows: a comparison fits every estimator ten times, and more rows tell no more of which is ahead
)
DRAWN = 2000  # seed of the draw, apart from those of folds
FEWEST_ROWS = 50  # complete rows that an area needs; with fewer the Brier score decides


@dataclass(frozen=True)
class EstimatorScore:
    """An `EstimatorScore` holds the figures of one estimator, one per repeat, of predictions whose fits never saw the row.

    Penalties and Platt's maps are a part of the fits.

    Attributes:
        area_worth, area_minmax: Bounded-ARQGC (docs/metrics.md) of the sweeps of worth and of tau; NaN without an axis.
        cost: what `SHARE` of the best single candidate's quality costs by the sweep of worth, over what that candidate costs. It is
            told and does not choose: docs/studies/choosing.md.
        brier: mean over judged pairs.
    """

    estimator: str
    area_worth: tuple[float, ...]
    area_minmax: tuple[float, ...]
    cost: tuple[float, ...]
    brier: tuple[float, ...]

    @property
    def area(self) -> float:
        """The mean of `area_worth` and `area_minmax` over the repeats; `winner` chooses by it."""
        return float(np.mean(self.area_worth) + np.mean(self.area_minmax)) / 2


@dataclass(frozen=True, eq=False)
class PromptCosts:
    """A `PromptCosts` holds what prompts cost in USD.

    Attributes:
        realised: (rows, models), the cost of the recorded answer, NaN where unknown.
        of_input: (rows, models), the cost of the prompt as the router would bill it.
        output_rate: (models,) or (rows, models), the cost of an output token.
    """

    realised: Array
    of_input: Array
    output_rate: Array

    def take(self, rows: npt.NDArray[np.bool_]) -> PromptCosts:
        """Return the rows of this mask."""
        rate = self.output_rate if self.output_rate.ndim == 1 else self.output_rate[rows]
        return PromptCosts(self.realised[rows], self.of_input[rows], rate)


def prompt_costs(
    listed: Sequence[Candidate],
    prices: PriceList,
    billed: Array,
    own: npt.NDArray[np.float32] | None,
    output_tokens: Array,
) -> PromptCosts:
    """Price the prompts, billed (rows,) by the encoder's tokenizer and (rows, models) by the candidates' own."""
    price_rows = [prices.prices[candidate.name] for candidate in listed]
    rates = PriceTable(price_rows, [candidate.token_ratio for candidate in listed])
    bills = rates.counted(billed.astype(np.int64), own)
    of_input = rates.cost(bills, np.zeros((1, len(listed))))
    return PromptCosts(rates.cost(bills, output_tokens), of_input, rates.out_rates(bills))


def compare_estimators(
    rows: HeadRows,
    costs: PromptCosts,
    *,
    estimators: Sequence[str] = CLOSED_FORM,
    names: Sequence[str] | None = None,
    repeats: int = 2,
    folds: int = 5,
    progress: Callable[[str], None] = lambda message: None,
) -> list[EstimatorScore]:
    """Score every estimator by nested, repeated cross-validation; every estimator sees the same folds.

    Of more than `MOST_COMPARED` rows it is taken on as many, drawn by question. Figures are taken on the rows of source 0 alone.
    names: of the candidates, for what is told.
    """
    if len(rows.x) > MOST_COMPARED:
        drawn = drawn_questions(rows.keys, MOST_COMPARED, seed=DRAWN)
        progress(
            f"estimators are compared on {int(drawn.sum())} of {len(drawn)} prompts, whole questions drawn by chance"
        )
        rows, costs = rows.take(drawn), costs.take(drawn)
    x, quality, at_home = rows.x, rows.quality, rows.at_home
    full = complete_rows(quality, costs.realised) & at_home
    outcomes = WeightedOutcomes.complete(quality[full], costs.realised[full]) if full.sum() >= FEWEST_ROWS else None
    figures: dict[str, list[tuple[float, ...]]] = {estimator: [] for estimator in estimators}
    for repeat in range(repeats):
        # Seeds apart from fit_heads' own: outer and inner folds are drawn independently.
        outer = grouped_folds(rows.keys, folds, seed=1000 + repeat)
        predicted, length = ({name: np.empty_like(quality) for name in estimators} for _ in range(2))
        for fold in range(folds):
            out = outer == fold
            ready = FitRows(rows.take(~out), FOLDS, repeat)  # once for all estimators
            for name in estimators:
                heads = fit_heads(ready, estimator=name)
                predicted[name][out], length[name][out] = predict(heads.tensors, x[out], heads.activation)
            progress(f"part {repeat * folds + fold + 1} of {repeats * folds} of the comparison is done")
        for name in estimators:
            expected = costs.of_input + costs.output_rate * length[name]  # (rows, models) USD
            error = float(np.nanmean(np.square(predicted[name] - quality)[at_home]))
            figures[name].append((*_routing(predicted[name][full], expected[full], outcomes), error))
    scores = []
    for name in estimators:
        worth, minmax, cost, brier = zip(*figures[name], strict=True)
        scores.append(EstimatorScore(name, worth, minmax, cost, brier))
        told = f"area {scores[-1].area:.3f}, cost at {SHARE:.0%} {np.mean(cost):.2f}"
        progress(f"{name}: {'area undefined' if np.isnan(scores[-1].area) else told}, Brier {np.mean(brier):.4f}")
    why = _no_area(outcomes, names or [f"candidate {m + 1}" for m in range(quality.shape[1])])
    if why is not None:
        progress(f"the area is undefined, so the Brier score chooses: {why}")
    return scores


def _no_area(outcomes: WeightedOutcomes | None, names: Sequence[str]) -> str | None:
    """Say why no estimator has an area; None where they have."""
    if outcomes is None:
        return f"fewer than {FEWEST_ROWS} prompts have a quality and a cost of every candidate"
    return degenerate_axis(Axis.of(outcomes), single_curve(outcomes, Resamples(outcomes.rows, draws=0)), names)


def _routing(predicted: Array, expected: Array, outcomes: WeightedOutcomes | None) -> tuple[float, float, float]:
    """Return the figures of `EstimatorScore` but the last; NaN where there are too few complete rows or no axis."""
    if outcomes is None:
        return np.nan, np.nan, np.nan
    once, axis = Resamples(outcomes.rows, draws=0), Axis.of(outcomes)
    singles = single_curve(outcomes, once)
    sweeps = (worth_sweep(predicted, expected, worth_grid(outcomes.cost)), rule_sweep(predicted, expected, "minmax"))
    curves = [sweep_curve(sweep, outcomes, once) for sweep in sweeps]
    worth, minmax = (float(bounded_arqgc(curve, axis, singles)[0]) for curve in curves)
    return worth, minmax, np.nan if np.isnan(worth) else float(cost_kept(curves[0], axis, singles)[0])


def as_json(scores: Sequence[EstimatorScore]) -> list[dict[str, object]]:
    """Return the scores for a bundle's provenance: means over the repeats, None where an area is not defined."""

    def mean(values: tuple[float, ...]) -> float | None:
        return None if np.isnan(values).any() else round(float(np.mean(values)), 6)

    return [
        {
            "estimator": score.estimator,
            "area_worth": mean(score.area_worth),
            "area_minmax": mean(score.area_minmax),
            "cost": mean(score.cost),
            "brier": mean(score.brier),
        }
        for score in scores
    ]


def winner(scores: Sequence[EstimatorScore]) -> str:
    """Return the estimator of greatest mean area; of least Brier score where no area is defined."""
    if not scores:
        raise InvalidInputError("estimators: expected at least one to choose from")
    if all(np.isnan(score.area) for score in scores):
        return min(scores, key=lambda score: float(np.mean(score.brier))).estimator
    return max(scores, key=lambda score: score.area).estimator


def refuse_constant(constant: Mapping[str, str], candidates: int, *, tasks: bool = False) -> None:
    """Raise InvalidInputError where a head is constant. tasks: whether heads were fitted with tasks, which may be what made it so."""
    if constant:
        first, reason = next(iter(constant.items()))
        without = (
            "fit without --task-column (task_column=None), for which there may be too few prompts; " if tasks else ""
        )
        raise InvalidInputError(
            f"outcomes: {len(constant)} of {candidates} heads are constant: out of fold they tell prompts apart no better than the "
            f"candidate's mean quality does: {', '.join(map(repr, constant))}. Of {first!r}: {reason}. Give more prompts, or prompts "
            "that differ for these candidates; see that question_key and splits are right (`ipr data check`); leave the candidates "
            f"out; {without}or deliver the heads marked as constant with --allow-constant (allow_constant=True)"
        )
