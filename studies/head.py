"""This study asks what a head view, the mean of a prompt's first tokens beside that of the whole, tells where documents stand under
instructions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ipr_engine.data import load_outcomes
from ipr_engine.measures.resampling import Resamples, estimate, resamples_of
from ipr_engine.training.train_options import EncoderChoice
from studies.crossed import FOLDS, folds_of, predict_others
from studies.instructions import (
    A_DOCUMENT,
    CANDIDATES,
    DOCUMENTS,
    HIGH,
    INSTRUCTIONS,
    LOW,
    OPENINGS,
    SHIFT,
    Instructed,
    instructed,
)
from studies.pages import Page
from studies.plots import intervals
from studies.study import Study
from studies.trials import shown

Array = npt.NDArray[np.float64]

SOURCES = ("zeroeval", "mmlu_pro")
REAL = "wmt24_human"  # texts under four instructions: into which language they are translated
TOKENS = (8, 12, 16, 24)
ESTIMATORS = ("caps", "plain", "forest")
WHOLE, KNOWN = "whole alone", "instruction known"


def run(study: Study) -> list[Path]:
    page = study.page("head", "A mean of a prompt's first tokens beside that of the whole")
    page.say(
        f"""A head view of N tokens: x = [mean of the whole, mean of the first N known tokens] (docs/encoders.md). **A constructed set**:
        {DOCUMENTS} prompts of a source are the documents, each under {A_DOCUMENT} of {len(INSTRUCTIONS)} instructions
        (studies/instructions.py). A candidate's chance of success is {LOW} where its recorded outcome is 0 and {HIGH} where it is 1;
        then the instruction adds a number to its log-odds, drawn once for each candidate and instruction, standard deviation {SHIFT}.
        The first {CANDIDATES} candidates. Outcomes are drawn by that chance, heads are fitted on the outcomes and judged by the mean
        squared distance to the chance. So documents are as hard to tell as in the source, and the instructions matter as much as we
        chose: the figures say whether heads see an instruction, not how often that matters. Cross-fitted: {FOLDS} folds by document.
        *{KNOWN.capitalize()}*: a column an instruction in place of the head, what seeing it perfectly gives to these heads. *After an
        opening*: one sentence of ten tokens stands before every instruction. Intervals: 95 %, {study.draws} draws of documents."""
    )
    ratios: dict[str, dict[str, dict[str, Array]]] = {}
    for name in study.names((*SOURCES, REAL)):
        if name == REAL:
            continue
        case = study.case(name)
        for way, opening in OPENINGS.items():
            made = instructed(case, opening)
            ratios[f"{name}, {way}"] = _ratios(study, made, f"{name}, {way}")
    written: list[Path] = []
    if ratios:
        page.say("## How much of the instruction is seen")
        page.say(
            f"""(1 - ratio) / (1 - ratio with *{KNOWN}*): the ratios below are bounded by how hard the documents are to tell, and these
            figures are not. `{ESTIMATORS[0]}`."""
        )
        page.table(
            ["set", *(f"N = {n}" for n in TOKENS)],
            [[way, *(shown(_seen(of[ESTIMATORS[0]], n), digits=2) for n in TOKENS)] for way, of in ratios.items()],
        )
        page.say("## Distance to the chance of success: with the head over without it")
        names = [WHOLE, *(f"N = {n}" for n in TOKENS), KNOWN]
        for way, of in ratios.items():
            page.say(f"### {way}")
            rows = [
                [estimator, f"{float(at[WHOLE][0]):.4f}", *(shown(at[one]) for one in names[1:])]
                for estimator, at in of.items()
            ]
            page.table(["estimator", WHOLE, *(f"{one}, ratio" for one in names[1:])], rows)
        written.append(
            intervals(
                study.out / "head.png",
                {
                    way: {one: [estimate(at[one]) for at in of.values()] for one in (f"N = {n}" for n in TOKENS)}
                    for way, of in ratios.items()
                },
                list(ESTIMATORS),
                "squared distance to the chance, with a head view over without: below 1 it helps",
                title="A head view where documents stand under instructions",
                zero=1.0,
                per_row=2,
            )
        )
        page.plot(
            written[-1], "Mean squared distance to the chance of success, with a head view over without; 95 % intervals"
        )
        page.figures["constructed"] = {
            way: {name: {one: estimate(values).to_json() for one, values in at.items()} for name, at in of.items()}
            for way, of in ratios.items()
        }
    if REAL in study.names((*SOURCES, REAL)):
        _real(study, page)
    return [*page.write(study.out), *written]


def views_of(prompts: Sequence[str]) -> dict[str, Array]:
    """Return the embeddings of prompts by the name of the view, (prompts, dim) each."""
    views = {}
    for tokens in (0, *TOKENS):
        encoder = EncoderChoice(head_tokens=tokens).open().encoder
        name = f"N = {tokens}" if tokens else WHOLE
        views[name] = np.asarray(encoder.encode(list(prompts)).x, np.float64)
    return views


def squared(
    views: Mapping[str, Array], outcome: Array, judged_by: Array, keys: Sequence[str], estimator: str
) -> dict[str, Array]:
    """Predict every row by the other folds; return of each view the mean over candidates of the squared distance to `judged_by`, (rows,).

    outcome, judged_by: (rows, models), NaN where not judged.
    """
    folds, found = folds_of(keys), {}
    for view, x in views.items():
        predicted, head_dim = np.empty_like(outcome), x.shape[1] - views[WHOLE].shape[1]
        for fold in range(FOLDS):
            out = folds == fold
            predicted[out], _ = predict_others(
                x, outcome, np.ones_like(outcome), keys, ~out, estimator=estimator, head_dim=head_dim
            )
        found[view] = np.asarray(np.nanmean(np.square(predicted - judged_by), axis=1))
    return found


def _ratios(study: Study, made: Instructed, name: str) -> dict[str, dict[str, Array]]:
    """Return of each estimator and view the mean distance over that of the whole alone, (1 + draws,); of the whole the distance."""
    views, resamples = views_of(made.prompts), resamples_of(made.keys, draws=study.draws)
    views[KNOWN] = np.concatenate([views[WHOLE], np.eye(len(INSTRUCTIONS))[made.instruction]], axis=1)
    found = {}
    for estimator in ESTIMATORS:
        study.progress(f"{name}: {estimator} ...")
        distances = squared(views, made.drawn, made.expected, made.keys, estimator)
        means = {view: resamples.means(values) for view, values in distances.items()}
        found[estimator] = _over_whole(means)
    return found


def _over_whole(means: Mapping[str, Array]) -> dict[str, Array]:
    whole = means[WHOLE]
    return {view: values if view == WHOLE else values / whole for view, values in means.items()}


def _seen(at: Mapping[str, Array], tokens: int) -> Array:
    return (1 - at[f"N = {tokens}"]) / (1 - at[KNOWN])


def _real(study: Study, page: Page) -> None:
    """Write the table of REAL: Brier score to the recorded outcome, by estimator and view."""
    data = load_outcomes(study.outcomes / REAL)
    keys = list(data.question_keys)
    views, resamples = views_of(data.prompts), Resamples.of_questions(keys, draws=study.draws)
    rows, figures = [], {}
    for estimator in ESTIMATORS:
        study.progress(f"{REAL}: {estimator} ...")
        distances = squared(views, data.quality, data.quality, keys, estimator)
        at = _over_whole({view: resamples.means(values) for view, values in distances.items()})
        rows.append([estimator, f"{at[WHOLE][0]:.4f}", *(shown(at[f"N = {n}"]) for n in TOKENS)])
        figures[estimator] = {view: estimate(values).to_json() for view, values in at.items()}
    page.say(f"## {REAL}: recorded outcomes")
    page.say(
        f"""{len(data)} prompts, {len(set(keys))} texts to be translated into one of four languages, {len(data.models)} candidates, judged
        by people. The mean squared distance is to the recorded outcome; folds by text."""
    )
    page.table(["estimator", WHOLE, *(f"N = {n}, ratio" for n in TOKENS)], rows)
    page.figures[REAL] = figures
