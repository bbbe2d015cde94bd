"""A `Walk` is one candidate set on tau's path: fitted on out-of-fold predictions, walked and measured on the test split."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ipr_engine.bundle import RuleConstants
from ipr_engine.bundle.spec import OUTCOME_STEPS
from ipr_engine.evaluation.promised import EVERY_TAU, Kept
from ipr_engine.measures.resampling import Resamples, grouped_folds
from ipr_engine.measures.sweeps import choose, rule_constants
from ipr_engine.policy.tau_path import TauPath
from studies.cases import Case
from studies.trials import Prediction

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.integer]

LEAST_GAP, LEAST_RATIO = 0.03, 2.0  # what a set must have to trade, on the fitting rows
TRIPLES = 150  # at most, of a source


def candidate_sets(models: int, *, triples: int = TRIPLES, seed: int = 0) -> dict[str, list[tuple[int, ...]]]:
    """Return columns of all pairs, of at most `triples` triples drawn by chance, and the full set."""
    pairs: list[tuple[int, ...]] = list(itertools.combinations(range(models), 2))
    threes: list[tuple[int, ...]] = list(itertools.combinations(range(models), 3))
    if len(threes) > triples:
        drawn = np.random.default_rng(seed).choice(len(threes), triples, replace=False)
        threes = [threes[i] for i in sorted(drawn.tolist())]
    return {"pairs": pairs, "triples": threes, "full set": [tuple(range(models))]}


@dataclass(frozen=True, eq=False)
class Walk:
    """A `Walk` is one set, its path, and the test rows it is measured on; arrays of the set's columns alone.

    Attributes:
        predicted, predicted_cost, quality, cost: (rows, columns) of test.
        constants: of rule `fixed`, from all candidates' predictions on train.
    """

    columns: tuple[int, ...]
    path: TauPath
    predicted: Array
    predicted_cost: Array
    quality: Array
    cost: Array
    cost_ratio: float
    constants: RuleConstants

    @classmethod
    def of(cls, case: Case, prediction: Prediction, columns: Sequence[int]) -> Walk:
        at = list(columns)
        train_cost = prediction.train_cost[:, at]
        path = TauPath.fit(prediction.train_quality[:, at], case.train.quality[:, at], train_cost, np.arange(len(at)))
        paid = case.train.cost[:, at].mean(axis=0)
        return cls(
            columns=tuple(at),
            path=path,
            predicted=prediction.quality[:, at],
            predicted_cost=prediction.cost[:, at],
            quality=case.test.quality[:, at],
            cost=case.test.cost[:, at],
            cost_ratio=float(paid[path.best] / max(paid[path.cheapest], 1e-30)),
            constants=rule_constants(prediction.train_quality),
        )

    @property
    def trades(self) -> bool:
        """Return whether there is anything to trade: a gap and a ratio of costs, on the fitting rows."""
        gap = self.path.best_quality - self.path.cheapest_quality
        return gap >= max(LEAST_GAP, self.path.standard_error) and self.cost_ratio >= LEAST_RATIO

    def choices(self, tau: float) -> Indices:
        """Return (rows,) positions in `columns` that rule `path` takes."""
        if tau == 0:
            return choose(self.predicted, self.predicted_cost, tau=0.0)
        worth = 0.0 if tau == 1 else self.path.worth_at(self.path.promise(tau))
        return choose(self.predicted, self.predicted_cost, tau=1.0, worth=worth)

    def by_rule(self, tau: float, rule: str) -> Indices:
        """Return (rows,) positions in `columns` that a per-prompt rule takes, at worth 0."""
        return choose(self.predicted, self.predicted_cost, tau=tau, rule=rule, constants=self.constants)

    def share_of_cheapest(self, chosen: Indices) -> float:
        return float((chosen == self.path.cheapest).mean())

    @cached_property
    def every_choice(self) -> Indices:
        """Return the choices (taus, rows) at EVERY_TAU."""
        return np.stack([self.choices(tau) for tau in EVERY_TAU])

    def measure(self, resamples: Resamples) -> Kept:
        """Return means over the test rows and their resamples, at EVERY_TAU."""
        best, cheapest = self.path.best, self.path.cheapest
        return Kept.of(
            EVERY_TAU, self.every_choice, self.quality, self.cost, best=best, cheapest=cheapest, resamples=resamples
        )


def as_stored(prediction: Prediction, case: Case, *, rows: int, seed: int = 0) -> tuple[Prediction, Case]:
    """Return fitting rows as a bundle keeps them: at most `rows` of them by chance, quality in float16, outcomes in 254ths."""
    kept = np.sort(np.random.default_rng(seed).permutation(len(prediction.train_quality))[:rows])
    train = replace(case.train.take(kept), quality=np.round(case.train.quality[kept] * OUTCOME_STEPS) / OUTCOME_STEPS)
    stored = replace(
        prediction,
        train_quality=prediction.train_quality[kept].astype(np.float16).astype(np.float64),
        train_cost=prediction.train_cost[kept].astype(np.float32).astype(np.float64),
    )
    return stored, replace(case, train=train)


def halves(prediction: Prediction, case: Case, seed: int) -> tuple[Prediction, Case]:
    """Return the training split alone: fitted on one half of its questions, measured on the other, both predicted out of fold."""
    out = grouped_folds(case.train.data.question_keys, 2, seed) == 0
    quality, cost = prediction.train_quality, prediction.train_cost
    split = Prediction(quality[out], cost[out], quality[~out], cost[~out])
    return split, replace(case, train=case.train.take(~out), test=case.train.take(out))
