"""This study stands beside RouterDC (arXiv 2409.19886): its seven candidates, prompts and figure: quality of the one predicted best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from ipr_engine.data import load_outcomes
from ipr_engine.measures.resampling import Resamples, estimate
from studies.bars import Series, intervals
from studies.cases import Case, Rows
from studies.pages import Page
from studies.study import Study
from studies.trials import Prediction, fit_and_predict, fit_baseline, shown_difference

Array = npt.NDArray[np.float64]

SOURCE = "routerdc7"
INSIDE = ("mmlu", "gsm8k", "cmmlu", "arc_challenge", "humaneval")  # RouterDC trains on these
OUTSIDE = ("math_prealgebra", "mbpp", "ceval")  # and never on these
ESTIMATORS = ("plain", "advantage_shared", "advantage_rank4", "caps", "paper")
BASELINES = ("kNN", "k-means")

# Per cent, rounded as they can be read off RouterDC's figures and readme; means are of these.
PUBLISHED: Mapping[str, int] = MappingProxyType(
    {
        "mmlu": 61, "gsm8k": 70, "cmmlu": 52, "arc_challenge": 59, "humaneval": 51,
        "math_prealgebra": 39, "mbpp": 47, "ceval": 52,
    }
)  # fmt: skip
PUBLISHED_SINGLE = (54.56, 43.95)  # its best single candidate: mean of INSIDE, of OUTSIDE
PUBLISHED_ORACLE = (77.5, 70.3)


@dataclass(frozen=True, eq=False)
class Tasks:
    """`Tasks` gives mean quality by task, every contender on the same resamples of each task's prompts.

    Attributes:
        rows: (test rows,) task of each. resamples: by task.
    """

    rows: npt.NDArray[np.str_]
    resamples: Mapping[str, Resamples]

    @classmethod
    def of(cls, datasets: Sequence[str], draws: int) -> Tasks:
        rows = np.asarray(datasets)
        return cls(
            rows,
            {
                task: Resamples(int((rows == task).sum()), draws=draws, seed=seed)
                for seed, task in enumerate((*INSIDE, *OUTSIDE))
            },
        )

    def means(self, realised: Array) -> dict[str, Array]:
        """Return, by task and for both groups of tasks, the mean (1 + draws,) of realised quality (rows,)."""
        by = {task: resamples.means(realised[self.rows == task]) for task, resamples in self.resamples.items()}
        for name, group in (("inside", INSIDE), ("outside", OUTSIDE)):
            by[name] = np.mean([by[task] for task in group], axis=0)
        return by


def load(study: Study) -> Case:
    """Load training rows of INSIDE only, less what the test split asks too, and test rows of all tasks. Costs are ranks: there are none."""
    study.progress(f"reading {SOURCE} ...")
    data = load_outcomes(study.outcomes / SOURCE)
    test = data.of_split("test")
    test = test.take(np.isin(test.datasets, (*INSIDE, *OUTSIDE))).complete()
    train = data.of_split("train").without_questions_of(test)
    train = train.take(np.isin(train.datasets, INSIDE)).complete()
    rank = train.quality.mean(axis=0).argsort(kind="stable").argsort(kind="stable") + 1.0
    parts = [Rows(part, part.quality, np.tile(rank, (len(part), 1))) for part in (train, test)]
    return Case(SOURCE, "rank by training quality", parts[0], parts[1], study.draws)


def predictions(case: Case, study: Study, views: Sequence[str]) -> dict[str, Prediction]:
    """Predict by every estimator and baseline on every view."""
    predicted = {}
    for view in views:
        study.progress(f"{case.name}: embedding, {view} ...")
        x = [study.views.see(view, part.data.prompts) for part in (case.train, case.test)]
        for name in ESTIMATORS:
            study.progress(f"{case.name}: {name}, {view} ...")
            predicted[f"{name}, {view}"] = fit_and_predict(case, x[0], x[1], name)
        for name in BASELINES:
            study.progress(f"{case.name}: {name}, {view} ...")
            predicted[f"{name}, {view}"] = fit_baseline(case, name, x[0], x[1])
    return predicted


def section(page: Page, study: Study, views: Sequence[str]) -> list[Path]:
    """Write RouterDC's part of the page; return the plot's path."""
    case = load(study)
    tasks = Tasks.of(case.test.data.datasets, study.draws)
    quality = case.test.quality
    rows = np.arange(len(quality))
    predicted = predictions(case, study, views)
    means = {name: tasks.means(quality[rows, one.quality.argmax(axis=1)]) for name, one in predicted.items()}
    on_train = {name: _out_of_fold(case, one) for name, one in predicted.items()}
    singles = {model: tasks.means(quality[:, m]) for m, model in enumerate(case.models)}
    best = case.models[_best_by_task(case)]
    hindsight = max(singles, key=lambda model: float(singles[model]["inside"][0]))
    oracle = tasks.means(quality.max(axis=1))
    page.say("## RouterDC's seven candidates")
    page.say(
        f"""Its own outcomes and its own split: {case.train.outcomes.rows} training prompts of five tasks (those that a test
        prompt repeats left out), {len(quality)} test prompts of those five and of three more. The figure is its own:
        mean quality, per cent, of the candidate predicted best (tau = 0), by task; then the plain mean over tasks. 95 %
        intervals by bootstrap of prompts inside each task. **Comparable:** candidates, outcomes, test prompts, training
        tasks, the figure. **Not comparable:** RouterDC fine-tunes a multilingual transformer (mDeBERTa-v3-base) on, by
        its public script, 1,000 prompts a task, so tasks weigh alike; here every training prompt counts once and the
        encoder is frozen and learned English only, while two of the eight tasks are Chinese. RouterDC's figures are
        read off its published plots and rounded, without intervals."""
    )
    inside, outside = ("mean of five, trained on", "mean of three, not trained on")
    header = ["", *(f"{task}" for task in INSIDE), inside, *OUTSIDE, outside]
    table = [
        _line("best single, chosen on train: " + best.split("/")[-1], singles[best]),
        *([] if hindsight == best else [_line("best single in hindsight: " + hindsight.split("/")[-1], singles[hindsight])]),
        ["RouterDC's best single, published", *[""] * 5, f"{PUBLISHED_SINGLE[0]:.2f}", *[""] * 3, f"{PUBLISHED_SINGLE[1]:.2f}"],
        [
            "**RouterDC, published (rounded)**",
            *(str(PUBLISHED[task]) for task in INSIDE),
            f"about {np.mean([PUBLISHED[task] for task in INSIDE]):.1f}",
            *(str(PUBLISHED[task]) for task in OUTSIDE),
            f"about {np.mean([PUBLISHED[task] for task in OUTSIDE]):.1f}",
        ],
        *(_line(name, by) for name, by in means.items()),
        _line("oracle", oracle),
        ["oracle, published", *[""] * 5, f"{PUBLISHED_ORACLE[0]}", *[""] * 3, f"{PUBLISHED_ORACLE[1]}"],
    ]  # fmt: skip
    page.table(header, table)
    page.say(
        f"""Minus the best single candidate (in hindsight, the published one), paired, in points. *Out of fold*: the first
        mean on the training prompts; by it `{max(on_train, key=lambda name: on_train[name])}` would be picked. RouterDC
        reports +2.76 and +1.90 points over the best method before it."""
    )
    page.table(
        ["", "out of fold, %", "five tasks trained on", "three tasks not trained on"],
        [
            [
                name,
                f"{100 * on_train[name]:.1f}",
                *(shown_difference(100 * by[g], 100 * singles[hindsight][g], digits=1) for g in ("inside", "outside")),
            ]
            for name, by in means.items()
        ],
    )
    plot = intervals(
        study.out / "published_routerdc.png",
        ["best single in hindsight", *means],
        [
            Series(name, {"best single in hindsight": estimate(100 * singles[hindsight][group])}
                   | {key: estimate(100 * by[group]) for key, by in means.items()})
            for name, group in (("five tasks trained on", "inside"), ("three tasks not trained on", "outside"))
        ],
        title="RouterDC's seven candidates: quality of the candidate predicted best",
        axis="mean over tasks, %, with 95 % bootstrap intervals\ndotted: RouterDC as published, about "
        f"{np.mean([PUBLISHED[t] for t in INSIDE]):.1f} and {np.mean([PUBLISHED[t] for t in OUTSIDE]):.1f}",
        lines=[float(np.mean([PUBLISHED[task] for task in group])) for group in (INSIDE, OUTSIDE)],
    )  # fmt: skip
    page.plot(plot, "Mean over tasks; dotted lines: RouterDC's published figures")
    page.figures[SOURCE] = {
        "train_prompts": case.train.outcomes.rows,
        "test_prompts": len(quality),
        "published": {"tasks": dict(PUBLISHED), "best_single": PUBLISHED_SINGLE, "oracle": PUBLISHED_ORACLE},
        "out_of_fold": on_train,
        "mean_quality": {
            name: {task: estimate(values).to_json() for task, values in by.items()}
            for name, by in {**singles, **means, "oracle": oracle}.items()
        },
    }
    return [plot]


def _best_by_task(case: Case) -> int:
    """Return the candidate of the greatest mean over training tasks of its training quality."""
    task = np.asarray(case.train.data.datasets)
    return int(np.mean([case.train.quality[task == one].mean(axis=0) for one in INSIDE], axis=0).argmax())


def _out_of_fold(case: Case, prediction: Prediction) -> float:
    """Return the mean over training tasks of the quality of the candidate predicted best out of fold."""
    realised = case.train.quality[np.arange(len(case.train.quality)), prediction.train_quality.argmax(axis=1)]
    task = np.asarray(case.train.data.datasets)
    return float(np.mean([realised[task == one].mean() for one in INSIDE]))


def _line(name: str, by: Mapping[str, Array]) -> list[str]:
    def mean(group: str) -> str:
        value = estimate(100 * by[group])
        return f"{value.value:.1f} [{value.low:.1f}, {value.high:.1f}]"

    return [
        name,
        *(f"{100 * by[task][0]:.1f}" for task in INSIDE),
        mean("inside"),
        *(f"{100 * by[task][0]:.1f}" for task in OUTSIDE),
        mean("outside"),
    ]
