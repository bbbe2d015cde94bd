"""This study sets unified heads against a family's own once more: with a forest, cross-fitted, on known datasets and on unknown ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ipr_engine.errors import InvalidInputError
from ipr_engine.measures.resampling import Estimate, estimate, grouped_folds, one_thread
from ipr_engine.measures.routing import Axis, WeightedOutcomes, single_curve
from ipr_engine.measures.sweeps import worth_grid, worth_sweep
from ipr_engine.training.fitted_heads import HeadRows, fit_heads, predict
from studies.bars import Series, intervals
from studies.cases import FOLDS
from studies.crossed import kept
from studies.equal_cost import holm, two_sided
from studies.families import FEWEST, SOURCES, along_axis, families_of
from studies.forest import Believed, Source, pooled, seen_with_surface, source_of
from studies.study import Study
from studies.trials import NANO

Array = npt.NDArray[np.float64]
Folds = npt.NDArray[np.int64]

MOST = 1500  # prompts of a source, both splits together
FEWEST_DATASETS = 3
IN, OUT = "known datasets", "unknown datasets"


def run(study: Study) -> list[Path]:
    page = study.page("family_forest", "Unified against family-specific heads, with a forest")
    page.say(
        f"""As in [families](families.md), a family's policy may choose among that family's candidates only. *Unified*: a
        `forest` on surface features fitted on all candidates of the source, then restricted. *Own*: one fitted on the
        family's candidates alone. Of each source at most {MOST} prompts, whole questions drawn by chance, both splits
        together. Every prompt is predicted by fits that have not seen its question. *{IN.capitalize()}*: {FOLDS} folds
        of questions. *{OUT.capitalize()}*: as many folds of whole datasets, so that no prompt of the dataset was fitted
        on; sources of {FEWEST_DATASETS} datasets or more. The figure is mean quality along the family's cost axis, in
        points, worth swept with predicted costs, unified minus own: above 0 other vendors' candidates help. 95 %
        intervals, {study.draws} paired draws of prompts with the whole of their question; bold: without zero. *p*: by
        Holm over all families, two-sided. *Brier*: that of unified minus that of own, below 0 is better."""
    )
    points: dict[str, dict[str, Array]] = {IN: {}, OUT: {}}
    briers: dict[str, dict[str, float]] = {IN: {}, OUT: {}}
    of_source: dict[str, dict[str, list[Array]]] = {IN: {}, OUT: {}}
    for case in study.cases(SOURCES):
        families = families_of(case.models)
        if not families:
            continue
        source = source_of(case, study.draws, MOST)
        x, width = seen_with_surface(study, source.prompts)
        members = {family: [case.models.index(model) for model in models] for family, models in families.items()}
        for way, folds in foldings(source).items():
            unified = predict_by_folds(x, width, source, folds)
            study.progress(f"{case.name}, {way}: unified")
            for family, at in members.items():
                one = _columns(source, at)
                own = predict_by_folds(x, width, one, folds)
                fits = (Believed(unified.quality[:, at], unified.cost[:, at]), own)
                shared, alone = (_along(one, fit) for fit in fits)
                name = f"{case.name}, {family}"
                points[way][name] = shared - alone
                briers[way][name] = float(np.diff([_brier(one, fit) for fit in reversed(fits)])[0])
                of_source[way].setdefault(case.name, []).append(shared - alone)
                study.progress(f"{case.name}, {way}: {family}")
    if not points[IN]:
        raise InvalidInputError(
            f"source: expected one with {FEWEST} candidates or more of one family, got {', '.join(study.sources) or study.outcomes}"
        )
    page.table(*_table(points, briers, of_source))
    found = {way: {name: estimate(values) for name, values in of.items()} for way, of in points.items()}
    plot = intervals(
        study.out / "family_forest.png",
        list(found[IN]),
        [Series(way, of) for way, of in found.items()],
        title="A forest on all candidates minus one on the family's own",
        axis="mean quality along the family's cost axis: difference in points, 95 % intervals\nright of zero: unified is better",
    )
    page.plot(plot, "Difference of mean quality along the cost axis, unified minus own, by family")
    page.figures.update(
        {
            way: {name: {"points": d.to_json(), "brier": briers[way][name]} for name, d in of.items()}
            for way, of in found.items()
        }
    )
    return [*page.write(study.out), plot]


def foldings(source: Source) -> dict[str, Folds]:
    """Return the fold of each row by each way of holding out; whole datasets only where there are enough."""
    ways = {IN: grouped_folds(source.keys, FOLDS, seed=1)}
    datasets = set(source.datasets)
    if len(datasets) >= FEWEST_DATASETS:
        ways[OUT] = grouped_folds(source.datasets, min(FOLDS, len(datasets)), seed=1)
    return ways


def predict_by_folds(x: Array, width: int, source: Source, folds: Folds) -> Believed:
    """Predict every row by a forest fitted on the other folds, without the questions that the row's fold asks too."""
    quality, cost = source.outcomes.quality, source.outcomes.cost
    made = Believed(np.empty_like(quality), np.empty_like(cost))
    for fold in np.unique(folds):
        out = folds == fold
        asked = set(kept(source.keys, out))
        fit = ~out & np.array([key not in asked for key in source.keys])
        rows = HeadRows(x[fit], quality[fit], cost[fit] * NANO, kept(source.keys, fit), surface_dim=x.shape[1] - width)
        with one_thread():
            heads = fit_heads(rows, estimator="forest")
            made.quality[out], nano = predict(heads.tensors, x[out], heads.activation)
        made.cost[out] = nano / NANO
    return made


def _columns(source: Source, at: Sequence[int]) -> Source:
    """Return the same prompts with some of the candidates only."""
    outcomes = source.outcomes
    return replace(source, outcomes=WeightedOutcomes.complete(outcomes.quality[:, at], outcomes.cost[:, at]))


def _along(source: Source, router: Believed) -> Array:
    """Return mean quality along the cost axis, in points, (1 + draws,)."""
    outcomes = source.outcomes
    choices = worth_sweep(router.quality, router.cost, worth_grid(outcomes.cost))
    singles = single_curve(outcomes, source.resamples)
    return along_axis(outcomes, source.resamples, Axis.of(outcomes), singles, choices)


def _brier(source: Source, router: Believed) -> float:
    return float(np.square(router.quality - source.outcomes.quality).mean())


def _table(
    points: Mapping[str, Mapping[str, Array]],
    briers: Mapping[str, Mapping[str, float]],
    of_source: Mapping[str, Mapping[str, Sequence[Array]]],
) -> tuple[list[str], list[list[str]]]:
    """Return the table of families, and of the mean over sources of the mean over a source's families."""
    adjusted = {
        way: dict(zip(of, holm([two_sided(values) for values in of.values()]), strict=True))
        for way, of in points.items()
    }
    rows = []
    for name in points[IN]:
        row = [name]
        for way, of in points.items():
            known = name in of
            row += [f"{_signed(estimate(of[name]))}, p {adjusted[way][name]:.2f}" if known else "one dataset or two"]
            row += [f"{briers[way][name]:+.4f}" if known else ""]
        rows.append(row)
    total = ["mean over sources"]
    for way in points:
        means = [np.mean(of, axis=0) for of in of_source[way].values()]
        total += [_signed(estimate(pooled(means))) if means else "", ""]
    return ["source, family", *(part for way in points for part in (f"{way}: points", "Brier"))], [*rows, total]


def _signed(d: Estimate) -> str:
    text = f"{d.value:+.2f} [{d.low:+.2f}, {d.high:+.2f}]"
    return f"**{text}**" if d.low > 0 or d.high < 0 else text
