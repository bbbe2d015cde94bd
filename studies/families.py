"""This study sets unified heads against a family's own: fitting other vendors' candidates along helps or hurts a family's policy."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from ipr_engine.errors import InvalidInputError
from ipr_engine.measures.resampling import Estimate, Resamples, difference, estimate
from ipr_engine.measures.routing import Axis, Curve, WeightedOutcomes, bounded_arqgc, oracle_quality, sweep_curve
from studies.bars import Series, intervals
from studies.cases import WITH_COSTS, Case
from studies.study import Study
from studies.trials import (
    Prediction,
    area,
    brier,
    fit_and_predict,
    hull_area,
    shown,
    shown_difference,
    sweep,
)

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.integer]

ESTIMATORS = ("caps", "advantage_shared", "paper")
NETWORK_PROMPTS = (
    3000  # the network only where there are no more training prompts: a minute a fit and not a quarter of an hour
)
VIEW = "static"
FEWEST = 3
SOURCES = tuple("zeroeval_wide" if name == "zeroeval" else name for name in WITH_COSTS)

# A family is one vendor's line as its own name says it; derivatives by others (Nemotron, Hermes, WizardLM) are none of it.
FAMILIES: Mapping[str, re.Pattern[str]] = MappingProxyType(
    {
        family: re.compile(pattern, re.IGNORECASE)
        for family, pattern in (
            ("Claude", r"^claude"),
            ("GPT", r"^(chat)?gpt-"),
            ("Gemini", r"^gemini"),
            ("Gemma", r"^(google[/_])?gemma"),
            ("Llama", r"^(meta(-llama)?[/_])?(meta-)?(code-)?llama"),
            ("Mistral", r"^(mistralai/|open-)?(mistral|mixtral|mathstral)"),
            ("Qwen", r"^(qwen/)?(qwen|qwq)"),
        )
    }
)


def family_of(model: str) -> str | None:
    """Return the family a candidate's name tells, None for any other.

    Example:
        >>> family_of("meta-llama/Meta-Llama-3.1-70B-Instruct"), family_of("nvidia/Llama-3.1-Nemotron-70B-Instruct-HF")
        ('Llama', None)
    """
    return next((family for family, pattern in FAMILIES.items() if pattern.match(model)), None)


def families_of(models: Sequence[str]) -> dict[str, list[str]]:
    """Return families with at least FEWEST candidates among `models`, in the order of FAMILIES."""
    members = {family: [model for model in models if family_of(model) == family] for family in FAMILIES}
    return {family: named for family, named in members.items() if len(named) >= FEWEST}


def run(study: Study) -> list[Path]:
    page = study.page("families", "Unified against family-specific heads")
    page.say(
        f"""A family's policy may choose among that family's candidates only. *Unified*: heads fitted on all candidates of
        the source, then restricted. *Own*: heads fitted on the family's candidates alone, on the same prompts.
        Bounded-ARQGC on the family's own axis (docs/metrics.md section 3: its cheapest candidate = 0, its best = 1),
        worth swept with predicted costs, {VIEW} encoder, test split, {study.draws} paired bootstrap resamples of
        prompts, 95 % intervals; bold: an interval that excludes zero. Where a family's cheapest and best candidate are
        nearly level the area divides by next to nothing; *in points* is the same difference undivided: of mean quality
        along the cost axis, per cent. Every family with at least {FEWEST} candidates in a source with costs. Plain
        ridge has no table: it fits each candidate by itself, so both are the same heads. `paper` is the paper's
        network, where one trunk serves all candidates (one seed; sources of up to {NETWORK_PROMPTS} training prompts)."""
    )
    figures: dict[str, dict[str, dict[str, Array]]] = {}
    differences: dict[str, dict[str, Estimate]] = {estimator: {} for estimator in ESTIMATORS}
    rows: dict[str, list[list[str]]] = {estimator: [] for estimator in ESTIMATORS}
    members: list[list[str]] = []
    for case in study.cases(SOURCES):
        families = families_of(case.models)
        if not families:
            continue
        x = [study.views.see(VIEW, part.data.prompts) for part in (case.train, case.test)]
        own = {family: case.columns(models) for family, models in families.items()}
        members += [[case.name, family, _range(one), ", ".join(one.models)] for family, one in own.items()]
        for estimator in ESTIMATORS:
            if estimator == "paper" and case.train.outcomes.rows > NETWORK_PROMPTS:
                continue
            study.progress(f"{case.name}: {estimator}, unified ...")
            unified = fit_and_predict(case, x[0], x[1], estimator)
            for family, one in own.items():
                study.progress(f"{case.name}: {estimator}, {family} ...")
                fits = {
                    "unified": restricted(unified, [case.models.index(model) for model in one.models]),
                    "own": fit_and_predict(one, x[0], x[1], estimator),
                }
                sweeps = {name: sweep(fit, "worth") for name, fit in fits.items()}
                areas = {name: area(one, choices) for name, choices in sweeps.items()} | {"hull": hull_area(one)}
                points = {
                    name: along_axis(one.test.outcomes, one.resamples, one.axis, one.singles, choices)
                    for name, choices in sweeps.items()
                }
                figures.setdefault(f"{case.name}, {family}", {})[estimator] = areas
                differences[estimator][f"{case.name}, {family}"] = difference(points["unified"], points["own"])
                rows[estimator].append(
                    [
                        case.name,
                        family,
                        *(shown(areas[name]) for name in ("unified", "own")),
                        shown_difference(areas["unified"], areas["own"]),
                        shown_difference(points["unified"], points["own"], digits=2),
                        shown(areas["hull"]),
                        f"{brier(fits['unified'], one) - brier(fits['own'], one):+.4f}",
                    ]
                )
    if not members:
        raise InvalidInputError(
            f"source: expected one with {FEWEST} candidates or more of one family, got {', '.join(study.sources) or study.outcomes}"
        )
    for estimator in ESTIMATORS:
        page.say(f"## `{estimator}`")
        page.say(_verdict(differences[estimator]))
        header = [
            "source",
            "family",
            "unified",
            "own",
            "unified - own",
            "in points",
            "hull of its singles",
            "Brier difference",
        ]
        page.table(header, rows[estimator])
    plot = intervals(
        study.out / "families.png",
        list(figures),
        [Series(estimator, differences[estimator]) for estimator in ESTIMATORS],
        title="Unified heads minus the family's own",
        axis="mean quality along the family's cost axis: difference in points, 95 % bootstrap intervals\n"
        "right of zero: unified is better",
    )
    page.plot(plot, "Difference of mean quality along the cost axis, unified minus own, by family")
    page.say("## Who is in a family")
    page.table(["source", "family", "cheapest to best on train", "candidates"], members)
    for name, by in figures.items():
        page.figures[name] = {
            estimator: {key: estimate(values).to_json() for key, values in areas.items()}
            | {
                "unified - own": difference(areas["unified"], areas["own"]).to_json(),
                "unified - own, points": differences[estimator][name].to_json(),
            }
            for estimator, areas in by.items()
        }
    return [*page.write(study.out), plot]


def along_axis(outcomes: WeightedOutcomes, resamples: Resamples, axis: Axis, singles: Curve, choices: Indices) -> Array:
    """Return mean quality along the cost axis, per cent, (1 + draws,): the area before it is normalised, NaN without a cost range."""
    top = oracle_quality(outcomes, resamples)
    floor = singles.quality[:, axis.cheapest]
    curve = sweep_curve(choices, outcomes, resamples)
    return np.asarray(100 * (floor + (top - floor) * bounded_arqgc(curve, axis, singles, top=top)))


def restricted(prediction: Prediction, columns: Sequence[int]) -> Prediction:
    """Return the same beliefs about some of the candidates."""
    at = list(columns)
    return Prediction(
        prediction.quality[:, at], prediction.cost[:, at], prediction.train_quality[:, at], prediction.train_cost[:, at]
    )


def _range(case: Case) -> str:
    """Say how long and high the axis is on test: a short one makes wide intervals."""
    quality, cost = case.test.quality.mean(axis=0), case.test.cost.mean(axis=0)
    low, high = case.axis.cheapest, case.axis.best
    return (
        f"{case.models[low]} ({quality[low]:.3f} at {1000 * cost[low]:.3g} USD per 1,000) to "
        f"{case.models[high]} ({quality[high]:.3f} at {1000 * cost[high]:.3g})"
    )


def _verdict(differences: Mapping[str, Estimate]) -> str:
    better = [name for name, d in differences.items() if d.low > 0]
    worse = [name for name, d in differences.items() if d.high < 0]
    parts = [
        f"unified is {word} in {len(names)} ({'; '.join(names)})"
        for word, names in (("better", better), ("worse", worse))
        if names
    ]
    apart = "; ".join(parts) or "none is told apart from zero"
    median = np.nanmedian([d.value for d in differences.values()])
    return f"Of {len(differences)} families, in points, intervals that exclude zero: {apart}. Median difference {median:+.2f} points."
