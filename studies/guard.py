"""This study asks what it costs and brings to let a decision hold only where it holds without the prompt's last and first words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine.evaluation.robust_to_edits import SHARE, redecided_figures
from ipr_engine.evaluation.searched_suffix import WORDS, searched_suffix, words_of
from ipr_engine.measures.resampling import Estimate, one_thread, resamples_of
from ipr_engine.measures.routing import SHARES, bounded_arqgc
from ipr_engine.measures.sweeps import worth_sweep
from ipr_engine.training.fitted_heads import FittedHeads, HeadRows, fit_heads, predict
from studies.crossed import FOLDS, folds_of
from studies.edits import cut_of
from studies.equal_cost import EqualCost
from studies.forest import Believed, Source, seen_with_surface, source_of
from studies.plots import intervals
from studies.study import Study
from studies.trials import NANO, shown, shown_difference, shown_percent

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.integer]
Mask = npt.NDArray[np.bool_]

SOURCES = ("zeroeval", "cascade9", "openllm19")
MOST = 1500  # prompts of a source
TRIED = 1500  # words of the search
LONGER = 2 * WORDS  # a suffix that the guard was not made for
ARMS: Mapping[str, tuple[str, bool]] = {  # name -> estimator, whether fitted on prompts without their ends, too
    "caps": ("caps", False),
    "caps, ends cut": ("caps", True),
    "forest": ("forest", False),
    "forest, ends cut": ("forest", True),
}


def without_first(prompt: str) -> str:
    """Return the prompt without its first words; of no more words than these as it is."""
    return " ".join(prompt.split()[WORDS:]) or prompt


READINGS: tuple[Callable[[str], str], ...] = (str, cut_of, without_first)
GUARDS: Mapping[str, int] = {"whole": 1, "behind": 2, "both ends": 3}  # name -> how many of the readings are decided


@dataclass(eq=False)
class Guarded:
    """A `Guarded` is one arm on one source.

    Attributes:
        readings: what it predicts of every prompt, and of it without its last and first words. heads: of the first fold.
    """

    readings: list[Believed]
    heads: list[FittedHeads] = field(default_factory=list)


def run(study: Study) -> list[Path]:
    page = study.page("guard", "Decisions that must hold without a prompt's ends")
    page.say(
        f"""Whoever chooses the words of a prompt can put some behind it that ask for a dearer candidate ([edits.md](edits.md)). A guard:
        the prompt is decided as it is and without its last {WORDS} words (*behind*), or without its first {WORDS} as well (*both ends*),
        each at the same worth, and the choice that costs least by what is predicted of the prompt as it is stands. A prompt of no
        more than {WORDS} words has no end to cut. So words behind a prompt cannot buy more than it asks for by itself; they can
        still undo what its own cut saved."""
    )
    page.say(
        f"""Cross-fitted: {FOLDS} folds grouped by question, every prompt predicted by a fit that has not seen its question. At most
        {MOST} prompts of a source, whole questions drawn by chance, both splits together. *Ends cut*: fitted on every prompt without its
        last words and without its first ones as well, with the prompt's outcomes. Setting of each: the cheapest worth
        that keeps {SHARE:.0%} of the best single candidate's quality under its own guard. Intervals: 95 %, {study.draws} paired draws of
        whole questions; bold where zero is outside."""
    )
    worth_of: list[list[str]] = []
    searched: dict[str, dict[str, dict[str, Any]]] = {}
    areas: dict[str, dict[str, dict[str, Any]]] = {}
    for case in study.cases(SOURCES):
        source = source_of(case, study.draws, MOST)
        judge = EqualCost(source.outcomes, source.keys, study.draws)
        arms = _fitted(study, source)
        areas[source.name] = {}
        searched[source.name] = {}
        for name, arm in arms.items():
            rows, areas[source.name][name] = _worth(source, judge, name, arm)
            worth_of += rows
            searched[source.name][name] = _searched(study, source, judge, arm)
            study.progress(f"{source.name}: words are searched against {name}")
    page.say("## What the guard costs")
    page.table(
        ["source", "fit", "guard", "area", "minus it without a guard", f"cost at {SHARE:.0%}", "over it without"],
        worth_of,
    )
    page.say("## What searched words raise")
    page.say(
        f"""{WORDS} words, found on the prompts of four folds and put behind (*before*: in front of) those of the fifth; the search asks the
        guarded router, so it knows the guard ({TRIED} words tried, `searched_suffix`). *{LONGER} words*: more than the guard cuts. Mean
        cost raised."""
    )
    header = ["source", "fit", "guard", "behind", "before", f"{LONGER} words behind"]
    page.table(
        header,
        [
            [source, name, guard, *(shown_percent(found[key]) for key in ("behind", "before", "longer"))]
            for source, of in searched.items()
            for name, guards in of.items()
            for guard, found in guards.items()
        ],
    )
    page.figures.update(areas=areas, searched=searched)
    plot = intervals(
        study.out / "guard.png",
        {
            source: {guard: [_estimate(of[name][guard]["behind"]) for name in ARMS] for guard in GUARDS}
            for source, of in searched.items()
        },
        list(ARMS),
        "mean cost raised by 25 searched words behind every prompt",
        title="Searched words, by guard",
        zero=0.0,
    )
    page.plot(plot, f"Mean cost raised by {WORDS} searched words behind every prompt, by guard; 95 % intervals.")
    return [*page.write(study.out), plot]


def _fitted(study: Study, source: Source) -> dict[str, Guarded]:
    """Predict all readings of the prompts by every arm."""
    quality, cost = source.outcomes.quality, source.outcomes.cost
    seen, width = zip(
        *(seen_with_surface(study, [read(prompt) for prompt in source.prompts]) for read in READINGS), strict=True
    )
    whole, *cut = seen
    arms = {name: Guarded([Believed(np.empty_like(quality), np.empty_like(cost)) for _ in READINGS]) for name in ARMS}
    folds = folds_of(source.keys)
    with one_thread():
        for fold in range(FOLDS):
            out = folds == fold
            for name, (estimator, ends) in ARMS.items():
                rows = HeadRows(
                    whole,
                    quality,
                    cost * NANO,
                    source.keys,
                    surface_dim=whole.shape[1] - width[0],
                    otherwise=tuple(cut) if ends else (),
                )
                made = fit_heads(rows.take(~out), estimator=estimator)
                if fold == 0:
                    arms[name].heads.append(made)
                for x, to in zip(seen, arms[name].readings, strict=True):
                    to.quality[out], nano = predict(made.tensors, x[out], made.activation)
                    to.cost[out] = nano / NANO
            study.progress(f"{source.name}: fold {fold + 1} of {FOLDS}")
    return arms


def guarded(readings: Sequence[Believed], worths: Array) -> Indices:
    """Choose for each reading, and take of each prompt the choice that costs least by what is predicted of the first; (worths, rows)."""
    rows = np.arange(len(readings[0].cost))
    chosen = np.stack([np.asarray(worth_sweep(one.quality, one.cost, worths)) for one in readings])
    paid = readings[0].cost[rows, chosen]  # (readings, worths, rows)
    return np.asarray(np.take_along_axis(chosen, paid.argmin(axis=0)[None], axis=0)[0])


def _worth(source: Source, judge: EqualCost, name: str, arm: Guarded) -> tuple[list[list[str]], dict[str, Any]]:
    """Return the table's rows of one arm, and its areas: under each guard, and beside none."""
    curves = {guard: judge.curve(guarded(arm.readings[:count], judge.worths)) for guard, count in GUARDS.items()}
    areas = {guard: bounded_arqgc(curve, judge.axis, judge.singles) for guard, curve in curves.items()}
    at = SHARES.index(SHARE)
    costs = {guard: judge.costs(curve)[at] for guard, curve in curves.items()}
    rows = []
    for guard in GUARDS:
        beside = "" if guard == "whole" else shown_difference(areas[guard], areas["whole"])
        ratio = "" if guard == "whole" else shown(costs[guard] / costs["whole"], digits=2)
        rows.append([source.name, name, guard, shown(areas[guard]), beside, shown(costs[guard]), ratio])
    return rows, {guard: float(area[0]) for guard, area in areas.items()}


def _searched(study: Study, source: Source, judge: EqualCost, arm: Guarded) -> dict[str, Any]:
    """Search words against the fit without the first fold, and judge them on that fold, under each guard."""
    out = folds_of(source.keys) == 0
    prompts, others = (
        [p for p, o in zip(source.prompts, out, strict=True) if bool(o) is which] for which in (True, False)
    )
    outcomes, spent = source.outcomes.subset(out), source.outcomes.cost.mean(axis=0)
    resamples = resamples_of([key for key, o in zip(source.keys, out, strict=True) if o], draws=study.draws)
    words = words_of(others)[:TRIED]
    made = {}
    for guard, count in GUARDS.items():
        choices = guarded(arm.readings[:count], judge.worths)
        at = judge.setting_at(judge.curve(choices), SHARE)
        place = len(judge.worths) - 1 if at is None else at
        before = choices[place][out]

        def decided(texts: Sequence[str], count: int = count, place: int = place) -> Indices:
            readings = []
            for read in READINGS[:count]:
                x = seen_with_surface(study, [read(text) for text in texts])[0]
                quality, nano = predict(arm.heads[0].tensors, x, arm.heads[0].activation)
                readings.append(Believed(quality, nano / NANO))
            return np.asarray(guarded(readings, judge.worths[[place]])[0])

        def cost(texts: Sequence[str], decided: Callable[[Sequence[str]], Indices] = decided) -> Array:
            return np.asarray(spent[decided(texts)])

        found = {}
        for length in (WORDS, LONGER):
            suffix = searched_suffix(words, others, cost, length=length)
            found[length] = decided([prompt + suffix for prompt in prompts])
            if length == WORDS:
                in_front = decided([f"{suffix[1:]} {prompt}" for prompt in prompts])
        made[guard] = {
            key: redecided_figures(before, after, outcomes, resamples)["raised"]
            for key, after in (("behind", found[WORDS]), ("before", in_front), ("longer", found[LONGER]))
        }
    return made


def _estimate(figure: Mapping[str, Any]) -> Estimate:
    return Estimate(figure["value"], figure["low"], figure["high"])
