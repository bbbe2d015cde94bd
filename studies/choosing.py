"""This study asks what `ipr train --estimator auto` should choose by: the area, the cost at equal quality, or the Brier score.

Of each source as many prompts as a first router has are drawn, whole questions by chance, and the estimators are compared on these
alone. Each is then fitted on all of them and judged on the prompts that were not drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypedDict

import numpy as np
import numpy.typing as npt

from ipr_engine.measures.resampling import Resamples, drawn_questions, one_thread
from ipr_engine.measures.routing import (
    SHARE,
    Axis,
    WeightedOutcomes,
    bounded_arqgc,
    cost_kept,
    single_curve,
    sweep_curve,
)
from ipr_engine.measures.sweeps import worth_grid, worth_sweep
from ipr_engine.training.estimators.advantage import FORMS
from ipr_engine.training.fitted_heads import FOLDS, FitRows, HeadRows, fit_heads, predict
from ipr_engine.training.selection import EstimatorScore, PromptCosts, compare_estimators
from studies.cases import Case
from studies.headline import VIEW
from studies.study import Study
from studies.trials import NANO

Array = npt.NDArray[np.float64]

COMPARED = (*FORMS, "caps")  # what the page is of
SOURCES = ("cascade9", "routerbench_sub", "zeroeval", "mmlu_pro", "openllm19")
SIZES = {210: 10, 700: 5}  # prompts to fit on: how many draws
MOST = 4000  # prompts of a source, fitted on and judged on together
DRAWN = 5  # seed of these

# Each picks from the scores on the prompts fitted on.
CHOICES: Mapping[str, Callable[[list[EstimatorScore]], str]] = {
    "area": lambda scores: max(scores, key=lambda one: one.area).estimator,
    "cost": lambda scores: min(scores, key=lambda one: (round(float(np.mean(one.cost)), 3), -one.area)).estimator,
    "brier": lambda scores: min(scores, key=lambda one: float(np.mean(one.brier))).estimator,
    "advantage_shared": lambda scores: "advantage_shared",
    "caps": lambda scores: "caps",
}
SHOWN = {
    "area": "greatest area (`auto`)",
    "cost": f"least cost at {SHARE:.0%}, then area",
    "brier": "least Brier score",
    "advantage_shared": "always `advantage_shared`",
    "caps": "always `caps`",
}


class Trial(TypedDict):
    """A `Trial` is one draw: what each of `CHOICES` chooses, and [area, cost] of every estimator on the prompts that were not drawn."""

    chosen: dict[str, str]
    judged: dict[str, list[float]]


def run(study: Study) -> list[Path]:
    page = study.page("choosing", "What to choose an estimator by")
    sizes, draws = " or ".join(map(str, SIZES)), " and ".join(map(str, SIZES.values()))
    page.say(
        f"""Of each source {sizes} prompts are drawn, whole questions by chance, {draws} times. On these alone the closed forms are
        compared as `ipr train --estimator auto` does. Then each is fitted on all of them and judged on the rest of at most {MOST}
        prompts of the source, both splits together. Figures: Bounded-ARQGC of the sweep of worth (greater is better) / cost at
        {SHARE:.0%} of the best single candidate's quality, as a share of what that candidate costs (less is better); means over the
        draws. In brackets: the standard error over draws, all sources together."""
    )
    cases = study.cases(SOURCES)
    for size, times in SIZES.items():
        found = {case.name: [_trial(study, case, size, seed) for seed in range(times)] for case in cases}
        page.figures[str(size)] = found
        page.say(f"## {size} prompts")
        rows = []
        for choice, shown in SHOWN.items():
            every = np.array([[t["judged"][t["chosen"][choice]] for t in trials] for trials in found.values()])
            mine = np.array([[t["judged"][t["chosen"]["area"]] for t in trials] for trials in found.values()])
            cells = [f"{area:.3f} / {cost:.3f}" for area, cost in every.mean(axis=1)]
            behind = (every - mine).reshape(-1, 2)
            error = behind.std(axis=0, ddof=1) / np.sqrt(len(behind))
            beside = [f"{d:+.4f} ({e:.4f})" for d, e in zip(behind.mean(axis=0), error, strict=True)]
            means = every.mean(axis=(0, 1))
            rows.append(
                [shown, f"{means[0]:.3f} / {means[1]:.3f}", "" if choice == "area" else " / ".join(beside), *cells]
            )
        page.table(["chosen by", "mean", "minus the area's choice", *found], rows)
    return page.write(study.out)


def _trial(study: Study, case: Case, size: int, seed: int) -> Trial:
    """Draw prompts, choose on them, and judge on the rest."""
    parts = (case.train, case.test)
    keys = [key for part in parts for key in part.data.question_keys]
    prompts = [prompt for part in parts for prompt in part.data.prompts]
    quality, cost = (np.concatenate([getattr(part, name) for part in parts]) for name in ("quality", "cost"))
    kept = drawn_questions(keys, MOST, seed=DRAWN)
    keys, prompts = ([one for one, k in zip(of, kept, strict=True) if k] for of in (keys, prompts))
    rows = HeadRows(study.views.see(VIEW, prompts), quality[kept], cost[kept] * NANO, keys)
    drawn = drawn_questions(keys, size, seed=100 + seed)
    fitted, rest, paid = rows.take(drawn), rows.take(~drawn), cost[kept]
    study.progress(f"{case.name}: draw {seed + 1} of {size} prompts")
    with one_thread():
        billed = PromptCosts(paid[drawn], np.zeros_like(paid[drawn]), np.full(len(case.models), 1 / NANO))
        scores = compare_estimators(fitted, billed, estimators=COMPARED)
        ready = FitRows(fitted, FOLDS, 0)
        judged = {name: _judged(ready, name, rest, paid[~drawn]) for name in COMPARED}
    return {"chosen": {name: choose(scores) for name, choose in CHOICES.items()}, "judged": judged}


def _judged(ready: FitRows, estimator: str, rest: HeadRows, paid: Array) -> list[float]:
    """Return area and cost of an estimator's heads on the rest."""
    heads = fit_heads(ready, estimator=estimator)
    quality, nano = predict(heads.tensors, np.asarray(rest.x, np.float64), heads.activation)
    outcomes = WeightedOutcomes.complete(rest.quality, paid)
    once, axis = Resamples(outcomes.rows, draws=0), Axis.of(outcomes)
    singles = single_curve(outcomes, once)
    curve = sweep_curve(worth_sweep(quality, nano / NANO, worth_grid(paid)), outcomes, once)
    return [float(bounded_arqgc(curve, axis, singles)[0]), float(cost_kept(curve, axis, singles)[0])]
