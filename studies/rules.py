"""This study compares decision rules on the same predictions: minmax, max, fixed, worth, each with mean and predicted cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine.measures.resampling import difference, estimate
from studies.cases import WITH_COSTS, Case
from studies.headline import SHIPPED, VIEW
from studies.study import Study
from studies.trials import Prediction, area, fit_and_predict, hull_area, shown, shown_difference, sweep

Array = npt.NDArray[np.float64]

RULES = ("worth", "minmax", "max", "fixed")
REFERENCE = "minmax, mean cost"  # the paper's per-prompt rule as published


def run(study: Study) -> list[Path]:
    page = study.page("rules", "Decision rules on the same predictions")
    page.say(
        f"""Quality predicted by `{SHIPPED}` on the static encoder in every cell; only the rule and the cost it sees differ.
        *Mean cost*: one cost a candidate, its mean on train (the paper's rules). *Predicted*: per prompt, by the tokens
        head. Bounded-ARQGC on test (best single = 1), 95 % paired bootstrap intervals, {study.draws} draws. `max` has slack
        0; `fixed` takes hi\\* and lo\\* from the training predictions."""
    )
    names = [f"{rule}, {cost} cost" for rule in RULES for cost in ("mean", "predicted")]
    tables: dict[str, dict[str, Array]] = {}
    for case in study.cases(WITH_COSTS):
        study.progress(f"{case.name}: {SHIPPED} ...")
        train_x, test_x = (study.views.see(VIEW, rows.data.prompts) for rows in (case.train, case.test))
        tables[case.name] = _areas(case, fit_and_predict(case, train_x, test_x, SHIPPED))
        page.figures[case.name] = _json(tables[case.name])
    sources = list(tables)
    page.table(["rule", *sources], [[n, *(shown(tables[s][n]) for s in sources)] for n in [*names, "hull of singles"]])
    page.say("## Minus the paper's `minmax` with mean costs")
    rows = [
        [n, *(shown_difference(tables[s][n], tables[s][REFERENCE]) for s in sources)] for n in names if n != REFERENCE
    ]
    page.table(["rule", *sources], rows)
    page.say("## Predicted minus mean cost, the same rule")
    rows = [
        [r, *(shown_difference(tables[s][f"{r}, predicted cost"], tables[s][f"{r}, mean cost"]) for s in sources)]
        for r in RULES
    ]
    page.table(["rule", *sources], rows)
    return page.write(study.out)


def _areas(case: Case, prediction: Prediction) -> dict[str, Array]:
    mean = case.train.cost.mean(axis=0)
    areas = {}
    for rule in RULES:
        areas[f"{rule}, mean cost"] = area(case, sweep(prediction, rule, mean_cost=mean))
        areas[f"{rule}, predicted cost"] = area(case, sweep(prediction, rule))
    areas["hull of singles"] = hull_area(case)
    return areas


def _json(areas: dict[str, Array]) -> dict[str, Any]:
    return {
        "areas": {name: estimate(values).to_json() for name, values in areas.items()},
        "minus_paper": {name: difference(values, areas[REFERENCE]).to_json() for name, values in areas.items()},
    }
