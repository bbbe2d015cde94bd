"""Is a prior of public scores any good? `ipr init --offline` on sources that its scores leave out, beside outcomes of one's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine.data import load_outcomes
from ipr_engine.errors import InvalidInputError
from ipr_engine.evaluation.contenders import Mix
from ipr_engine.measures.resampling import Estimate, difference, estimate
from ipr_engine.measures.routing import bounded_arqgc, hull
from ipr_engine.onboarding.public_models import spelling
from studies import plots
from studies.cases import Case, load_case
from studies.public_abilities import SOURCES, Fitted, Z, fit_all, public_names
from studies.rasch import sigmoid
from studies.study import Study
from studies.trials import (
    Prediction,
    area,
    fit_and_predict,
    hull_area,
    shown,
    shown_difference,
    sweep,
)

Array = npt.NDArray[np.float64]

CASES = ("routerbench_sub", "cascade9", "zeroeval", "mmlu_pro")
NAMED: Mapping[str, str] = MappingProxyType(
    {
        "llama3.1-405b": "Llama-3.1-405B-Instruct",
        "llama3.1-70b": "Llama-3.1-70B-Instruct",
        "llama3.1-8b": "Llama-3.1-8B-Instruct",
        "llama3.2-3b": "Llama-3.2-3B-Instruct",
        "llama3.2-1b": "Llama-3.2-1B-Instruct",
        "mistralai/mixtral-8x7b-chat": "Mixtral-8x7B-Instruct-v0.1",
        "mistralai/mistral-7b-chat": "Mistral-7B-Instruct-v0.2",
    }
)
"""The same models under other names."""
LIKE: Mapping[str, str] = MappingProxyType(
    {
        "gpt-4-1106-preview": "gpt-4-turbo-2024-04-09",
        "gpt-3.5-turbo-1106": "gpt-3.5-turbo-0125",
        "meta/llama-2-70b-chat": "Llama-2-70b-hf",
        "zero-one-ai/Yi-34B-Chat": "Yi-34B",
        "WizardLM/WizardLM-13B-V1.2": "Llama-2-13b-hf",
        "qwen2.5-32b-coder-instruct": "Qwen2.5-32B-Instruct",
        "gpt-4o-2024-08-06": "gpt-4o-2024-11-20",
    }
)
"""Who stands in, as a user's `like` would say; only where the model itself has no score left."""
PENALTY = 30.0  # of the ridge from prompts to difficulty
PRIOR, TAU, READING = "prior", "prior under tau (`minmax`)", "prior and difficulty"
BY_PRICE, HULL, FITTED = "cheapest and dearest mixed", "hull of singles", "heads fitted on its train split"


@dataclass(frozen=True, eq=False)
class Known:
    """`Known` are a case's candidates of which something is public elsewhere.

    Attributes:
        case: with those alone. rows: of the linked abilities, one a candidate. stood_in: candidate -> who stands in.
        fitted: on the sources that are left, without the case's questions.
    """

    case: Case
    rows: list[int]
    stood_in: Mapping[str, str]
    fitted: Fitted

    @property
    def ability(self) -> Array:
        return self.fitted.linked.ability[self.rows]

    def told_apart(self, one: int, other: int) -> bool:
        """Return whether public scores tell two candidates apart, as `ipr init --offline` says it."""
        linked, (a, b) = self.fitted.linked, (self.rows[one], self.rows[other])
        apart = linked.share[a] - linked.share[b]
        variance = linked.own_variance[a] + linked.own_variance[b] + apart @ linked.links @ apart
        return bool(a != b and abs(linked.ability[a] - linked.ability[b]) > Z * np.sqrt(variance))


def run(study: Study) -> list[Path]:
    page = study.page("prior", "A prior of public scores, beside outcomes of one's own")
    page.say(
        f"""How good is a bundle of `ipr init --offline`, which knows public scores and prices alone? Each source below is judged by
        scores that leave it out: abilities are fitted anew on {", ".join(SOURCES)}, without that source and without any question that
        it asks."""
    )
    page.say(
        f"""Figures are Bounded-ARQGC (docs/metrics.md section 3; best single candidate = 1) on the source's test split. Intervals are of
        95 %, by {study.draws} paired bootstrap resamples of prompts; a bold one leaves zero out."""
    )
    page.say(
        """The prior is favoured here. Its costs are the source's own, means over its train split. A user has list prices and lengths of
        public answers instead."""
    )
    page.table(
        ["what is compared", "what it knows"],
        [
            [PRIOR, "abilities and mean costs; random mixes along their hull"],
            [TAU, "the same, under the rule that the bundle runs"],
            [
                READING,
                "a difficulty of each prompt besides: a ridge on the default bundle's table, fitted on the other sources",
            ],
            [BY_PRICE, "prices alone"],
            [HULL, "the source's training outcomes: random mixes of single models"],
            [FITTED, "the source's training outcomes: heads, estimator `caps`"],
        ],
    )
    page.say("## How far each gets")
    header = ["source", "candidates", PRIOR, TAU, READING, BY_PRICE, HULL, FITTED]
    rows, against, orders, stood_in = [], [], [], []
    panels: dict[str, dict[str, list[Estimate]]] = {}
    for name in study.names(CASES):
        known = candidates(study, name)
        areas = _areas(known, study)
        rows.append([name, str(len(known.rows)), *(shown(areas[arm]) for arm in header[2:])])
        others = (HULL, FITTED, BY_PRICE, READING)
        against.append([name, *(shown_difference(areas[PRIOR], areas[arm]) for arm in others)])
        facts = order(known)
        orders.append([name, *map(str, facts.values())])
        stood_in += [f"{name}: {given} by {stand_in}" for given, stand_in in known.stood_in.items()]
        page.figures[name] = {
            "areas": {arm: estimate(values).to_json() for arm, values in areas.items()},
            "prior_minus": {arm: difference(areas[PRIOR], areas[arm]).to_json() for arm in others},
            "candidates": dict(zip(known.case.models, known.ability.tolist(), strict=True)),
            **facts,
        }
        panels[name] = {PRIOR: [difference(areas[PRIOR], areas[arm]) for arm in (BY_PRICE, HULL, FITTED)]}
    page.table(header, rows)
    page.say("## The prior minus")
    page.table(["source", HULL, FITTED, BY_PRICE, READING], against)
    page.say("## Who is better")
    page.say(
        """Pairs of candidates in the order of their mean quality on the test split: all, and those that public scores tell apart
        (the 95 % interval of the difference of two abilities leaves 0 out), which is what the command says of them."""
    )
    page.table(["source", "pairs", "in order", "told apart", "of these in order"], orders)
    if stood_in:
        page.say(f"Stood in for, having no score of their own left: {'; '.join(stood_in)}.")
    path = plots.intervals(
        study.out / "prior.png",
        panels,
        [BY_PRICE, HULL, FITTED],
        "Bounded-ARQGC of the prior minus that of the other (95 % paired bootstrap interval)",
        title="The prior beside each other way to route, on sources that its scores leave out",
        zero=0.0,
        per_row=2,
    )
    page.plot(path, "Right of the dotted line the prior is ahead")
    return [*page.write(study.out), path]


def candidates(study: Study, name: str) -> Known:
    """Return the case's candidates that have a public score elsewhere, or somebody who stands in."""
    study.progress(f"reading {name} and the sources that its prior is of ...")
    home = load_outcomes(study.outcomes / name)
    left = [source for source in SOURCES if source != name and (study.outcomes / source).is_dir()]
    if not left:
        raise InvalidInputError(
            f"outcomes: expected a folder that holds another one of {', '.join(SOURCES)} than {name}, got {study.outcomes}"
        )
    fitted = fit_all({s: load_outcomes(study.outcomes / s).without_questions_of(home) for s in left})
    at = {spelling(model): row for row, model in enumerate(fitted.linked.names)}
    for one in public_names():
        row = at.get(spelling(one.name))
        if row is not None:
            at |= {spelling(called): row for called in (*one.aliases, *one.scores.values())}
    whole = load_case(study.outcomes, name, draws=study.draws)
    found: dict[str, int] = {}
    stood_in = {}
    for model in whole.models:
        own, like = at.get(spelling(NAMED.get(model, model))), at.get(spelling(LIKE.get(model, "")))
        if own is not None:
            found[model] = own
        elif like is not None:
            found[model], stood_in[model] = like, LIKE[model]
    return Known(whole.columns(list(found)), list(found.values()), stood_in, fitted)


def _areas(known: Known, study: Study) -> dict[str, Array]:
    case = known.case
    train_x, test_x = (study.views.see("static", rows.data.prompts) for rows in (case.train, case.test))
    cost = case.train.cost.mean(axis=0)
    quality = known.fitted.quality(known.ability)
    study.progress(f"{case.name}: fitting on its own outcomes ...")
    return {
        PRIOR: _mixed(case, np.eye(len(cost))[hull(cost, quality)]),
        TAU: area(case, sweep(_predicted(case, np.tile(quality, (len(test_x), 1)), cost), "minmax")),
        READING: area(case, sweep(_predicted(case, _reading(known, study, test_x), cost), "worth")),
        BY_PRICE: _mixed(case, np.eye(len(cost))[[int(cost.argmin()), int(cost.argmax())]]),
        HULL: hull_area(case),
        FITTED: area(case, sweep(fit_and_predict(case, train_x, test_x, "caps"), "worth")),
    }


def _mixed(case: Case, vertices: Array) -> Array:
    """Return the area of random mixes along these candidates."""
    mix = Mix.lines(vertices, case.train.cost.mean(axis=0))
    return bounded_arqgc(mix.curve(case.test.outcomes, case.resamples), case.axis, case.singles)


def _predicted(case: Case, quality: Array, cost: Array) -> Prediction:
    spread = np.tile(cost, (len(quality), 1))
    return Prediction(quality, spread, quality, spread)


def _reading(known: Known, study: Study, test_x: Array) -> Array:
    """Return qualities (rows, models) by ability and a difficulty read off the prompt; sources have levels of their own in its fit."""
    linked, x, difficulty, source = known.fitted.linked, [], [], []
    for place, name in enumerate(linked.sources):
        x.append(study.views.see("static", known.fitted.outcomes[name].prompts))
        difficulty.append(known.fitted.fits[name].difficulty)
        source.append(np.full(len(x[-1]), place))
    levels = np.eye(len(linked.sources))[np.concatenate(source)]
    design = np.concatenate([np.concatenate(x), levels], axis=1)
    penalty = np.diag([PENALTY] * test_x.shape[1] + [1e-6] * levels.shape[1])
    weights = np.linalg.solve(design.T @ design + penalty, design.T @ np.concatenate(difficulty))
    read = test_x @ weights[: test_x.shape[1]]
    spread = float(np.mean([known.fitted.fits[name].spread for name in linked.sources]))
    logit = known.ability + known.fitted.level - (read - read.mean())[:, None]
    return sigmoid(logit / np.sqrt(1 + np.pi * spread**2 / 8))  # a normal difficulty that is left, averaged over


def order(known: Known) -> dict[str, int]:
    """Count pairs of candidates whose order by ability is that of their mean quality on the test split."""
    truth, ability = known.case.test.quality.mean(axis=0), known.ability
    pairs = [(a, b) for a, b in combinations(range(len(ability)), 2) if known.rows[a] != known.rows[b]]
    right = {(a, b): bool((truth[a] - truth[b]) * (ability[a] - ability[b]) > 0) for a, b in pairs}
    apart = [pair for pair in pairs if known.told_apart(*pair)]
    facts: dict[str, Any] = {
        "pairs": len(pairs),
        "pairs_in_order": sum(right.values()),
        "pairs_told_apart": len(apart),
        "pairs_told_apart_in_order": sum(right[pair] for pair in apart),
    }
    return facts
