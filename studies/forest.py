"""This study asks what trees on surface features add to `caps`, cross-fitted, and what of it is left when a prompt is written otherwise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine.data.prompt_edits import EDITS
from ipr_engine.encoders.surface import SurfaceEncoder
from ipr_engine.evaluation.baselines import kmeans
from ipr_engine.measures.resampling import (
    Estimate,
    Resamples,
    difference,
    drawn_questions,
    estimate,
    grouped_folds,
    one_thread,
    resamples_of,
)
from ipr_engine.measures.routing import (
    Axis,
    Curve,
    WeightedOutcomes,
    bounded_arqgc,
    cost_kept,
    single_curve,
    sweep_curve,
)
from ipr_engine.measures.sweeps import worth_grid, worth_sweep
from ipr_engine.training.fitted_heads import FitRows, HeadRows, fit_heads, predict
from studies.cases import FOLDS, Case
from studies.equal_cost import holm, two_sided
from studies.headline import VIEW
from studies.plots import intervals
from studies.study import Study
from studies.trials import NANO, shown

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.integer]

SOURCES = ("zeroeval", "routerbench_sub", "cascade9", "mmlu_pro", "openllm19", "bfcl")
MOST = 20_000  # prompts of a source, both splits together; no source here has more
DRAWN = 5  # seed of these
FITTED = ("caps", "forest")
BLIND = "forest without surface features"
SHARES = (0.99, 0.98, 0.95)
AT = 0.98  # the setting at which edits are judged
BESIDE = {"caps": "minus `caps`", "k-means": "minus k-means", BLIND: "minus no features"}
CLUSTERS = (16, 32, 64)  # that the k-means baseline chooses from


@dataclass(frozen=True, eq=False)
class Believed:
    """A `Believed` is what one router predicts of a source's prompts, each by a fit that has not seen its question: (rows, models)."""

    quality: Array
    cost: Array


@dataclass(frozen=True, eq=False)
class Source:
    """A `Source` is a case with its splits put together: prompts, their keys and datasets, what was paid, and one set of resamples."""

    name: str
    prompts: list[str]
    keys: list[str]
    datasets: list[str]
    outcomes: WeightedOutcomes
    resamples: Resamples

    @property
    def axis(self) -> Axis:
        return Axis.of(self.outcomes)


def run(study: Study) -> list[Path]:
    page = study.page("forest", "A forest on surface features beside `caps`")
    page.say(
        f"""`forest` is `caps` with trees beside it, which see surface features of the text and the first columns of the embedding
        (docs/own-bundle.md). Of each source at most {MOST:,} prompts, both splits together. Cross-fitted:
        {FOLDS} folds grouped by question, every prompt predicted by a fit that has not seen its question. Costs are predicted by the same
        tokens head for every router but k-means, which has its own and chooses one of {", ".join(map(str, CLUSTERS))} clusters.
        Intervals: 95 %, {study.draws} paired draws of whole questions. *Pooled*: the mean over sources, resampled source by
        source; *weighted*: by the inverse of the variance of a source's draws, since few prompts tell little. *No features*: the same
        forest on the embedding alone. *Holm*: over sources, two-sided."""
    )
    cases = study.cases(SOURCES)
    areas: dict[str, dict[str, Array]] = {}
    costs: dict[str, dict[str, dict[float, Array]]] = {}
    edited: dict[str, dict[str, dict[str, list[float]]]] = {}
    briers: dict[str, dict[str, float]] = {}
    for case in cases:
        source = source_of(case, study.draws)
        plain, others = _believed(study, source)
        singles = single_curve(source.outcomes, source.resamples)
        curves = {name: worth_curve(source, router) for name, router in plain.items()}
        areas[case.name] = {name: bounded_arqgc(curve, source.axis, singles) for name, curve in curves.items()}
        costs[case.name] = {
            name: {share: cost_kept(curve, source.axis, singles, share) for share in SHARES}
            for name, curve in curves.items()
        }
        briers[case.name] = {
            name: float(np.square(router.quality - source.outcomes.quality).mean()) for name, router in plain.items()
        }
        edited[case.name] = {name: _edited(source, plain[name], others[name]) for name in FITTED}
    page.say("## Area between the cheapest and the best single candidate")
    page.table(*_differences(areas, BESIDE))
    page.say("## Cost at equal quality, as a share of always asking the best single candidate")
    page.table(*_costs(costs))
    page.say("## Brier score")
    names = (*FITTED, BLIND)
    page.table(["source", *names], [[name, *(f"{of[one]:.4f}" for one in names)] for name, of in briers.items()])
    page.say("## The same prompt, written otherwise")
    page.say(
        f"""At the setting that keeps {AT:.0%} of the best single candidate's quality: the share of decisions that flip, what is lost of
        mean quality, and the mean predicted cost over that of the prompts as they are. `caps` / `forest`. Means over sources."""
    )
    page.table(*_edits(edited))
    page.figures.update(
        area={name: {one: estimate(values).to_json() for one, values in of.items()} for name, of in areas.items()},
        cost={
            name: {one: {f"{share:.2f}": estimate(v).to_json() for share, v in at.items()} for one, at in of.items()}
            for name, of in costs.items()
        },
        brier=briers,
        edits=edited,
    )
    plot = intervals(
        study.out / "forest.png",
        {
            shown_as: {
                "area": [estimate(values) for values in _with_pooled([of["forest"] - of[one] for of in areas.values()])]
            }
            for one, shown_as in BESIDE.items()
        },
        [*areas, "pooled", "weighted"],
        "difference in area",
        title="A forest on surface features: area gained",
        zero=0.0,
    )
    page.plot(
        plot,
        "Area of `forest` minus that of `caps`, of k-means and of the same forest without surface features; 95 % intervals",
    )
    return [*page.write(study.out), plot]


def source_of(case: Case, draws: int, most: int = MOST) -> Source:
    """Put the splits together and draw at most so many prompts."""
    parts = (case.train, case.test)
    keys = [key for part in parts for key in part.data.question_keys]
    prompts = [prompt for part in parts for prompt in part.data.prompts]
    datasets = [dataset for part in parts for dataset in part.data.datasets]
    quality, cost = (np.concatenate([getattr(part, name) for part in parts]) for name in ("quality", "cost"))
    kept = drawn_questions(keys, most, seed=DRAWN) if len(keys) > most else np.ones(len(keys), np.bool_)
    keys, prompts, datasets = ([one for one, k in zip(of, kept, strict=True) if k] for of in (keys, prompts, datasets))
    outcomes = WeightedOutcomes.complete(quality[kept], cost[kept])
    return Source(case.name, prompts, keys, datasets, outcomes, resamples_of(keys, draws=draws))


def _believed(study: Study, source: Source) -> tuple[dict[str, Believed], dict[str, dict[str, Believed]]]:
    """Return what each router predicts of the prompts, and what each of `FITTED` does of every edit of them."""
    x, embedded = seen_with_surface(study, source.prompts)
    texts = {
        name: seen_with_surface(study, [edit(prompt) for prompt in source.prompts])[0] for name, edit in EDITS.items()
    }
    quality, cost = source.outcomes.quality, source.outcomes.cost
    rows = HeadRows(x, quality, cost * NANO, source.keys, surface_dim=x.shape[1] - embedded)
    fold_of_row = grouped_folds(source.keys, FOLDS, seed=1)
    plain = {name: Believed(np.empty_like(quality), np.empty_like(cost)) for name in (*FITTED, BLIND, "k-means")}
    others = {name: {edit: Believed(np.empty_like(quality), np.empty_like(cost)) for edit in EDITS} for name in FITTED}
    with one_thread():
        for fold in range(FOLDS):
            out = fold_of_row == fold
            ready = FitRows(rows.take(~out), FOLDS, 0)
            for name in FITTED:
                heads = fit_heads(ready, estimator=name)
                for seen, to in ((x, plain[name]), *((texts[edit], others[name][edit]) for edit in EDITS)):
                    to.quality[out], nano = predict(heads.tensors, seen[out], heads.activation)
                    to.cost[out] = nano / NANO
            heads = fit_heads(rows.without_surface().take(~out), estimator="forest")
            plain[BLIND].quality[out], nano = predict(heads.tensors, x[out, :embedded], heads.activation)
            plain[BLIND].cost[out] = nano / NANO
            fit = kmeans(
                x[~out, :embedded], source.outcomes.subset(~out), ready.fold_of_row, x[out, :embedded], CLUSTERS
            )
            plain["k-means"].quality[out], plain["k-means"].cost[out] = fit.quality, fit.cost
            study.progress(f"{source.name}: fold {fold + 1} of {FOLDS}")
    return plain, others


def seen_with_surface(study: Study, prompts: Sequence[str]) -> tuple[Array, int]:
    """Return the embedding with surface features behind it, and how many columns are the embedding's."""
    embedding = study.views.see(VIEW, prompts)
    surface = SurfaceEncoder.load().encode(list(prompts)).x
    return np.concatenate([embedding, surface], axis=1), embedding.shape[1]


def worth_curve(source: Source, router: Believed) -> Curve:
    sweep = worth_sweep(router.quality, router.cost, worth_grid(source.outcomes.cost))
    return sweep_curve(sweep, source.outcomes, source.resamples)


def _edited(source: Source, plain: Believed, others: Mapping[str, Believed]) -> dict[str, list[float]]:
    """Return of each edit [decisions flipped, mean quality lost, mean predicted cost over that before], at the setting `AT`."""
    outcomes, worths = source.outcomes, worth_grid(source.outcomes.cost)
    every = np.arange(outcomes.rows)
    sweep = worth_sweep(plain.quality, plain.cost, worths)
    wanted = AT * outcomes.quality.mean(axis=0)[source.axis.best]
    reached = [k for k, chosen in enumerate(sweep) if outcomes.quality[every, chosen].mean() >= wanted]
    at = reached[0] if reached else len(worths) - 1
    before = sweep[at]
    figures = {}
    for name, router in others.items():
        after = worth_sweep(router.quality, router.cost, worths[at : at + 1])[0]
        lost = outcomes.quality[every, before].mean() - outcomes.quality[every, after].mean()
        raised = plain.cost[every, after].mean() / plain.cost[every, before].mean()
        figures[name] = [float((after != before).mean()), float(lost), float(raised)]
    return figures


def pooled(of: Sequence[Array], *, weighted: bool = False) -> Array:
    """Return the mean over sources of a figure, (1 + draws,) of each; sources are resampled apart.

    weighted: by the inverse of the variance of each source's draws.
    """
    random = np.random.default_rng(0)
    weights = np.array([1 / max(float(np.nanvar(figures[1:])), 1e-12) if weighted else 1.0 for figures in of])
    total = np.zeros(len(of[0]))
    for figures, weight in zip(of, weights, strict=True):
        order = np.concatenate([[0], 1 + random.permutation(len(total) - 1)])
        total += weight / weights.sum() * figures[order]
    return total


def _with_pooled(of: list[Array]) -> list[Array]:
    return [*of, pooled(of), pooled(of, weighted=True)]


def _signed(d: Estimate) -> str:
    text = f"{d.value:+.3f} [{d.low:+.3f}, {d.high:+.3f}]"
    return f"**{text}**" if d.low > 0 or d.high < 0 else text


def _differences(
    areas: Mapping[str, Mapping[str, Array]], beside: Mapping[str, str]
) -> tuple[list[str], list[list[str]]]:
    """Return the table of areas: forest's, and its differences with Holm's p."""
    adjusted = {one: holm([two_sided(of["forest"] - of[one]) for of in areas.values()]) for one in beside}
    rows = []
    for k, (name, of) in enumerate(areas.items()):
        cells = [f"{_signed(difference(of['forest'], of[one]))}, p {adjusted[one][k]:.3f}" for one in beside]
        rows.append([name, shown(of["caps"]), shown(of["forest"]), *cells])
    for name, weighted in (("pooled", False), ("weighted", True)):
        together = [pooled([of["forest"] - of[one] for of in areas.values()], weighted=weighted) for one in beside]
        rows.append([name, "", "", *(_signed(estimate(values)) for values in together)])
    return ["source", "`caps`", "`forest`", *(f"{text} (Holm)" for text in beside.values())], rows


def _costs(costs: Mapping[str, Mapping[str, Mapping[float, Array]]]) -> tuple[list[str], list[list[str]]]:
    """Return the table of costs at equal quality: those of both, and the one over the other, pooled by geometric means."""
    rows = []
    logs: dict[float, list[Array]] = {share: [] for share in SHARES}
    for name, of in costs.items():
        row = [name]
        for share in SHARES:
            ratio = np.log(of["forest"][share] / of["caps"][share])
            logs[share].append(ratio)
            row += [
                f"{of['caps'][share][0]:.3f} -> {of['forest'][share][0]:.3f}",
                shown(np.exp(ratio), digits=2),
            ]
        rows.append(row)
    for name, weighted in (("pooled", False), ("weighted", True)):
        row = [name]
        for share in SHARES:
            row += ["", shown(np.exp(pooled(logs[share], weighted=weighted)), digits=2)]
        rows.append(row)
    header = ["source"]
    for share in SHARES:
        header += [f"at {share:.0%}", "forest / caps"]
    return header, rows


def _edits(edited: Mapping[str, Mapping[str, Mapping[str, list[float]]]]) -> tuple[list[str], list[list[str]]]:
    """Return the table of edits: means over sources."""
    rows: list[list[str]] = []
    for edit in EDITS:
        means: dict[str, Any] = {name: np.mean([of[name][edit] for of in edited.values()], axis=0) for name in FITTED}
        rows.append(
            [
                edit,
                " / ".join(f"{means[name][0]:.1%}" for name in FITTED),
                " / ".join(f"{means[name][1]:+.4f}" for name in FITTED),
                " / ".join(f"{means[name][2]:.2f}" for name in FITTED),
            ]
        )
    return ["edit", "flipped", "quality lost", "cost"], rows
