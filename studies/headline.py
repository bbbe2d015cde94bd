"""This study sets the shipped estimator beside every baseline on every source with costs; README's claims rest on its page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine.evaluation.baselines import ESTIMATORS as BASELINES
from ipr_engine.measures.resampling import difference, estimate
from studies.cases import WITH_COSTS, Case
from studies.study import Study
from studies.trials import (
    area,
    best_of,
    fit_and_predict,
    fit_baseline,
    hull_area,
    shown,
    shown_difference,
    sweep,
)

Array = npt.NDArray[np.float64]

SHIPPED = "caps"
VIEW = "static"


def run(study: Study) -> list[Path]:
    page = study.page("headline", "The shipped estimator beside every baseline")
    page.say(
        f"""Bounded-ARQGC (docs/metrics.md section 3; best single candidate = 1) on each source's test split, worth swept with
        predicted costs unless said; {study.draws} paired bootstrap resamples of prompts, 95 % intervals. Shipped:
        `{SHIPPED}` on the static encoder, fitted on the train split alone. *Best peer*: whichever of kNN, k-means, ridge and
        the paper's network is best on **test**, so the comparison is in the peer's favour. Bold: an interval without zero."""
    )
    rows, against = [], []
    for case in study.cases(WITH_COSTS):
        areas = _areas(case, study)
        peers = [name for name in areas if name not in ("shipped", "hull", "paper's rule, mean cost")]
        best = best_of(areas, peers)
        rows.append(
            [
                case.name,
                f"{case.train.outcomes.rows} / {case.test.outcomes.rows}",
                str(len(case.models)),
                *(shown(areas[name]) for name in ("shipped", *peers, "hull")),
            ]
        )
        against.append(
            [
                case.name,
                best,
                shown_difference(areas["shipped"], areas[best]),
                shown_difference(areas["shipped"], areas["paper's rule, mean cost"]),
                shown_difference(areas["shipped"], areas["hull"]),
            ]
        )
        page.figures[case.name] = _json(areas, best)
        page.figures[case.name]["costs"] = case.note
    header = ["source", "prompts train / test", "candidates", "shipped", *peers, "hull of singles"]
    page.table(header, rows)
    page.say("## The shipped estimator minus")
    page.table(["source", "best peer", "best peer", "the paper's `minmax` with mean costs", "hull of singles"], against)
    return page.write(study.out)


def _areas(case: Case, study: Study) -> dict[str, Array]:
    train_x, test_x = (study.views.see(VIEW, rows.data.prompts) for rows in (case.train, case.test))
    study.progress(f"{case.name}: {SHIPPED} ...")
    shipped = fit_and_predict(case, train_x, test_x, SHIPPED)
    areas = {"shipped": area(case, sweep(shipped, "worth"))}
    for name in BASELINES:
        study.progress(f"{case.name}: {name} ...")
        areas[name] = area(case, sweep(fit_baseline(case, name, train_x, test_x), "worth"))
    study.progress(f"{case.name}: paper ...")
    paper = fit_and_predict(case, train_x, test_x, "paper")
    areas["paper's network"] = area(case, sweep(paper, "worth"))
    mean_cost = case.train.cost.mean(axis=0)
    areas["paper's rule, mean cost"] = area(case, sweep(shipped, "minmax", mean_cost=mean_cost))
    areas["hull"] = hull_area(case)
    return areas


def _json(areas: dict[str, Array], best: str) -> dict[str, Any]:
    return {
        "areas": {name: estimate(values).to_json() for name, values in areas.items()},
        "best_peer": best,
        "shipped_minus": {
            name: difference(areas["shipped"], values).to_json() for name, values in areas.items() if name != "shipped"
        },
    }
