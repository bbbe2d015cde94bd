"""This study leaves one candidate out and adds it back from 200 answers: random or chosen prompts, two ways to fit."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine.evaluation.plot_style import BLUE, GREEN, ORANGE, RED, STYLE
from ipr_engine.measures.resampling import difference, estimate, one_thread
from ipr_engine.measures.sweeps import worth_sweep
from ipr_engine.training.add.candidate_row import Row, fit_row
from ipr_engine.training.add.chosen_prompts import choose_prompts
from ipr_engine.training.add.imputed_quality import MOST_PROMPTS, imputed_row, own_tells_more, rows_to_impute
from ipr_engine.training.fitted_heads import FittedHeads, predict
from studies.cases import Case
from studies.headline import VIEW
from studies.leave_one_out import fit_columns
from studies.pages import Page
from studies.study import Study
from studies.trials import NANO, area, shown, shown_difference

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
Task = tuple[Case, Array, Array, int | None]
"""A source with the embeddings of its train and test prompts, and the candidate to leave out."""
Method = tuple[str, str]
"""Which prompts, and what the row is fitted on."""

SOURCES = ("zeroeval", "routerbench_sub", "cascade9", "mmlu_pro")
SETTINGS_FROM = ("zeroeval", "routerbench_sub")  # the sources that settings were picked on
ANSWERS = 200
DRAWS = 10
RESAMPLES = 300  # of the test prompts
GOAL = 0.8
RANDOM, CHOSEN = "random", "contested"
OWN, PRODUCT = "its own outcomes", "as add-model does"
METHODS = tuple((prompts, fitted) for fitted in (OWN, PRODUCT) for prompts in (RANDOM, CHOSEN))
PLAIN, DEFAULT, ASKED = (RANDOM, OWN), (RANDOM, PRODUCT), (CHOSEN, PRODUCT)
DIFFERENCES = ((ASKED, DEFAULT), (DEFAULT, PLAIN), (ASKED, PLAIN))
COLOURS = (ORANGE, RED, GREEN, BLUE)
PROCESSES = 4
MOST_TRAINED = 3000  # train prompts of a source, drawn once: mmlu_pro's 9,490 would take an hour


@dataclass
class LeftOut:
    """A `LeftOut` is what one candidate was worth, left out and added back.

    Attributes:
        without: (1 + resamples,) area without it.
        areas: method -> (draws, 1 + resamples) area with it added. brier: method -> (draws,).
        kept_own: prompts -> draws in which `add_model` keeps the row of its own outcomes.
    """

    without: Array
    areas: dict[Method, Array]
    brier: dict[Method, Array]
    kept_own: dict[str, int]


@dataclass
class Shares:
    """`Shares` is one source.

    Attributes:
        left_out: of each candidate. full: (1 + resamples,) area of heads of all.
        full_brier, constant: (models,) Brier score of the refit and of the training mean.
    """

    name: str
    models: tuple[str, ...]
    prompts: int
    left_out: list[LeftOut]
    full: Array
    full_brier: Array
    constant: Array

    @property
    def total(self) -> Array:
        """Return (1 + resamples,) what all candidates add when everything is refitted; NaN where that is nothing."""
        total = np.sum([self.full - one.without for one in self.left_out], axis=0)
        return np.where(total > 0, total, np.nan)

    def added(self, method: Method) -> Array:
        """Return (draws, 1 + resamples) what the candidates add to the area, all together."""
        return np.asarray(np.sum([one.areas[method] - one.without for one in self.left_out], axis=0))

    def mean_added(self, method: Method) -> Array:
        """Return (1 + resamples,) the mean over draws, in a resample over resampled draws: the same ones of the same prompts."""
        added, random = self.added(method), np.random.default_rng((RANDOM, CHOSEN).index(method[0]))
        counts = random.multinomial(DRAWS, np.full(DRAWS, 1 / DRAWS), size=added.shape[1])  # (1 + resamples, draws)
        counts[0] = 1
        return np.asarray((counts.T * added).mean(axis=0))

    def share(self, method: Method) -> Array:
        """Return (1 + resamples,) `mean_added` over what all add when everything is refitted."""
        return self.mean_added(method) / self.total

    def brier_gain(self, method: Method) -> Array:
        """Return (draws,) share of the refit's gain in Brier score over the training mean, all together."""
        score = np.sum([one.brier[method] for one in self.left_out], axis=0)
        return np.asarray((self.constant.sum() - score) / (self.constant - self.full_brier).sum())


def run(study: Study) -> list[Path]:
    page = study.page(
        "chosen_prompts", f"A candidate added from {ANSWERS} answers: which prompts, and what its row is fitted on"
    )
    page.say(
        f"""Each candidate in turn is left out, heads (`caps`, static encoder) are fitted on the others' train split and frozen, and it is
        added back from {ANSWERS} of its train outcomes, {DRAWS} draws. Prompts are *random* or *contested*
        (`ipr add-model --draw contested`, `ipr_engine/training/add/chosen_prompts.py`). The row is fitted on *its own outcomes*, or *as
        add-model does*: on the whole table (at most {MOST_PROMPTS} prompts), where the others' outcomes say what it would have scored
        (`ipr_engine/training/add/imputed_quality.py`), unless a row of its own outcomes predicts its answers better out of fold, by more
        than two standard errors."""
    )
    page.say(
        f"""*Share*: Bounded-ARQGC, worth swept, on test, minus that without the candidate, over the same for all candidates fitted together
        on the whole train split. Both are summed over candidates first: alone, many add next to nothing, and a share of that is
        undefined. Some add less than nothing, which counts, too. Mean over draws; in brackets 95 % of {RESAMPLES} resamples of test prompts
        and draws, of test prompts the same ones for all methods. Where few prompts tell what a refit
        gains, the interval is wide. The candidates are those of the source: other ones may do otherwise."""
    )
    page.say(
        f"""Settings (the prior's widths, the weight of imputed rows, the floor of the draw) were picked by log loss on training prompts
        of all four, and by area on the test splits of {" and ".join(SETTINGS_FROM)}, by other draws: these two figures are favourable.
        Of a source at most {MOST_TRAINED} train prompts are taken, drawn once, for the refit, too."""
    )
    tasks: list[Task] = [(*seen, m) for seen in seen_cases(study) for m in (None, *range(len(seen[0].models)))]
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
        parts = []
        for task, part in zip(tasks, pool.map(measured_part, tasks), strict=True):
            study.progress(f"{task[0].name}: {'all' if task[3] is None else task[0].models[task[3]]} is done")
            parts.append(part)
    found = [
        joined_parts(case, [part for task, part in zip(tasks, parts, strict=True) if task[0] is case])
        for case in dict.fromkeys(task[0] for task in tasks)
    ]
    _tables(page, found)
    study.out.mkdir(parents=True, exist_ok=True)
    plot = _plot(found, study.out / "chosen_prompts.png")
    page.plot(
        plot,
        f"Share of the full refit's gain in area from {ANSWERS} answers, mean of {DRAWS} draws; dots: single draws",
    )
    return [*page.write(study.out), plot]


def seen_cases(study: Study) -> Iterator[tuple[Case, Array, Array]]:
    """Yield each case with the embeddings of its prompts, of train and of test."""
    for case in study.cases(SOURCES):
        rows = np.sort(np.random.default_rng(0).permutation(len(case.train.quality))[:MOST_TRAINED])
        less = Case(case.name, case.note, case.train.take(rows), case.test, RESAMPLES)
        train_x, test_x = (study.views.see(VIEW, part.data.prompts) for part in (less.train, less.test))
        yield less, train_x, test_x


def measured_part(task: Task) -> Any:
    """Fit heads of all candidates, or leave one out: a part of a source, for a process of its own."""
    case, train_x, test_x, m = task
    with one_thread():
        if m is not None:
            return _leave_out(case, m, train_x, test_x)
        everyone = fit_columns(case, train_x, list(range(len(case.models))), None)
        quality, cost = predict(everyone.tensors, test_x, everyone.activation)
        return area(case, worth_sweep(quality, cost / NANO)), np.square(quality - case.test.quality).mean(axis=0)


def joined_parts(case: Case, parts: list[Any]) -> Shares:
    """Return a source of its parts: `measured_part` of all candidates, then of each one left out."""
    (full, full_brier), *left_out = parts
    return Shares(
        name=case.name,
        models=case.models,
        prompts=len(case.train.quality),
        left_out=left_out,
        full=full,
        full_brier=full_brier,
        constant=np.square(case.train.quality.mean(axis=0) - case.test.quality).mean(axis=0),
    )


def _leave_out(case: Case, m: int, train_x: Array, test_x: Array) -> LeftOut:
    others = [k for k in range(len(case.models)) if k != m]
    heads = fit_columns(case, train_x, others, None)
    quality, cost = predict(heads.tensors, test_x, heads.activation)
    without = area(case, np.array(others)[worth_sweep(quality, cost / NANO)])
    areas: dict[Method, list[Array]] = {method: [] for method in METHODS}
    brier: dict[Method, list[float]] = {method: [] for method in METHODS}
    kept_own = dict.fromkeys((RANDOM, CHOSEN), 0)
    table = case.train.quality[:, others]
    for draw in range(DRAWS):
        for prompts in kept_own:
            if prompts == RANDOM:
                asked = np.sort(np.random.default_rng([m, draw]).choice(len(train_x), ANSWERS, replace=False))
            else:
                asked = choose_prompts(table, ANSWERS, seed=1000 * m + draw)
            own, product = _rows(case, m, heads, train_x, asked, draw)
            kept_own[prompts] += product is own
            for fitted, row in ((OWN, own), (PRODUCT, product)):
                joined = {name: np.concatenate([heads.tensors[name], part[None]]) for name, part in row.items()}
                both = predict({**heads.tensors, **joined}, test_x, heads.activation)
                choices = worth_sweep(
                    np.insert(quality, m, both[0][:, -1], axis=1), np.insert(cost, m, both[1][:, -1], axis=1) / NANO
                )
                areas[prompts, fitted].append(area(case, choices))
                brier[prompts, fitted].append(float(np.square(both[0][:, -1] - case.test.quality[:, m]).mean()))
    return LeftOut(
        without,
        {method: np.array(found) for method, found in areas.items()},
        {method: np.array(found) for method, found in brier.items()},
        kept_own,
    )


def _rows(case: Case, m: int, heads: FittedHeads, train_x: Array, asked: Indices, seed: int) -> tuple[Row, Row]:
    """Fit a candidate's row on its outcomes on the prompts asked alone, and as `add_model` does: the same one where it keeps that."""
    known = np.full(len(train_x), np.nan)
    known[asked] = case.train.quality[asked, m]
    spent = np.where(np.isnan(known), np.nan, case.train.cost[:, m] * NANO)
    keys = np.array(case.train.data.question_keys)
    own = fit_row(
        heads.tensors, heads.activation, train_x[asked], known[asked], spent[asked], keys[asked].tolist(), seed=seed
    )
    rows = rows_to_impute(known, seed=seed)
    imputed = imputed_row(
        heads.tensors,
        heads.activation,
        train_x[rows],
        known[rows],
        np.delete(case.train.quality[rows], m, axis=1),
        spent[rows],
        keys[rows].tolist(),
        seed=seed,
    )
    kept = own_tells_more(own.out_of_fold_quality, imputed.out_of_fold_quality, known[asked])
    return own.tensors, own.tensors if kept else imputed.tensors


def _tables(page: Page, found: list[Shares]) -> None:
    header = ["source", "candidates", "train prompts", *(", ".join(method) for method in METHODS)]
    page.say(f"## Share of the full refit's gain in area, {ANSWERS} answers")
    page.table(header, [[*_about(s), *(shown(s.share(method), digits=2) for method in METHODS)] for s in found])
    for method in METHODS:
        names = [s.name for s in found if s.share(method)[0] >= GOAL]
        page.say(f"- {GOAL:.0%} with {' prompts, '.join(method)}: {_counted(names, found)}.")
    page.say(
        "Differences in area, mean over candidates left out and added back; bold where the interval leaves out zero."
    )
    page.table(
        ["source", *(f"{', '.join(one)} - {', '.join(other)}" for one, other in DIFFERENCES)],
        [[s.name, *(shown_difference(*_difference(s, *pair), digits=4) for pair in DIFFERENCES)] for s in found],
    )
    page.say(f"## Share of the full refit's gain in Brier score, {ANSWERS} answers")
    page.say("Mean over draws, plus or minus 1.96 standard errors of the draws.")
    page.table(header, [[*_about(s), *(_spread(s.brier_gain(method)) for method in METHODS)] for s in found])
    page.say("## What is behind them")
    page.say(
        """*Gain of a refit*: area, summed over candidates. *The greatest*: the candidate that adds the most, and how much. *Own row kept*:
        share of draws and candidates in which `add-model` imputes nothing."""
    )
    page.table(
        ["source", "gain of a refit", "the greatest", "candidates that add", "own row kept, random", "contested"],
        [_behind(s) for s in found],
    )
    for s in found:
        page.figures[s.name] = shares_facts(s)


def _about(s: Shares) -> list[str]:
    return [s.name, str(len(s.models)), f"{s.prompts:,}"]


def _counted(names: list[str], found: list[Shares]) -> str:
    return f"{len(names)} of {len(found)} ({', '.join(names) or 'none'})"


def _difference(s: Shares, method: Method, baseline: Method) -> tuple[Array, Array]:
    """Return both (1 + resamples,) by candidate."""
    return s.mean_added(method) / len(s.models), s.mean_added(baseline) / len(s.models)


def _behind(s: Shares) -> list[str]:
    gains = np.array([s.full[0] - one.without[0] for one in s.left_out])
    draws = DRAWS * len(s.left_out)
    kept = [f"{sum(one.kept_own[prompts] for one in s.left_out) / draws:.0%}" for prompts in (RANDOM, CHOSEN)]
    first = f"{s.models[int(gains.argmax())]}, {gains.max():.3f}"
    return [s.name, f"{gains.sum():.3f}", first, str(int((gains > 0).sum())), *kept]


def shares_facts(s: Shares) -> dict[str, Any]:
    """Return a source as plain JSON types."""
    return {
        "models": list(s.models),
        "without": [float(one.without[0]) for one in s.left_out],
        "full": float(s.full[0]),
        "kept_own": {prompts: [one.kept_own[prompts] for one in s.left_out] for prompts in (RANDOM, CHOSEN)},
        "differences": {
            f"{', '.join(one)} - {', '.join(other)}": difference(*_difference(s, one, other)).to_json()
            for one, other in DIFFERENCES
        },
        **{
            ", ".join(method): {
                "share": estimate(s.share(method)).to_json(),
                "gain": _draws(s, method).tolist(),
                "brier_gain": s.brier_gain(method).tolist(),
                "areas": [float(one.areas[method][:, 0].mean()) for one in s.left_out],
            }
            for method in METHODS
        },
    }


def _draws(s: Shares, method: Method) -> Array:
    """Return (draws,) shares, on the whole test split."""
    return np.asarray(s.added(method)[:, 0] / s.total[0])


def _spread(draws: Array) -> str:
    return f"{draws.mean():.2f} ± {1.96 * draws.std(ddof=1) / np.sqrt(len(draws)):.2f}"


def _plot(found: list[Shares], path: Path) -> Path:
    matplotlib = importlib.import_module("matplotlib")
    matplotlib.use("Agg")
    pyplot = importlib.import_module("matplotlib.pyplot")
    style: Mapping[str, Any] = STYLE
    with pyplot.rc_context(style):
        figure, ax = pyplot.subplots(figsize=(11, 5), layout="constrained")
        for i, (method, colour) in enumerate(zip(METHODS, COLOURS, strict=True)):
            at = np.arange(len(found)) + 0.2 * (i - 1.5)
            gains = [_draws(s, method) for s in found]
            ax.bar(at, [100 * gain.mean() for gain in gains], 0.18, color=colour, alpha=0.75, label=", ".join(method))
            for place, gain in zip(at, gains, strict=True):
                ax.plot(np.full(len(gain), place), 100 * gain, ".", color="#333333", ms=4)
        ax.axhline(100 * GOAL, color="#777777", lw=1, ls=(0, (4, 3)))
        ax.set_xticks(range(len(found)), [s.name for s in found])
        ax.set_ylabel("gain in area, % of the full refit's")
        figure.legend(loc="outside lower center", ncols=4, fontsize=10)
        figure.savefig(path, metadata={"Software": None})
        pyplot.close(figure)
    return path
