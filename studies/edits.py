"""This study asks whether decisions withstand edits of the prompts, and suffixes, and what copies written otherwise bring to a fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine.data.prompt_edits import EDITS, MATHS, written_otherwise
from ipr_engine.evaluation.baselines import kmeans
from ipr_engine.evaluation.robust_to_edits import LOST, RAISED, SHARE, SUPPORTED, redecided_figures, verdict_of
from ipr_engine.evaluation.robust_to_edits_text import FAILS
from ipr_engine.evaluation.searched_suffix import WORDS, searched_suffix, words_of
from ipr_engine.measures.resampling import one_thread, resamples_of
from ipr_engine.measures.routing import bounded_arqgc, single_curve
from ipr_engine.measures.sweeps import worth_grid, worth_sweep
from ipr_engine.training.fitted_heads import FittedHeads, HeadRows, fit_heads, predict
from ipr_engine.training.fitted_parts import fit_support, nearest_distance
from studies.crossed import FOLDS, folds_of
from studies.forest import CLUSTERS, Believed, Source, seen_with_surface, source_of, worth_curve
from studies.study import Study
from studies.trials import NANO, shown, shown_difference, shown_percent

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.integer]
Mask = npt.NDArray[np.bool_]

SOURCES = ("zeroeval", "cascade9", "openllm19")
MOST = 1500  # prompts of a source
COPIES = 1
KMEANS, CAPS, FOREST = "k-means", "caps", "forest"
ARMS: Mapping[str, tuple[str, int]] = {  # name -> estimator, copies
    CAPS: ("caps", 0),
    FOREST: ("forest", 0),
    f"{CAPS}, copies": ("caps", COPIES),
    f"{FOREST}, copies": ("forest", COPIES),
}
ALL = (KMEANS, *ARMS)
SENTENCE = "a sentence of mathematics behind it"
TRIED = 1500  # words of the search
CENTROIDS = 64


@dataclass(eq=False)
class Judged:
    """A `Judged` is one arm on one source.

    Attributes:
        plain, cut: what it predicts of the prompts, and of those without their last 25 words. edited: of each edit.
        heads: of the first fold, None of k-means. worth, before: the setting and what it chooses of the prompts as they are.
    """

    plain: Believed
    cut: Believed
    edited: dict[str, Believed]
    heads: FittedHeads | None = None
    worth: Array = field(default_factory=lambda: np.zeros(1))
    before: Indices = field(default_factory=lambda: np.zeros(0, np.int64))


def run(study: Study) -> list[Path]:
    page = study.page("edits", "Prompts written otherwise, and suffixes that ask for a dearer candidate")
    page.say(
        f"""Cross-fitted: {FOLDS} folds grouped by question, every prompt predicted by a fit that has not seen its question. At most
        {MOST} prompts of a source, whole questions drawn by chance, both splits together. *Copies*: fitted on {COPIES} copy of every
        prompt, written otherwise, too (`ipr train --augment {COPIES}`). The greetings of the copies are not those of the edit
        *politeness*. Setting of each: the cheapest worth that keeps {SHARE:.0%} of the best single candidate's quality on the prompts
        as they are. Outcomes and costs are those of the prompts as they are (docs/metrics.md, section 8). Intervals: 95 %,
        {study.draws} paired draws of whole questions; bold where zero is outside."""
    )
    areas: list[list[str]] = []
    edits: dict[str, dict[str, dict[str, Any]]] = {}
    suffixes: dict[str, dict[str, dict[str, Any]]] = {}
    for case in study.cases(SOURCES):
        source = source_of(case, study.draws, MOST)
        x, width = seen_with_surface(study, source.prompts)
        arms = _judged(study, source, x, width)
        areas += _areas(source, arms)
        edits[source.name] = {arm: _edited(source, of) for arm, of in arms.items()}
        suffixes[source.name] = {
            arm: _suffixed(study, source, of, x, width) for arm, of in arms.items() if of.heads is not None
        }
    page.say("## Area and Brier score")
    page.table(["source", "", "area", "minus it without copies", "Brier"], areas)
    page.say("## Nine edits and a sentence")
    page.say(
        f"""Means over sources: decisions flipped; mean quality lost; mean cost raised. In brackets: on how many of the sources it *fails*,
        an interval of quality lost wholly above {LOST:g} or of cost raised wholly above {RAISED:.0%}."""
    )
    page.table(["", *ALL], [[edit, *(_cell(edits, arm, edit) for arm in ALL)] for edit in (*EDITS, SENTENCE)])
    page.say("## Words found by a search")
    page.say(
        f"""{WORDS} words behind every prompt of one fold, found on the prompts of the others (`searched_suffix`, of {TRIED} words; the
        search counts prompts of support below {SUPPORTED:g} as nothing won). Mean cost raised by them, and in brackets where such prompts
        count as decided as before; the share of those. *Cut*: each prompt is decided as it is and without its last {WORDS} words, and
        the cheaper candidate is taken: what that changes of plain prompts (flipped; quality lost; cost raised), what the words raise
        then, and what they raise that stand before the prompt."""
    )
    page.table(
        ["source", "", "cost raised", "unsupported", "cut: plain prompts", "cut: words behind", "cut: words before"],
        [[name, arm, *_suffix_cells(found)] for name, of in suffixes.items() for arm, found in of.items()],
    )
    page.figures.update(edits=edits, suffixes=suffixes)
    return page.write(study.out)


def _judged(study: Study, source: Source, x: Array, width: int) -> dict[str, Judged]:
    """Predict the prompts, their edits, and the prompts cut, by every arm. width: columns of the embedding in x."""

    def seen(texts: Sequence[str]) -> Array:
        return seen_with_surface(study, texts)[0]

    quality, cost = source.outcomes.quality, source.outcomes.cost
    texts = {name: seen([edit(prompt) for prompt in source.prompts]) for name, edit in EDITS.items()}
    texts[SENTENCE] = seen([prompt + MATHS for prompt in source.prompts])
    cut = seen([cut_of(prompt) for prompt in source.prompts])
    otherwise = tuple(seen(copy) for copy in written_otherwise(source.prompts, COPIES))
    rows = HeadRows(x, quality, cost * NANO, source.keys, surface_dim=x.shape[1] - width, otherwise=otherwise)

    def empty() -> Believed:
        return Believed(np.empty_like(quality), np.empty_like(cost))

    arms = {name: Judged(empty(), empty(), {edit: empty() for edit in texts}) for name in ALL}
    folds = folds_of(source.keys)
    asked = [x, cut, *texts.values()]
    with one_thread():
        for fold in range(FOLDS):
            out = folds == fold
            given = rows.take(~out)
            for name, (estimator, copies) in ARMS.items():
                made = fit_heads(given if copies else replace(given, otherwise=()), estimator=estimator)
                arms[name].heads = arms[name].heads or made  # of fold 0
                found = [predict(made.tensors, z[out], made.activation) for z in asked]
                _put(arms[name], out, [(q, nano / NANO) for q, nano in found])
            at = np.concatenate([z[out, :width] for z in asked])
            fit = kmeans(x[~out, :width], source.outcomes.subset(~out), folds_of(given.keys), at, CLUSTERS)
            parts = [np.split(of, len(asked)) for of in (fit.quality, fit.cost)]
            _put(arms[KMEANS], out, list(zip(*parts, strict=True)))
            study.progress(f"{source.name}: fold {fold + 1} of {FOLDS}")
    worths = worth_grid(cost)
    for arm in arms.values():
        arm.worth, arm.before = _setting(source, arm.plain, worths)
    return arms


def _put(arm: Judged, rows: Mask, found: Sequence[tuple[Array, Array]]) -> None:
    """Keep what is predicted of these rows: as they are, cut, and of each edit in order."""
    for to, (quality, cost) in zip((arm.plain, arm.cut, *arm.edited.values()), found, strict=True):
        to.quality[rows], to.cost[rows] = quality, cost


def cut_of(prompt: str) -> str:
    """Return the prompt without its last words; of no more words than these as it is."""
    kept = prompt.split()[:-WORDS]
    return " ".join(kept) or prompt


def _setting(source: Source, plain: Believed, worths: Array) -> tuple[Array, Indices]:
    """Return the cheapest worth that keeps `SHARE`, (1,), and what it chooses; the greatest where none does."""
    quality, every = source.outcomes.quality, np.arange(source.outcomes.rows)
    sweep = worth_sweep(plain.quality, plain.cost, worths)
    wanted = SHARE * quality[:, source.axis.best].mean()
    at = next((k for k, chosen in enumerate(sweep) if quality[every, chosen].mean() >= wanted), len(sweep) - 1)
    return worths[[at]], sweep[at]


def _chosen(believed: Believed, worth: Array) -> Indices:
    return np.asarray(worth_sweep(believed.quality, believed.cost, worth)[0])


def _areas(source: Source, arms: Mapping[str, Judged]) -> list[list[str]]:
    singles = single_curve(source.outcomes, source.resamples)
    areas = {name: bounded_arqgc(worth_curve(source, arm.plain), source.axis, singles) for name, arm in arms.items()}
    rows = []
    for name, arm in arms.items():
        twin = name.partition(",")[0]
        brier = float(np.square(arm.plain.quality - source.outcomes.quality).mean())
        beside = shown_difference(areas[name], areas[twin]) if twin != name else ""
        rows.append([source.name, name, shown(areas[name]), beside, f"{brier:.4f}"])
    return rows


def _edited(source: Source, arm: Judged) -> dict[str, Any]:
    """Return the figures of each edit, with the verdict of this one setting."""
    made = {}
    for edit, believed in arm.edited.items():
        figures = redecided_figures(arm.before, _chosen(believed, arm.worth), source.outcomes, source.resamples)
        made[edit] = {**figures, **verdict_of(["the setting"], [figures])}
    return made


def _cell(edits: Mapping[str, Mapping[str, Mapping[str, Any]]], arm: str, edit: str) -> str:
    found = [of[arm][edit] for of in edits.values()]
    flipped, lost, raised = (
        float(np.mean([one[key]["value"] for one in found])) for key in ("flipped", "lost", "raised")
    )
    fails = sum(one["verdict"] == FAILS for one in found)
    return f"{flipped:.1%}; {lost:+.4f}; {raised:+.0%} ({fails})"


def _suffixed(study: Study, source: Source, arm: Judged, x: Array, width: int) -> dict[str, Any]:
    """Search words against the fit without the first fold, and judge them on that fold."""
    assert arm.heads is not None
    out = folds_of(source.keys) == 0
    prompts, others = (
        [p for p, o in zip(source.prompts, out, strict=True) if o is which] for which in (np.True_, np.False_)
    )
    outcomes, before, spent = source.outcomes.subset(out), arm.before[out], source.outcomes.cost.mean(axis=0)
    keys = [key for key, o in zip(source.keys, out, strict=True) if o]
    resamples = resamples_of(keys, draws=study.draws)
    support = _support_of(x[~out, :width], [key for key, o in zip(source.keys, out, strict=True) if not o])

    def believed(texts: Sequence[str]) -> tuple[Believed, Mask]:
        z = seen_with_surface(study, texts)[0]
        assert arm.heads is not None
        quality, nano = predict(arm.heads.tensors, z, arm.heads.activation)
        return Believed(quality, nano / NANO), support(z[:, :width]) < SUPPORTED

    def cheaper(texts: Sequence[str]) -> Indices:
        """Choose for each text, and for it without its last words, and take the cheaper of the two by what is predicted of the text."""
        whole = believed(texts)[0]
        one, two = _chosen(whole, arm.worth), _chosen(believed([cut_of(text) for text in texts])[0], arm.worth)
        every = np.arange(len(one))
        return np.where(whole.cost[every, two] < whole.cost[every, one], two, one)

    def figures(after: Indices) -> dict[str, Any]:
        return redecided_figures(before, after, outcomes, resamples)

    def cost(texts: Sequence[str]) -> Array:
        found, told = believed(texts)
        # Whoever searches knows `min_support`, too: what it tells apart is nothing won.
        return np.asarray(np.where(told, spent.min(), spent[_chosen(found, arm.worth)]))

    suffix = searched_suffix(words_of(others)[:TRIED], others, cost)
    found, told = believed([prompt + suffix for prompt in prompts])
    after = _chosen(found, arm.worth)
    study.progress(f"{source.name}: words are searched")
    return {
        "raised": figures(after)["raised"],
        "raised_where_supported": figures(np.where(told, before, after))["raised"],
        "unsupported": float(told.mean()),
        "plain": figures(cheaper(prompts)),
        "behind": figures(cheaper([prompt + suffix for prompt in prompts]))["raised"],
        "before": figures(cheaper([f"{suffix[1:]} {prompt}" for prompt in prompts]))["raised"],
    }


def _support_of(x: Array, keys: Sequence[str]) -> Callable[[Array], Array]:
    """Return the function that gives the support of embeddings (rows, width), as of a bundle fitted on x."""
    made = fit_support(x, folds_of(keys), CENTROIDS, 0)
    centroids, distances = (made[name].astype(np.float64) for name in ("centroids", "distances"))

    def support(at: Array) -> Array:
        below = np.interp(nearest_distance(at, centroids), distances, np.linspace(0, 1, len(distances)))
        return np.asarray(1 - below)

    return support


def _suffix_cells(found: Mapping[str, Any]) -> list[str]:
    plain = found["plain"]
    return [
        f"{shown_percent(found['raised'])} ({found['raised_where_supported']['value']:+.0%})",
        f"{found['unsupported']:.0%}",
        f"{plain['flipped']['value']:.1%}; {plain['lost']['value']:+.4f}; {plain['raised']['value']:+.0%}",
        shown_percent(found["behind"]),
        shown_percent(found["before"]),
    ]
