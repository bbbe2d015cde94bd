"""This study asks the paper's headline question of public outcomes: what Claude candidates save over always asking the strongest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine.data import load_outcomes
from ipr_engine.evaluation.contenders import (
    Choices,
    Contender,
    Mix,
    Sweep,
    at_operating_point,
    curve_of_shares,
    halves_of,
)
from ipr_engine.measures.resampling import estimate
from ipr_engine.measures.routing import SHARES, ChosenSetting, read_operating_point
from ipr_engine.measures.sweeps import hull_mix
from studies.cases import Case, Rows
from studies.claude_table import MORE, write_saved
from studies.headline import SHIPPED, VIEW
from studies.pages import Page
from studies.study import Study
from studies.trials import Prediction, area, fit_and_predict, fit_baseline, hull_area, shown, sweep

Array = npt.NDArray[np.float64]

PAPER = 0.439  # cost saved at parity with the strongest Claude model, arXiv 2509.06274; its data is not public

# Candidates with complete rows; bfcl in prompt mode.
CLAUDE = {
    "zeroeval": (
        "claude-3-5-sonnet-20241022",
        "claude-3-5-sonnet-20240620",
        "claude-3-5-haiku-20241022",
        "claude-3-opus-20240229",
        "claude-3-haiku-20240307",
    ),
    "bfcl": (
        "claude-3-5-sonnet-20240620",
        "claude-3-opus-20240229",
        "claude-3-sonnet-20240229",
        "claude-3-haiku-20240307",
        "claude-2.1",
        "claude-instant-1.2",
    ),
    "routerbench_sub": ("claude-v2", "claude-v1", "claude-instant-v1"),
}


def run(study: Study) -> list[Path]:
    page = study.page("claude", "Cost saved among Claude candidates")
    names = study.names((*CLAUDE, *MORE))
    write_saved(page, study, {name: CLAUDE.get(name) or MORE[name] for name in names}, PAPER)
    if split := [name for name in names if name in CLAUDE]:
        _opening(page, study)
    for name in split:
        case = _case(study, name)
        study.progress(f"{name}: fitting ...")
        train_x, test_x = (study.views.see(VIEW, rows.data.prompts) for rows in (case.train, case.test))
        predictions = {
            f"{SHIPPED}, worth": fit_and_predict(case, train_x, test_x, SHIPPED),
            **{f"{peer}, worth": fit_baseline(case, peer, train_x, test_x) for peer in ("k-means", "ridge")},
        }
        lines = _contenders(case, predictions)
        _write_case(page, study, case, lines)
    return page.write(study.out)


def _opening(page: Page, study: Study) -> None:
    page.say("## Chosen on train or on half of test, source by source")
    page.say(
        f"""Heads (`{SHIPPED}`, static encoder) fitted on the family's train split. Strongest: highest mean quality on complete
        training rows. A setting is chosen as the cheapest that keeps the share of the strongest's quality on *validation*,
        then read on test: cost saved; quality really kept. Validation: the train split out of fold, or one half of test for
        the other. 95 % bootstrap intervals, {study.draws} draws. The paper reports {PAPER:.1%} at parity on data of its own
        (1.5 M prompts scored by a reward model); these are other prompts, other scores (right or wrong) and other
        candidates, so the numbers stand beside each other, not against each other."""
    )


def _case(study: Study, name: str) -> Case:
    study.progress(f"reading {name} ...")
    data = load_outcomes(study.outcomes / name).select(CLAUDE[name])
    measures = ("quality", "cost_usd")
    train, test = (data.of_split(split).complete(measures=measures) for split in ("train", "test"))
    return Case(
        name, "", Rows(train, train.quality, train.cost_usd), Rows(test, test.quality, test.cost_usd), study.draws
    )


def _contenders(case: Case, predictions: dict[str, Prediction]) -> list[Contender]:
    lines = [
        Contender(name, "router", Choices(sweep(p, "worth")), Choices(sweep(p, "worth", on_train=True)))
        for name, p in predictions.items()
    ]
    shipped = next(iter(predictions.values()))
    mean = case.train.cost.mean(axis=0)
    lines.append(
        Contender(
            "paper's minmax, mean cost",
            "router",
            Choices(sweep(shipped, "minmax", mean_cost=mean)),
            Choices(sweep(shipped, "minmax", mean_cost=mean, on_train=True)),
        )
    )
    mix: Sweep = Mix.lines(hull_mix(case.train.outcomes), case.train.outcomes.cost.mean(axis=0))
    lines.append(Contender("hull of singles", "baseline", mix, mix))
    return lines


def _write_case(page: Page, study: Study, case: Case, lines: list[Contender]) -> None:
    strongest = case.models[case.axis.best]
    page.say(f"### {case.name}: {case.train.outcomes.rows} training and {case.test.outcomes.rows} test prompts")
    singles = case.singles
    rows = [
        [
            model + (" (strongest)" if m == case.axis.best else " (cheapest)" if m == case.axis.cheapest else ""),
            f"{case.train.quality[:, m].mean():.3f}",
            shown(singles.quality[:, m]),
            f"{1000 * singles.cost[0, m]:.3f}",
            _pair(1 - singles.cost[:, m] / singles.cost[:, case.axis.best], _kept(case, singles.quality[:, m])),
        ]
        for m, model in enumerate(case.models)
    ]
    page.table(["candidate", "quality, train", "quality, test", "USD per 1,000", "everything to it: saved; kept"], rows)
    halves = halves_of(case.test.data.question_keys, 0)
    figures: dict[str, Any] = {"strongest": strongest, "area": {}, "saved": {}}
    for validation, outcomes in (("train split, out of fold", case.train.outcomes), ("other half of test", None)):
        table = []
        for line in lines:
            cells = []
            for share in SHARES:
                chosen, _ = at_operating_point(line, share, case.axis, case.test.outcomes, outcomes, halves)
                at = curve_of_shares(chosen, case.test.outcomes, case.resamples)
                saved, kept = read_operating_point(ChosenSetting(share, 0), at, case.axis, singles)
                cells.append(_pair(saved, kept))
                figures["saved"].setdefault(validation, {}).setdefault(line.name, {})[f"{share:g}"] = {
                    "saved": estimate(saved).to_json(),
                    "kept": estimate(kept).to_json(),
                }
            table.append([line.name, *cells])
        page.say(f"Chosen on the {validation}: cost saved; quality kept, as shares of the strongest's.")
        page.table(["router", *(f"keep {share:.0%}" for share in SHARES)], table)
    for line in lines:
        figures["area"][line.name] = estimate(
            hull_area(case) if line.kind == "baseline" else area(case, _choices(line))
        ).to_json()
    page.figures[case.name] = figures


def _choices(line: Contender) -> npt.NDArray[np.integer]:
    assert isinstance(line.test, Choices)
    return line.test.choices


def _kept(case: Case, quality: Array) -> Array:
    return np.asarray(quality / case.singles.quality[:, case.axis.best])


def _pair(saved: Array, kept: Array) -> str:
    s, k = estimate(saved), estimate(kept)
    return f"{s.value:.1%} [{s.low:.1%}, {s.high:.1%}]; {k.value:.1%} [{k.low:.1%}, {k.high:.1%}]"
