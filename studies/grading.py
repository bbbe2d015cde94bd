"""This study asks how many labels a grader needs before its grades can be used, and how much of one sample is luck."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine.grading.calibration_report import CalibrationReport, judge_map
from ipr_engine.grading.grader_calibration import calibrate_grader
from ipr_engine.grading.label_noise import LabelNoise, label_noise, scores_table
from ipr_engine.grading.quality_map import QualityMap
from studies.grading_cases import GradingCase, judge_cases, repeated, verifier_cases
from studies.pages import Page
from studies.plots import PlotLine, band, curves
from studies.study import Study

Array = npt.NDArray[np.float64]
Measured = dict[str, list[float]]

CASES: dict[str, Callable[[Path], list[GradingCase]]] = {"shaberi": judge_cases, "czech_simpleqa": verifier_cases}
NOISE = "misguided"
PROMPTS = (50, 100, 200, 400)
SEEDS = 20
LEAST_REST = 100  # prompts to be judged on
GOAL = 0.03
WAYS = ("as it is", "one map for all", "with a shift a model")
MEASURES = {
    "ECE": "ece", "ECE it tells": "told", "Brier": "brier", "a model's mean, most off": "off", "pairs kept": "kept", "tau": "tau",
}  # fmt: skip
PLOTTED = {"ECE": "ece", "a model's mean, most off": "off"}


def run(study: Study) -> list[Path]:
    names = study.names((*CASES, NOISE))
    page = study.page("grading", "Graders: how many labels, and how much of one sample is luck")
    page.say(
        f"""Each grader is calibrated (`calibrate_grader`: isotonic or Platt's map, chosen by cross-validation) on the labels of some
        prompts, every model's answers to them, and judged on the labels of all other prompts; {SEEDS} random draws of the labelled
        prompts. Figures: mean over the draws, and the least and greatest in brackets. *As it is*: raw scores taken for qualities.
        *One map for all*: the calibration without models. *With a shift a model*: what `calibrate_grader` gives, a shift of the
        logit for each model whose size cross-validation chooses."""
    )
    page.say(
        f"""ECE: ten bins of equal count (docs/metrics.md). *ECE it tells*: that of the calibration's own report, out of fold, on the
        labelled prompts alone. *A model's mean, most off*: of mean grade against mean label, over the models. *Pairs kept*: of the
        pairs of models that the labels of the rest tell apart (95 %, paired by prompt), the share whose grades are in the same order.
        *tau*: Kendall's, over all pairs, also those that nothing tells apart. *Goal met*: draws with an ECE of at most {GOAL}."""
    )
    plots = []
    panels: dict[str, dict[str, dict[str, PlotLine]]] = {}
    for name in (name for name in names if name in CASES):
        for case in CASES[name](study.outcomes / name):
            panels[case.name] = _studied(page, case, study)
    if panels:
        plots.append(
            curves(
                study.out / "grading.png",
                panels,
                "labelled prompts",
                title="Calibrated graders on prompts not labelled",
            )
        )
        page.plot(plots[0], f"Mean over {SEEDS} draws, with the least and greatest")
    if NOISE in names:
        _noise(page, label_noise(scores_table(repeated(study.outcomes / NOISE))[2]))
    return [*page.write(study.out), *plots]


def _studied(page: Page, case: GradingCase, study: Study) -> dict[str, dict[str, PlotLine]]:
    """Add one case's section; return the lines of its plot."""
    every = np.unique(case.questions)
    sizes = [size for size in PROMPTS if len(every) - size >= LEAST_REST]
    measured: dict[int, dict[str, Measured]] = {}
    for size in sizes:
        study.progress(f"{case.name}: {size} labelled prompts ...")
        measured[size] = {way: {of: [] for of in MEASURES.values()} for way in WAYS}
        for seed in range(SEEDS):
            labelled = np.isin(case.questions, np.random.default_rng(seed).permutation(every)[:size])
            _measure(case, labelled, measured[size], seed)
    page.say(f"## {case.name}")
    agree = float(np.corrcoef(case.raw, case.labels)[0, 1])
    page.say(
        f"""{len(case.labels)} answers of {len(np.unique(case.models))} models to {len(every)} prompts; correlation of raw score and label
        {agree:.2f}, means {case.raw.mean():.3f} and {case.labels.mean():.3f}."""
    )
    rows = [
        [
            str(size),
            way,
            *(_shown(measured[size][way][of]) for of in MEASURES.values()),
            _met(measured[size][way]["ece"]),
        ]
        for size in sizes
        for way in WAYS
    ]
    page.table(["labelled prompts", "grades", *MEASURES, "goal met"], rows)
    page.say(_verdict(sizes, {size: measured[size][WAYS[-1]] for size in sizes}))
    page.figures[case.name] = {
        str(size): {
            way: {of: _known(values) for of, values in figures.items()} for way, figures in measured[size].items()
        }
        for size in sizes
    }
    return {
        label: {way: _line(sizes, [measured[size][way][of] for size in sizes]) for way in WAYS}
        for label, of in PLOTTED.items()
    }


def _measure(case: GradingCase, labelled: npt.NDArray[np.bool_], into: dict[str, Measured], seed: int) -> None:
    made = calibrate_grader(
        case.raw[labelled],
        case.labels[labelled],
        groups=case.questions[labelled].tolist(),
        models=case.models[labelled].tolist(),
        seed=seed,
    )
    own = made.map
    shared = QualityMap(method=own.method, points=own.points, slope=own.slope, offset=own.offset, shifts={})
    rest = ~labelled
    raw, models = case.raw[rest], case.models[rest].tolist()
    for way, grades in zip(WAYS, (raw, shared(raw, models), own(raw, models)), strict=True):
        report = judge_map(grades, case.labels[rest], case.questions[rest].tolist(), models, draws=0)
        _note(into[way], report, made.report.ece if way == WAYS[-1] else float("nan"))


def _note(into: Measured, report: CalibrationReport, told: float) -> None:
    into["ece"].append(report.ece)
    into["told"].append(told)
    into["brier"].append(report.brier)
    into["off"].append(max(abs(model.off) for model in report.models))
    into["kept"].append(report.pairs_kept / report.pairs_apart if report.pairs_apart else float("nan"))
    into["tau"].append(float("nan") if report.kendall_tau is None else report.kendall_tau)


def _line(sizes: list[int], values: list[list[float]]) -> PlotLine:
    bands = [band(one) for one in values]
    return PlotLine(sizes, [b[0] for b in bands], [b[1] for b in bands], [b[2] for b in bands])


def _shown(values: list[float]) -> str:
    if np.isnan(values).all():
        return ""
    mean, low, high = band(values)
    return f"{mean:.3f} [{low:.3f}, {high:.3f}]"


def _verdict(sizes: list[int], measured: dict[int, Measured]) -> str:
    reached = [size for size in sizes if np.mean(measured[size]["ece"]) <= GOAL]
    sure = [size for size in sizes if sum(value <= GOAL for value in measured[size]["ece"]) >= 0.95 * SEEDS]
    kept = [size for size in sizes if np.mean(measured[size]["kept"]) >= 0.99]

    def least(found: list[int]) -> str:
        return f"{found[0]} labelled prompts" if found else "none of these sizes"

    return (
        f"With a shift a model: a mean ECE of at most {GOAL} from {least(reached)}, in 95 % of the draws from {least(sure)}; 99 % of "
        f"the pairs in order from {least(kept)}."
    )


def _known(values: list[float]) -> list[float | None]:
    return [None if np.isnan(value) else value for value in values]


def _met(values: list[float]) -> str:
    return f"{sum(value <= GOAL for value in values)} of {len(values)}"


def _noise(page: Page, found: LabelNoise) -> None:
    page.say(f"## One sample: {NOISE}")
    page.say(
        f"""{found.prompts} prompts, {found.models} models, {found.samples} answers each. Of the variance of one score
        {1 - found.reliability():.0%} is luck: another answer of the same model to the same prompt (variance {found.within:.3f}) against
        what differs between cells ({found.cells:.3f}; of it {found.interaction:.3f} is neither the prompt's nor the model's own, which
        is what routing lives on). Reliability of one sample {found.reliability():.2f}, of the mean of three {found.reliability(3):.2f}."""
    )
    page.say(
        f"""Other samples of these prompts would change the models' means little: {found.noise_of_means:.1%} of the variance between
        them is noise of samples; other prompts would change them more (standard error {found.errors.mean():.3f} on average). The gap
        of an oracle over the best single model is {found.oracle_gap:.3f} on one sample, and {found.oracle_gap_kept:.3f} where the other
        samples pick the model: at most {found.oracle_noise:.0%} of the gap is noise."""
    )
    page.say(
        """Samples a prompt that tell two models apart for the least money, where one more prompt costs as much as so many calls (to
        find it, to label it), and the standard error of their difference with so many on 1,000 USD, a call 0.01:"""
    )
    rows = []
    for ratio in (0, 1, 3, 10, 30, 100):
        best = found.best_samples(call=0.01, prompt=0.01 * ratio)
        one = found.standard_error(max(1, int(1000 / (0.01 * (ratio + 1)))), 1)
        own = found.standard_error(max(1, int(1000 / (0.01 * (ratio + best)))), best)
        rows.append([str(ratio), str(best), f"{own:.5f}", f"{one:.5f}"])
    page.table(["a prompt costs, in calls", "samples", "standard error", "with one sample"], rows)
    page.figures[NOISE] = _plain(found)


def _plain(found: LabelNoise) -> dict[str, Any]:
    return {
        "prompts": found.prompts, "models": found.models, "samples": found.samples, "within": found.within,
        "cells": found.cells, "interaction": found.interaction, "reliability": found.reliability(),
        "noise_of_means": found.noise_of_means, "oracle_gap": found.oracle_gap, "oracle_gap_kept": found.oracle_gap_kept,
        "means": found.means.tolist(), "errors": found.errors.tolist(),
    }  # fmt: skip
