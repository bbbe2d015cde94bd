"""Outcomes for the tests of evaluation are generated: candidates that get better with cost, prompts that differ."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np

from ipr_engine import Engine
from ipr_engine.data import Outcomes
from ipr_engine.evaluation.evaluate import evaluate_engine as evaluate
from ipr_engine.evaluation.evaluation_inputs import EvaluatedCandidates, EvaluationOptions, Split
from ipr_engine.evaluation.summary import Summary
from ipr_engine.measures.routing import WeightedOutcomes
from tests.support.seeds import seeded


def make_outcomes(*seed: object, rows: int = 300, models: int = 4, dim: int = 6) -> tuple[WeightedOutcomes, np.ndarray]:
    """Return complete outcomes and the embeddings (rows, dim) that half explain them."""
    rng = seeded("outcomes", rows, models, dim, *seed)
    x = rng.standard_normal((rows, dim))
    chance = 1 / (1 + np.exp(-(x @ rng.standard_normal((dim, models)) + np.linspace(-0.5, 1.5, models))))
    cost = 1e-3 * np.geomspace(1, 20, models) * rng.uniform(0.7, 1.3, (rows, models))
    return WeightedOutcomes.complete((rng.random(chance.shape) < chance).astype(float), cost), x


def make_split(*seed: object, rows: int = 300, models: int = 4) -> Split:
    from ipr_engine.measures.sweeps import rule_sweep, worth_sweep

    outcomes, x = make_outcomes(*seed, rows=rows, models=models)
    rng = seeded("predicted", *seed)
    predicted = np.clip(0.6 * outcomes.quality + 0.4 * rng.random(outcomes.quality.shape), 0, 1)
    cost = np.tile(outcomes.cost.mean(axis=0), (rows, 1))
    return Split(
        outcomes=outcomes,
        x=x,
        groups=[f"question {i // 2}" for i in range(rows)],
        predicted=predicted,
        predicted_cost=cost,
        sweeps={"worth": worth_sweep(predicted, cost), "minmax": rule_sweep(predicted, cost, "minmax")},
    )


def evaluate_engine(engine: Engine, outcomes: Outcomes, **options: Any) -> Summary:
    """Call `evaluate_engine` with the fields of its two objects of options by name."""
    of, how = (
        kind(**{field.name: options.pop(field.name) for field in fields(kind) if field.name in options})
        for kind in (EvaluatedCandidates, EvaluationOptions)
    )
    return evaluate(engine, outcomes, candidates=of, options=how, **options)
