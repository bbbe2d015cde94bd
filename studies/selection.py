"""This study asks which closed form to ship, by nested cross-validation on training splits alone, over several sources."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from ipr_engine.measures.resampling import one_thread
from ipr_engine.training.fitted_heads import HeadRows
from ipr_engine.training.selection import EstimatorScore, PromptCosts, as_json, compare_estimators
from studies.headline import VIEW
from studies.study import Study
from studies.trials import NANO

SOURCES = ("zeroeval", "routerbench_sub", "cascade9", "bfcl", "mmlu_pro")


def run(study: Study) -> list[Path]:
    page = study.page("selection", "Which closed form to ship")
    page.say(
        """Nested 5-fold cross-validation, twice, on each source's training split; penalties, ranks' directions, centroids and
        calibration are fitted inside each outer fold. Figures: Bounded-ARQGC of the sweep of worth / of tau under `minmax`,
        both with predicted costs, then the Brier score. No test split has a part in this page. `ipr train` makes the same
        comparison on the prompts it is given (`auto`)."""
    )
    scores: dict[str, list[EstimatorScore]] = {}
    for case in study.cases(SOURCES):
        rows = case.train
        x = study.views.see(VIEW, rows.data.prompts)
        nothing = np.zeros_like(rows.cost)
        with one_thread():
            scores[case.name] = compare_estimators(
                HeadRows(x, rows.quality, rows.cost * NANO, rows.data.question_keys),
                PromptCosts(rows.cost, nothing, np.full(len(case.models), 1 / NANO)),
                progress=_named(study, case.name),
            )
        page.figures[case.name] = as_json(scores[case.name])
    sources = list(scores)
    names = [score.estimator for score in scores[sources[0]]]
    table = []
    for i, name in enumerate(names):
        mine = [scores[source][i] for source in sources]
        mean = np.mean([score.area for score in mine])
        cells = [f"{np.mean(s.area_worth):.3f} / {np.mean(s.area_minmax):.3f}; {np.mean(s.brier):.4f}" for s in mine]
        table.append([f"`{name}`", f"{mean:.3f}", *cells])
    page.table(["estimator", "mean area", *sources], table)
    return page.write(study.out)


def _named(study: Study, source: str) -> Callable[[str], None]:
    return lambda message: study.progress(f"{source}: {message}")
