"""Checks of answers: an abstention as graded or as it reads, a score fitted out of fold, a second opinion; and two that are not real.

What is not real is said in its name: a *bound* knows the grade, a *simulated* score is drawn from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from ipr_engine.measures.resampling import one_thread
from ipr_engine.training.fitted_heads import HeadRows, fit_heads, predict
from studies.check_plans import Check, Plan
from studies.checked_answers import SILENCE, CheckedAnswers, agreement
from studies.crossed import kept

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

SHARES = (0.2, 0.4, 0.6, 0.8)  # of the prompts on which a score lets the second candidate be asked
AGREED = 0.5  # of the words of the shorter answer
READER = "plain"  # the estimator of what a check reads off an answer
GRADED, READ, SCORE = "abstention, as graded", "abstention, read off the text", "score of the answer"
OPINION, BOUND = "the two cheapest disagree", "bound: knows whether it is right"


def pairs(answers: CheckedAnswers) -> list[tuple[int, int]]:
    """Return (first, second) of every two candidates, the cheaper first; silence is never asked."""
    return list(combinations([m for m, name in enumerate(answers.models) if name != SILENCE], 2))


def abstentions(answers: CheckedAnswers) -> tuple[Plan, ...]:
    """Return two plans a pair: the second is asked where the first abstains; and where it does not, so that an abstention is believed."""
    return tuple(Plan(a, b, unless=unless) for a, b in pairs(answers) for unless in (False, True))


def graded_abstention(answers: CheckedAnswers) -> Check:
    plans = abstentions(answers)
    return Check(GRADED, plans, lambda of, fit: _where(plans, of.abstained))


def read_abstention(answers: CheckedAnswers) -> Check:
    """Fire where heads fitted on graded answers of other questions say from the text that it abstains."""
    plans = abstentions(answers)

    def fires(of: CheckedAnswers, fit: Mask) -> Array:
        asked = {plan.first for plan in plans}
        chance = np.zeros_like(of.quality)
        for m in asked:
            chance[:, m] = read_off(of, m, of.abstained[:, [m]], fit)[:, 0]
        return _where(plans, (chance > 0.5).astype(np.float64))

    return Check(READ, plans, fires)


def scored(answers: CheckedAnswers) -> Check:
    """Fire where heads fitted on graded answers of other questions give the first answer a low quality."""

    def score(of: CheckedAnswers, m: int, fit: Mask) -> Array:
        return read_off(of, m, of.quality[:, [m]], fit)[:, 0]

    plans = thresholds(answers)

    def fires(of: CheckedAnswers, fit: Mask) -> Array:
        found = {m: score(of, m, fit) for m in {plan.first for plan in plans}}
        return low(plans, found, fit)

    return Check(SCORE, plans, fires)


def simulated(answers: CheckedAnswers, auc: float, price: float, *, seed: int = 0) -> Check:
    """Fire where a made score is low: normal, and higher where the answer is right, by what gives this area under the ROC curve."""
    apart = 2**0.5 * NormalDist().inv_cdf(auc)
    made = np.random.default_rng(seed).normal(size=answers.quality.shape) + apart * answers.quality
    plans = thresholds(answers)
    found = {m: made[:, m] for m in range(len(answers.models))}
    priced = f", at {1000 * price:.2f} USD per 1,000" if price else ""
    return Check(f"simulated score, AUC {auc:g}{priced}", plans, lambda of, fit: low(plans, found, fit), price)


def second_opinion(answers: CheckedAnswers) -> Check:
    """Fire where the two cheapest candidates, both asked, do not agree."""
    plans = tuple(Plan(0, b, also=1) for b in range(2, len(answers.models)))
    both = zip(answers.prompts, answers.texts[0], answers.texts[1], strict=True)
    agreed = np.array([agreement(*three) for three in both])
    fired = np.tile((agreed < AGREED).astype(np.float64)[:, None], (1, len(plans)))
    return Check(OPINION, plans, lambda of, fit: fired)


def known(answers: CheckedAnswers) -> Check:
    """Fire where the first answer is worth nothing: no check that there is can know it."""
    plans = tuple(Plan(a, b) for a, b in pairs(answers))
    return Check(BOUND, plans, lambda of, fit: _where(plans, (of.quality == 0).astype(np.float64)))


def thresholds(answers: CheckedAnswers) -> tuple[Plan, ...]:
    """Return a plan a pair and share of SHARES."""
    return tuple(Plan(a, b, share=share) for a, b in pairs(answers) for share in SHARES)


def low(plans: Sequence[Plan], scores: dict[int, Array], fit: Mask) -> Array:
    """Mark scores below the quantile of each plan's share among the rows that may be fitted on: (rows, plans)."""
    columns = [scores[p.first] < np.quantile(scores[p.first][fit], p.share or 0.0) for p in plans]
    return np.stack(columns, axis=1).astype(np.float64)


def read_off(of: CheckedAnswers, m: int, targets: Array, fit: Mask) -> Array:
    """Predict targets (rows, columns) in [0, 1] from what a check sees of candidate m's answers; rows fitted on are out of fold."""
    x, found = of.seen[m], np.empty_like(targets)
    rows = HeadRows(x[fit], targets[fit], np.ones_like(targets[fit]), kept(of.keys, fit))
    with one_thread():
        heads = fit_heads(rows, estimator=READER)
        found[fit] = heads.out_of_fold_quality
        found[~fit] = predict(heads.tensors, x[~fit], heads.activation)[0]
    return found


def _where(plans: Sequence[Plan], fired: Array) -> Array:
    """Return where each plan asks its second: (rows, plans). fired: (rows, models)."""
    columns = [1 - fired[:, plan.first] if plan.unless else fired[:, plan.first] for plan in plans]
    return np.stack(columns, axis=1)
