"""This study asks what naming the task brings: the dataset of each prompt, told to heads that were fitted with tasks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine.encoders.task_columns import mark_tasks
from ipr_engine.measures.resampling import difference, estimate, one_thread
from ipr_engine.measures.routing import bounded_arqgc, cost_kept, single_curve
from ipr_engine.measures.sweeps import worth_grid, worth_sweep
from ipr_engine.training.fitted_heads import FitRows, HeadRows, fit_heads, predict
from ipr_engine.training.training_tasks import FEWEST_PROMPTS, learnt_tasks
from studies.crossed import FOLDS, folds_of, kept
from studies.equal_cost import holm, two_sided
from studies.forest import Believed, Source, pooled, seen_with_surface, source_of, worth_curve
from studies.plots import intervals
from studies.study import Study
from studies.trials import NANO, shown_difference

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

SOURCES = ("zeroeval", "bfcl", "mmlu_pro", "openllm19", "cascade9", "routerbench_sub")
MOST = 1500  # prompts of a source
FITTED = ("caps", "forest")
AT = 0.98  # of the best single candidate's quality
SAME = "test_who_names_no_task_is_decided_as_by_heads_without_tasks"  # of tests/training/test_train_tasks.py
MEASURES: Mapping[str, tuple[str, int]] = {  # as the figures name them -> as a reader does, digits
    "area": ("Area between the cheapest and the best single candidate", 3),
    "cost": (f"Cost at {AT:.0%} of the best single candidate's quality, as a share of always asking that one", 3),
    "brier": ("Brier score", 4),
}


@dataclass(frozen=True, eq=False)
class Told:
    """A `Told` is one estimator on one source: what it predicts of prompts without their task, and of those with it."""

    without: Believed
    named: Believed


@dataclass(frozen=True, eq=False)
class Seen:
    """A `Seen` is a source as heads see it: the embedding (rows, width), surface features (rows, count), and the task of each row."""

    embedding: Array
    surface: Array
    tasks: list[str | None]

    def columns(self, fit: Mask) -> dict[str, int]:
        """Return the tasks that a fit on these rows tells apart, each with its column."""
        return {
            task: at for at, task in enumerate(learnt_tasks([t for t, f in zip(self.tasks, fit, strict=True) if f]))
        }

    def x(self, columns: Mapping[str, int], *, named: bool) -> Array:
        """Return (rows, width + columns + count): a task's column is 1 where it is named and known."""
        marked = np.zeros((len(self.tasks), len(columns)), np.float32)
        if named:
            marked = mark_tasks(columns, marked, self.tasks)
        return np.concatenate([self.embedding, marked, self.surface], axis=1)


def run(study: Study) -> list[Path]:
    page = study.page("tasks", "What naming the task brings")
    page.say(
        f"""A caller may know what a prompt is for (docs/own-bundle.md, Tasks). Here a prompt's task is its dataset. Cross-fitted:
        {FOLDS} folds grouped by question, every prompt predicted by a fit that has not seen its question; a task of fewer than
        {FEWEST_PROMPTS} prompts among those that a fit sees gets no column. At most {MOST} prompts of a source, whole questions
        drawn by chance, both splits together. Costs are predicted by the same tokens head in all. *Named*: each prompt asked with
        its task. *Without*: the same heads asked without. Intervals: 95 %, {study.draws} paired draws of whole questions. *Holm*:
        over the sources of an estimator, two-sided. *Pooled*: the mean over sources, resampled source by source; *weighted*: by the
        inverse of the variance of a source's draws. Bold: the interval holds no zero, before Holm."""
    )
    page.say(
        f"""**What a call pays that names no task: nothing at a given worth, by construction.** Heads fitted with tasks predict a prompt
        without one as heads do that were fitted without tasks (`{SAME}` in tests/training/test_train_tasks.py), so *without* is
        both. At a given tau its choice may differ: tau's path is laid out on prompts with their tasks."""
    )
    figures: dict[str, dict[str, dict[str, tuple[Array, Array]]]] = {name: {} for name in FITTED}
    sources: dict[str, dict[str, int]] = {}
    unseen: dict[str, dict[str, Any]] = {}
    for case in study.cases(SOURCES):
        source = source_of(case, study.draws, MOST)
        x, width = seen_with_surface(study, source.prompts)
        seen = Seen(x[:, :width], x[:, width:], [dataset or None for dataset in source.datasets])
        sources[source.name] = dict(learnt_tasks(seen.tasks))
        for name, told in told_of(study, source, seen).items():
            figures[name][source.name] = _figures(source, told)
        unseen[source.name] = unseen_task(source, seen)
        study.progress(f"{source.name}: one dataset held out")
    for measure, (title, digits) in MEASURES.items():
        page.say(f"## {title}")
        page.table(*_table(figures, sources, measure, digits))
    page.say("## A task that no fit has seen")
    page.say(
        """One dataset is held out whole, and every prompt that shares a question with it: the most frequent of those that hold at
        most half of the prompts. Its prompts are then decided under its name, which the heads do not know, and by heads fitted on
        the same rows without tasks. *Off by*: the greatest difference of a predicted quality (the reference sums in float64, over
        more columns where there are tasks, so its last bits may differ). *Otherwise*: prompts decided otherwise at any worth
        swept."""
    )
    page.table(
        ["source", "held out", "prompts", *(f"`{name}`: off by, otherwise" for name in FITTED)],
        [
            [
                name,
                of["dataset"],
                str(of["prompts"]),
                *(f"{of[one]['off']:.0e}, {of[one]['otherwise']}" for one in FITTED),
            ]
            for name, of in unseen.items()
        ],
    )
    page.figures.update(
        tasks=sources,
        figures={
            name: {source: {measure: _json(*pair) for measure, pair in of.items()} for source, of in by.items()}
            for name, by in figures.items()
        },
        unseen=unseen,
    )
    plot = intervals(
        study.out / "tasks.png",
        {
            source: {
                name: [difference(named, without) for without, named in _first_two(by[source])]
                for name, by in figures.items()
            }
            for source in sources
        },
        ["area", f"cost at {AT:.0%}"],
        "task named minus without",
        title="What naming the task brings: better is right of zero in area, left of it in cost",
        zero=0.0,
        per_row=3,
    )
    page.plot(
        plot,
        f"Area, and cost at {AT:.0%}, with the task named minus without; 95 % intervals, each panel on a scale of its own",
    )
    return [*page.write(study.out), plot]


def told_of(study: Study, source: Source, seen: Seen) -> dict[str, Told]:
    """Predict every prompt by fits that have not seen its question, without its task and with it."""
    quality, cost = source.outcomes.quality, source.outcomes.cost

    def empty() -> Believed:
        return Believed(np.empty_like(quality), np.empty_like(cost))

    made = {name: Told(empty(), empty()) for name in FITTED}
    folds = folds_of(source.keys)
    with one_thread():
        for fold in range(FOLDS):
            out = folds == fold
            columns = seen.columns(~out)
            bare, marked = (seen.x(columns, named=named) for named in (False, True))
            ready = FitRows(_rows(source, seen, marked, len(columns)).take(~out), FOLDS, 0)
            for name, told in made.items():
                heads = fit_heads(ready, estimator=name)
                for to, x in ((told.without, bare), (told.named, marked)):
                    to.quality[out], nano = predict(heads.tensors, x[out], heads.activation)
                    to.cost[out] = nano / NANO
            study.progress(f"{source.name}: fold {fold + 1} of {FOLDS}")
    return made


def _rows(source: Source, seen: Seen, x: Array, tasks: int) -> HeadRows:
    outcomes = source.outcomes
    surface = seen.surface.shape[1]
    return HeadRows(x, outcomes.quality, outcomes.cost * NANO, source.keys, surface_dim=surface, task_dim=tasks)


def unseen_task(source: Source, seen: Seen) -> dict[str, Any]:
    """Fit without one dataset, with tasks and without; tell how far its prompts, under its name, are predicted and decided otherwise."""
    counts = Counter(seen.tasks)
    held = next((task for task, count in counts.most_common() if 2 * count <= len(seen.tasks)), seen.tasks[0])
    out = np.array([task == held for task in seen.tasks])
    asked = set(kept(source.keys, out))
    fit = ~out & np.array([key not in asked for key in source.keys])
    columns, worths = seen.columns(fit), worth_grid(source.outcomes.cost)
    found: dict[str, Any] = {"dataset": held, "prompts": int(out.sum()), "fitted": int(fit.sum())}
    for name in FITTED:
        made = []
        with one_thread():
            for known in (columns, {}):
                x = seen.x(known, named=True)
                heads = fit_heads(_rows(source, seen, x, len(known)).take(fit), estimator=name)
                quality, nano = predict(heads.tensors, x[out], heads.activation)
                made.append((quality, np.asarray(worth_sweep(quality, nano / NANO, worths))))
        (quality, chosen), (without, chosen_without) = made
        otherwise = (chosen != chosen_without).any(axis=0)
        found[name] = {"off": float(np.abs(quality - without).max()), "otherwise": int(otherwise.sum())}
    return found


def _figures(source: Source, told: Told) -> dict[str, tuple[Array, Array]]:
    """Return each measure without the task and with it, (1 + draws,) each."""
    singles = single_curve(source.outcomes, source.resamples)
    both = []
    for believed in (told.without, told.named):
        curve = worth_curve(source, believed)
        error = np.square(believed.quality - source.outcomes.quality).mean(axis=1)
        both.append(
            {
                "area": bounded_arqgc(curve, source.axis, singles),
                "cost": cost_kept(curve, source.axis, singles, AT),
                "brier": source.resamples.means(error),
            }
        )
    return {measure: (both[0][measure], both[1][measure]) for measure in MEASURES}


def _first_two(of: Mapping[str, tuple[Array, Array]]) -> Sequence[tuple[Array, Array]]:
    return of["area"], of["cost"]


def _json(without: Array, named: Array) -> dict[str, Any]:
    return {
        "without": estimate(without).to_json(),
        "named": estimate(named).to_json(),
        "difference": difference(named, without).to_json(),
        "p": two_sided(named - without),
    }


def _table(
    figures: Mapping[str, Mapping[str, Mapping[str, tuple[Array, Array]]]],
    sources: Mapping[str, Mapping[str, int]],
    measure: str,
    digits: int,
) -> tuple[list[str], list[list[str]]]:
    """Return the table of one measure: of each estimator without the task -> with it, the difference, and Holm's p."""
    rows = [[name, str(len(tasks))] for name, tasks in sources.items()] + [["pooled", ""], ["weighted", ""]]
    for by in figures.values():
        pairs = [of[measure] for of in by.values()]
        gained = [named - without for without, named in pairs]
        chances = holm([two_sided(one) for one in gained])
        for row, (without, named), chance in zip(rows, pairs, chances, strict=False):
            row += [
                f"{without[0]:.{digits}f} -> {named[0]:.{digits}f}",
                f"{shown_difference(named, without, digits=digits)}, p {chance:.3f}",
            ]
        for row, weighted in zip(rows[-2:], (False, True), strict=True):
            total = pooled(gained, weighted=weighted)
            row += ["", shown_difference(total, np.zeros_like(total), digits=digits)]
    header = ["source", "tasks"]
    for name in figures:
        header += [f"`{name}`: without -> named", "difference (Holm)"]
    return header, rows
