"""A `CheckCase` is candidates with recorded answers, and what each router costs on them at equal quality."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ipr_engine.data import load_outcomes
from ipr_engine.measures.routing import SHARE, Curve, bounded_arqgc
from studies.answer_checks import graded_abstention, known, read_abstention, scored, second_opinion, simulated
from studies.check_plans import Check, cross_fit
from studies.checked_answers import SOURCE, CheckedAnswers, See, read_checked_answers
from studies.claude import CLAUDE
from studies.crossed import folds_of
from studies.equal_cost import EqualCost

Array = npt.NDArray[np.float64]
Make = Callable[[CheckedAnswers], Check]

SIMULATED = "zeroeval"
HULL, ALONE = "hull of singles", "router alone"
FIVE, FAMILY = "five candidates", "three Claude candidates"
ABSTENTIONS = (0.0, 0.25, 0.5)  # what an abstention is worth, of a right answer; the last is the source's own grade
BETWEEN = 0.25
AUCS = (0.85, 0.95)


@dataclass(frozen=True, eq=False)
class CheckLine:
    """A `CheckLine` is one router.

    Attributes:
        costs: (shares, 1 + draws) at equal quality, over the best single candidate's. area: (1 + draws,). curve: of its sweep.
        taken: (plan in words, share of the prompts it takes where 98 % is kept), the most first.
    """

    name: str
    curve: Curve
    costs: Array
    area: Array
    taken: Sequence[tuple[str, float]]

    @property
    def real(self) -> bool:
        """Whether the check is computed from answers alone."""
        return not self.name.startswith(("bound", "simulated", HULL, ALONE))


@dataclass(frozen=True, eq=False)
class CheckCase:
    """A `CheckCase` is one set of candidates.

    Attributes:
        name: shown. abstention: what one is worth. answers: theirs. measured: outcomes and resamples. lines: hull and router alone first.
    """

    name: str
    abstention: float
    answers: CheckedAnswers
    measured: EqualCost
    lines: Sequence[CheckLine]

    def line(self, name: str) -> CheckLine:
        return next(line for line in self.lines if line.name == name)


def recorded_cases(folder: Path, see: See, draws: int, progress: Callable[[str], None]) -> Iterator[CheckCase]:
    """Route recorded answers: by what an abstention is worth, of all candidates and of the Claude ones; then beside silence."""
    answers = read_checked_answers(folder / SOURCE, see)
    sets = {FIVE: answers.models, FAMILY: tuple(name for name in answers.models if name.startswith("claude"))}
    real: list[Make] = [graded_abstention, read_abstention, scored]
    for abstention in ABSTENTIONS:
        for name, models in sets.items():
            own = answers.columns(models).valued(abstention)
            checks = [*real, *([second_opinion] if name == FIVE else []), known]
            yield _case(name, abstention, own, checks, draws, progress)
    for name, models in sets.items():
        own = answers.columns(models).valued(BETWEEN).with_silence(BETWEEN)
        yield _case(f"{name} and silence", BETWEEN, own, [graded_abstention, read_abstention], draws, progress)


def simulated_case(folder: Path, see: See, draws: int, progress: Callable[[str], None]) -> CheckCase:
    """Route outcomes whose answers nobody kept, by scores that are drawn from the grades."""
    rows = load_outcomes(folder / SIMULATED).select(CLAUDE[SIMULATED]).complete(measures=("quality", "cost_usd"))
    order = rows.cost_usd.mean(axis=0).argsort(kind="stable")
    nothing = np.zeros_like(rows.quality)
    answers = CheckedAnswers(
        models=tuple(rows.models[m] for m in order),
        prompts=rows.prompts,
        keys=rows.question_keys,
        quality=rows.quality[:, order],
        abstained=nothing,
        cost=rows.cost_usd[:, order],
        x=see(rows.prompts),
        seen=np.empty((len(order), len(rows), 0)),
        texts=(),
    )
    judge = float(answers.cost[:, 0].mean())  # what asking the cheapest candidate once more costs
    checks: list[Make] = [_simulate(auc, 0.0) for auc in AUCS]
    return _case(
        f"{SIMULATED}, Claude candidates, simulated",
        0.0,
        answers,
        [*checks, _simulate(AUCS[0], judge)],
        draws,
        progress,
    )


def _simulate(auc: float, price: float) -> Make:
    return lambda answers: simulated(answers, auc, price)


def _case(
    name: str,
    abstention: float,
    answers: CheckedAnswers,
    checks: Sequence[Make],
    draws: int,
    progress: Callable[[str], None],
) -> CheckCase:
    measured = EqualCost(answers.outcomes, answers.keys, draws)
    hull = measured.hull(folds_of(answers.keys))
    lines = [CheckLine(HULL, hull, measured.costs(hull), _area(measured, hull), ())]
    for check in (None, *(make(answers) for make in checks)):
        progress(f"{name}, an abstention is worth {abstention:g}: {ALONE if check is None else check.name} ...")
        lines.append(_line(answers, measured, check))
    return CheckCase(name, abstention, answers, measured, lines)


def _line(answers: CheckedAnswers, measured: EqualCost, check: Check | None) -> CheckLine:
    options = cross_fit(answers, check)
    choices = measured.choices(options.quality, options.cost)
    curve = measured.curve(choices, options.outcomes)
    at = measured.setting_at(curve, SHARE)
    taken: dict[str, float] = {}
    if check is not None and at is not None:
        counts = np.bincount(choices[at], minlength=options.quality.shape[1])[len(answers.models) :] / answers.rows
        for plan, share in zip(check.plans, counts, strict=True):
            words = plan.named(answers.models)
            taken[words] = taken.get(words, 0.0) + float(share)
    name = ALONE if check is None else check.name
    return CheckLine(name, curve, measured.costs(curve), _area(measured, curve), _most_first(taken))


def _most_first(taken: dict[str, float]) -> Sequence[tuple[str, float]]:
    return sorted(((words, share) for words, share in taken.items() if share > 0), key=lambda item: -item[1])


def _area(measured: EqualCost, curve: Curve) -> Array:
    return bounded_arqgc(curve, measured.axis, measured.singles)
