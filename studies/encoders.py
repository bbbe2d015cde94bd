"""Study (a) asks what of a prompt to show the heads: static table, transformer, both, text features, a table learned elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine.data import Outcomes as OutcomeData
from ipr_engine.data import load_outcomes
from ipr_engine.encoders.static import StaticEncoder
from ipr_engine.errors import InvalidInputError
from ipr_engine.measures.resampling import Estimate, difference, estimate
from studies import plots
from studies.cases import RECIPES, Case
from studies.outcome_table import DIM, OutcomeTable, fit_outcome_table
from studies.pages import Page
from studies.study import Study
from studies.trials import area, area_on_train, brier, fit_and_predict, shown, shown_difference, sweep
from studies.views import VIEWS

Array = npt.NDArray[np.float64]

SOURCES = ("routerbench_sub", "cascade9", "zeroeval", "bfcl", "mmlu_pro")
ESTIMATORS = ("advantage_shared", "caps")
LEARNED = ("learned table", "static + learned table")  # views of this study alone
JUDGED = 0.2  # a candidate teaches the table if its source judged it on this share of the prompts


@dataclass(frozen=True, eq=False)
class EncoderTrial:
    """An `EncoderTrial` is one view under one estimator: area on test (1 + draws,) and on train out of fold; mean squared errors."""

    area: Array
    train_area: float
    brier: float
    train_brier: float


def run(study: Study) -> list[Path]:
    page = study.page("encoders", "What to show the heads: static table, transformer, both, and cheap text features")
    page.say(
        f"""*static*: the default bundle's 256-d token table. *transformer*: {_transformer(study)}, frozen.
        *both*: the two beside each other. *+ text*: ten cheap facts of the text (lengths, digits, code, options).
        *learned table*: {DIM}-d rows for tokens and hashed token pairs, pre-trained for one epoch on the **training splits of
        the other sources** without any question of this one, then frozen. Bounded-ARQGC (docs/metrics.md section 3) on the
        test split, worth swept with predicted costs; {study.draws} paired bootstrap resamples of prompts, 95 % intervals;
        bold: an interval that excludes zero. *out of fold*: the same figure on the training split, the only one a choice
        may rest on."""
    )
    figures: dict[str, dict[str, dict[str, EncoderTrial]]] = {}
    for case in study.cases(SOURCES):
        figures[case.name] = trials = _trials(case, study)
        page.figures[case.name] = {e: {v: _json(t, per[VIEWS[0]]) for v, t in per.items()} for e, per in trials.items()}
        _tables(page, case, trials, _cut(study, case))
    path = plots.intervals(
        study.out / "encoders.png",
        {
            name: {e: [_change(per, view) for view in per if view != VIEWS[0]] for e, per in trials.items()}
            for name, trials in figures.items()
        },
        [*VIEWS[1:], *LEARNED],
        "Bounded-ARQGC minus the static table's, same estimator (95 % paired bootstrap interval)",
        title="Richer views of the prompt against the static table",
        zero=0.0,
    )
    page.plot(path, "Change of the area by view and estimator; left of the dotted line is worse than the static table")
    return [*page.write(study.out), path]


def _trials(case: Case, study: Study) -> dict[str, dict[str, EncoderTrial]]:
    table = learned_table(study, case)
    static = _static(study)
    seen = {}
    for view in VIEWS:
        study.progress(f"{case.name}: {view} ...")
        seen[view] = [study.views.see(view, rows.data.prompts) for rows in (case.train, case.test)]
    learned = [table.embed(_ids(static, rows.data.prompts)) for rows in (case.train, case.test)]
    seen[LEARNED[0]] = learned
    seen[LEARNED[1]] = [np.concatenate(pair, axis=1) for pair in zip(seen[VIEWS[0]], learned, strict=True)]
    result: dict[str, dict[str, EncoderTrial]] = {}
    for estimator in ESTIMATORS:
        study.progress(f"{case.name}: {estimator} on {len(seen)} views ...")
        result[estimator] = {view: _trial(case, estimator, *pair) for view, pair in seen.items()}
    return result


def _trial(case: Case, estimator: str, train_x: Array, test_x: Array) -> EncoderTrial:
    prediction = fit_and_predict(case, train_x, test_x, estimator)
    return EncoderTrial(
        area(case, sweep(prediction, "worth")),
        area_on_train(case, sweep(prediction, "worth", on_train=True)),
        brier(prediction, case),
        float(np.square(prediction.train_quality - case.train.quality).mean()),
    )


def learned_table(study: Study, case: Case) -> OutcomeTable:
    """Pre-train on the training split of every other source in the folder, without questions of the case's own source."""
    static = _static(study)
    home = load_outcomes(study.outcomes / RECIPES[case.name].source)
    others = [
        others_training_rows(load_outcomes(study.outcomes / recipe.source), home)
        for name, recipe in RECIPES.items()
        if recipe.source != home.source and (study.outcomes / name).is_dir()
    ]
    if not others:
        raise InvalidInputError(f"outcomes: expected a source beside {home.source} to learn a table from, found none")
    ids = [tokens for other in others for tokens in _ids(static, other.prompts)]
    study.progress(
        f"{case.name}: learning a table from {len(ids)} prompts of {', '.join(o.source for o in others)} ..."
    )
    return fit_outcome_table(ids, [other.quality for other in others], static.tokenizer.max_id + 1)


def others_training_rows(other: OutcomeData, home: OutcomeData) -> OutcomeData:
    """Return judged training rows of another source whose question `home` does not ask, in either of its splits."""
    rows = other.of_split("train").without_questions_of(home)
    rows = rows.select([model for model, share in rows.coverage().items() if share >= JUDGED])
    return rows.take(rows.covered.any(axis=1))


def _static(study: Study) -> StaticEncoder:
    encoder = study.views.static
    if not isinstance(encoder, StaticEncoder):
        raise InvalidInputError(f"encoder: expected the default bundle's static encoder, got {encoder!r}")
    return encoder


def _ids(static: StaticEncoder, prompts: tuple[str, ...]) -> list[npt.NDArray[np.int64]]:
    return [static.tokenizer.encode(prompt)[0].astype(np.int64) for prompt in prompts]


def _change(per: dict[str, EncoderTrial], view: str) -> Estimate:
    return difference(per[view].area, per[VIEWS[0]].area)


def _transformer(study: Study) -> str:
    encoder = study.views.transformer
    return "none given" if encoder is None else f"{encoder.summary} (encoder identity {encoder.identity[:12]})"


def _cut(study: Study, case: Case) -> float:
    """Return the share of the case's prompts longer than what the transformer reads."""
    parts = [study.views.transform(rows.data.prompts).truncated for rows in (case.train, case.test)]
    return float(np.concatenate(parts).mean())


def _tables(page: Page, case: Case, trials: dict[str, dict[str, EncoderTrial]], cut: float) -> None:
    page.say(f"## {case.name}")
    page.say(
        f"""{case.train.outcomes.rows} training and {case.test.outcomes.rows} test prompts, {len(case.models)} candidates; {cut:.0%} of the
        prompts are longer than the transformer reads."""
    )
    rows = [
        [
            view,
            estimator,
            shown(trial.area),
            "" if view == VIEWS[0] else shown_difference(trial.area, per[VIEWS[0]].area),
            f"{trial.brier:.4f}",
            f"{trial.train_area:.3f}",
            f"{trial.train_brier:.4f}",
        ]
        for estimator, per in trials.items()
        for view, trial in per.items()
    ]
    page.table(
        ["view", "estimator", "area", "minus static", "Brier", "area out of fold, train", "Brier out of fold"], rows
    )


def _json(trial: EncoderTrial, static: EncoderTrial) -> dict[str, Any]:
    return {
        "area": estimate(trial.area).to_json(),
        "minus_static": difference(trial.area, static.area).to_json(),
        "brier": trial.brier,
        "train_area_out_of_fold": trial.train_area,
        "train_brier_out_of_fold": trial.train_brier,
    }
