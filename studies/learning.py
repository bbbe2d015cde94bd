"""Study (e) shows how area and Brier grow with training prompts, for the shipped estimator and its peers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine.measures.resampling import difference, estimate
from studies import plots
from studies.cases import Case
from studies.pages import Page
from studies.study import Study
from studies.trials import (
    Prediction,
    area,
    brier,
    fit_and_predict,
    fit_baseline,
    hull_area,
    shown,
    shown_difference,
    sweep,
)

Array = npt.NDArray[np.float64]

SOURCES = ("cascade9", "routerbench_sub", "zeroeval", "mmlu_pro")
ESTIMATORS = ("caps", "advantage_shared", "plain", "kNN", "k-means")
BASELINES = ("kNN", "k-means")
SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1)
SEEDS = 4
FEWEST = 60  # training prompts: fewer leave folds without an outcome of some kind


@dataclass
class LearningPoint:
    """A `LearningPoint` is one estimator on one share of the training prompts.

    Attributes:
        areas: one (1 + draws,) a seed. briers: one a seed.
    """

    areas: list[Array] = field(default_factory=list)
    briers: list[float] = field(default_factory=list)

    @property
    def area(self) -> Array:
        """Return the mean over seeds, (1 + draws,): the draws stay paired."""
        return np.asarray(np.mean(self.areas, axis=0))


Curves = Mapping[str, Mapping[int, LearningPoint]]  # {estimator: {training prompts: point}}


def run(study: Study) -> list[Path]:
    page = study.page("learning", "What more training prompts buy")
    page.say(
        f"""Heads fitted on nested random parts of the training split (all copies of a question together), {SEEDS} random
        orders, on the static encoder. Bounded-ARQGC (docs/metrics.md section 3) on the whole test split, between the two
        candidates that the whole training split names, worth swept with predicted costs; mean over the orders, with the
        95 % interval of {study.draws} paired bootstrap resamples of the test prompts (other test prompts, the same draws of
        training prompts), and *sd*, the standard deviation over the orders. kNN and k-means as in `ipr eval`; `plain` is
        ridge with Platt's map. Bold: an interval that excludes zero."""
    )
    panels = {}
    for case in study.cases(SOURCES):
        found = curves(case, study)
        page.figures[case.name] = _json(found)
        _tables(page, case, found)
        panels[case.name] = {
            "Bounded-ARQGC": {e: _line({n: [float(a[0]) for a in p.areas] for n, p in by.items()}) for e, by in found.items()},
            "Brier": {e: _line({n: p.briers for n, p in by.items()}) for e, by in found.items()},
        }  # fmt: skip
    path = plots.curves(
        study.out / "learning.png",
        panels,
        "training prompts (log scale)",
        title="Learning curves on the static encoder",
    )
    page.plot(
        path,
        f"Area (higher is better) and Brier (lower is better) on the test split; bands: least to greatest of {SEEDS} random orders",
    )
    return [*page.write(study.out), path]


def curves(case: Case, study: Study) -> Curves:
    train_x, test_x = (study.views.see("static", rows.data.prompts) for rows in (case.train, case.test))
    found: dict[str, dict[int, LearningPoint]] = {estimator: {} for estimator in ESTIMATORS}
    for share in SHARES:
        if share * len(train_x) < FEWEST:
            continue
        parts = [nested_part(case.train.data.question_keys, share, seed) for seed in range(SEEDS if share < 1 else 1)]
        prompts = round(float(np.mean([len(part) for part in parts])))
        for seed, part in enumerate(parts):
            study.progress(f"{case.name}: {len(part)} prompts, order {seed} ...")
            less = Case(case.name, case.note, case.train.take(part), case.test, case.draws)
            for estimator in ESTIMATORS:
                prediction = _fit(less, estimator, train_x[part], test_x)
                point = found[estimator].setdefault(prompts, LearningPoint())
                point.areas.append(area(case, sweep(prediction, "worth")))
                point.briers.append(brier(prediction, case))
    return found


def nested_part(keys: tuple[str, ...], share: float, seed: int) -> npt.NDArray[np.int64]:
    """Return rising rows of the first `share` of the questions in the seed's order: a smaller share is a part of a larger."""
    distinct, question = np.unique(np.asarray(keys, dtype=str), return_inverse=True)
    place = np.random.default_rng(seed).permutation(len(distinct))
    return np.flatnonzero(place[question] < round(share * len(distinct)))


def _fit(case: Case, estimator: str, train_x: Array, test_x: Array) -> Prediction:
    if estimator in BASELINES:
        return fit_baseline(case, estimator, train_x, test_x)
    return fit_and_predict(case, train_x, test_x, estimator)


def _tables(page: Page, case: Case, found: Curves) -> None:
    page.say(f"## {case.name}")
    page.say(
        f"{case.test.outcomes.rows} test prompts, {len(case.models)} candidates; hull of singles {shown(hull_area(case))}."
    )
    sizes = list(found[ESTIMATORS[0]])
    rows = []
    for estimator, by in found.items():
        cells = [f"{shown(p.area)} sd {_deviation(p):.3f}" if len(p.areas) > 1 else shown(p.area) for p in by.values()]
        rows.append([estimator, "area", *cells])
    rows += [[e, "Brier", *(f"{np.mean(p.briers):.4f}" for p in by.values())] for e, by in found.items()]
    shipped = found[ESTIMATORS[0]]
    for estimator in ESTIMATORS[1:]:
        cells = [shown_difference(shipped[n].area, found[estimator][n].area) for n in sizes]
        rows.append([f"{ESTIMATORS[0]} - {estimator}", "area", *cells])
    page.table(["estimator", "figure", *(f"{size} prompts" for size in sizes)], rows)


def _deviation(point: LearningPoint) -> float:
    return float(np.std([a[0] for a in point.areas], ddof=1))


def _line(values: Mapping[int, list[float]]) -> plots.PlotLine:
    middle, low, high = zip(*(plots.band(v) for v in values.values()), strict=True)
    return plots.PlotLine(list(values), middle, low, high)


def _json(found: Curves) -> dict[str, Any]:
    shipped = found[ESTIMATORS[0]]
    return {
        estimator: {
            str(prompts): {
                "area": estimate(point.area).to_json(),
                "areas_by_order": [float(a[0]) for a in point.areas],
                "briers_by_order": point.briers,
                f"{ESTIMATORS[0]}_minus": difference(shipped[prompts].area, point.area).to_json(),
            }
            for prompts, point in by.items()
        }
        for estimator, by in found.items()
    }
