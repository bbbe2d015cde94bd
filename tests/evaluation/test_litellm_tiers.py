"""LiteLLM's heuristic_v2 among other routers: its own code and artifact, four tiers at vertices of the training hull."""

import importlib.util
import sys

import numpy as np
import pytest

from ipr_engine.evaluation.other_routers import litellm_heuristic_v2, tier_columns
from ipr_engine.evaluation.router_interface import FittingData
from tests.support import skips
from tests.support.evaluation_data import make_outcomes

pytestmark = pytest.mark.skipif(importlib.util.find_spec("litellm") is None, reason=skips.GATEWAYS)

EASY = ["hi", "thanks, that is all", "What is the capital of France?"]
HARD = [
    "Prove that the integral of f over [0, 1] equals the limit of its Riemann sums, and derive an error bound in terms of n.",
    "Write a python function that solves this differential equation numerically, and explain why the scheme is stable.",
]


def test_tiers_are_its_own_and_go_to_vertices_of_the_training_hull(request):
    outcomes, _ = make_outcomes(request.node.name, rows=200)
    train = FittingData(
        candidates=("a", "b", "c", "d"),
        prices=(),
        prompts=tuple(map(str, range(200))),
        quality=outcomes.quality,
        cost_usd=outcomes.cost,
        embed=lambda prompts: np.zeros((len(prompts), 1)),
    )
    chosen = litellm_heuristic_v2(train)([*EASY, *HARD])
    assert "litellm.router_strategy.complexity_router.tier_predictor" in sys.modules
    columns = tier_columns(outcomes).tolist()
    assert set(chosen.tolist()) <= set(columns)
    from litellm.router_strategy.adaptive_router.classifier import classify_prompt
    from litellm.router_strategy.complexity_router.tier_predictor import TierSuccessPredictor, resolve_tier_artifact

    predictor = TierSuccessPredictor(resolve_tier_artifact("ultrafeedback"))
    own = [predictor.predict(prompt, classify_prompt(prompt)).required_tier for prompt in [*EASY, *HARD]]
    assert chosen.tolist() == [columns[tier - 1] for tier in own]
    assert len(set(own)) > 1
