"""Routers of others, as `ipr eval --router ipr_engine.evaluation.other_routers:NAME` runs them, and to begin one of your own from.

Each is a function `fit(train)` that returns `route(prompts)` (router_interface.py). What is not the router's own is the house's: the
embedding, and mean training costs where a router predicts none.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine._extras import need
from ipr_engine.evaluation.router_interface import FittingData, Route
from ipr_engine.measures.routing import Axis, WeightedOutcomes
from ipr_engine.measures.sweeps import hull_mix, stacked, worth_sweep

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.integer]


def coin(train: FittingData) -> Route:
    """Toss a coin for every prompt: the best single candidate, or the cheapest. Its curve must lie on their straight line."""
    axis = Axis.of(train.outcomes)
    chances = np.linspace(0, 1, 11)

    def route(prompts: Sequence[str], seed: int) -> Indices:
        heads = np.random.default_rng(seed).random(len(prompts)) < chances[:, None]
        return np.where(heads, axis.best, axis.cheapest)

    return route


def litellm_heuristic_v2(train: FittingData) -> Route:
    """Route by LiteLLM's `heuristic_v2`, its own classifier and artifact; its four tiers go to vertices of the training hull.

    Raises:
        BackendUnavailableError: litellm is not installed, or is a version without `heuristic_v2`.
    """
    required_tier = load_tier_predictor("LiteLLM's heuristic_v2")
    columns = tier_columns(train.outcomes)

    def route(prompts: Sequence[str]) -> Indices:
        return np.asarray(columns[np.asarray([required_tier(prompt) for prompt in prompts]) - 1])

    return route


def load_tier_predictor(purpose: str) -> Callable[[str], int]:
    """Return what names the tier that a prompt needs, 1 (simple) to 4 (reasoning): LiteLLM's own classifier, on its wheel's artifact.

    Raises:
        BackendUnavailableError: litellm is not installed, or is a version without `heuristic_v2`; purpose: what asks for it.
    """
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else importing it asks the network for prices
    classifier = need("litellm.router_strategy.adaptive_router.classifier", purpose, package="litellm")
    tiers = need("litellm.router_strategy.complexity_router.tier_predictor", purpose, package="litellm")
    predictor = tiers.TierSuccessPredictor(tiers.resolve_tier_artifact("ultrafeedback"))
    return lambda prompt: int(predictor.predict(prompt, classifier.classify_prompt(prompt)).required_tier)


def tier_columns(train: WeightedOutcomes, tiers: int = 4) -> Indices:
    """Choose a candidate for every tier, easy to hard: hull vertices of the training outcomes, evenly spread by rank."""
    vertices = hull_mix(train).argmax(axis=1)
    return np.asarray(vertices[np.round(np.linspace(0, len(vertices) - 1, tiers)).astype(int)])


def hier_shrink(train: FittingData, clusters: Sequence[int] = (20, 100), shrinkage: float = 24.0) -> Route:
    """Route by HierShrink (vLLM semantic router, issue 3459): mean quality of the prompt's cluster, shrunk to the level above."""
    cluster = need("sklearn.cluster", "HierShrink", "eval")
    x = train.embed(train.prompts)
    levels: list[tuple[Any, Array, Array]] = []
    for k in clusters:
        model = cluster.KMeans(min(k, len(np.unique(x, axis=0))), n_init=3, random_state=train.seed).fit(x)
        member = np.eye(model.n_clusters)[model.labels_]  # (rows, clusters)
        levels.append((model, member.sum(axis=0)[:, None], member.T @ train.quality))

    def quality(prompts: Sequence[str]) -> Array:
        at = train.embed(prompts)
        shrunk = np.tile(train.quality.mean(axis=0), (len(at), 1))
        for model, count, total in levels:
            c = model.predict(at)
            shrunk = (total[c] + shrinkage * shrunk) / (count[c] + shrinkage)
        return shrunk

    mean_cost = train.cost_usd.mean(axis=0)
    return by_worth(train, lambda prompts: (quality(prompts), mean_cost))


def irt(train: FittingData) -> Route:
    """Route by item response theory: P = sigmoid(a * capability + b * difficulty + c), swept by worth."""
    mean_cost, success = train.cost_usd.mean(axis=0), _item_response(train)
    return by_worth(train, lambda prompts: (success(prompts), mean_cost))


def irt_threshold(train: FittingData) -> Route:
    """Route by the same P as xrouter-llm does: the cheapest candidate with P >= a threshold, where none has it the one of highest P."""
    mean_cost, success = train.cost_usd.mean(axis=0), _item_response(train)
    thresholds = np.quantile(success(train.prompts), np.linspace(0, 1, 41))

    def route(prompts: Sequence[str]) -> Indices:
        p = success(prompts)
        most = p.max(axis=1, keepdims=True)
        return stacked(np.where(p >= np.minimum(t, most), mean_cost, np.inf).argmin(axis=1) for t in thresholds)

    return route


def _item_response(train: FittingData) -> Callable[[Sequence[str]], Array]:
    """Return what gives P, (prompts, candidates).

    Capability is a candidate's mean training quality (xrouter-llm's own is a mean of public benchmarks). Difficulty is the share of
    candidates that fail a prompt, by ridge regression on its embedding, out of fold where a, b and c are fitted.
    """
    linear = need("sklearn.linear_model", "item response theory", "eval")
    selection = need("sklearn.model_selection", "item response theory", "eval")
    x, ridge = train.embed(train.prompts), linear.RidgeCV(np.geomspace(1e-3, 1e3, 13))
    failed, capability = 1 - train.quality.mean(axis=1), train.quality.mean(axis=0)
    pairs = _pairs(capability, selection.cross_val_predict(ridge, x, failed, cv=min(5, len(x))))
    ridge.fit(x, failed)
    # A quality q counts as q of a success and 1 - q of a failure.
    weights = np.concatenate([train.quality.ravel(), 1 - train.quality.ravel()]) + 1e-9
    model = linear.LogisticRegression().fit(np.tile(pairs, (2, 1)), np.repeat([1, 0], len(pairs)), weights)

    def success(prompts: Sequence[str]) -> Array:
        found = model.predict_proba(_pairs(capability, ridge.predict(train.embed(prompts))))[:, 1]
        return np.asarray(found.reshape(len(prompts), len(capability)))

    return success


def _pairs(capability: Array, difficulty: Array) -> Array:
    """Return capability and difficulty of every prompt and candidate: (prompts * candidates, 2)."""
    return np.stack([np.tile(capability, len(difficulty)), np.repeat(difficulty, len(capability))], axis=1)


def extra_trees(train: FittingData) -> Route:
    """Route by scikit-learn's extremely randomised trees, which predict every quality and cost from the embedding."""
    ensemble = need("sklearn.ensemble", "the router of trees", "eval")
    mean_cost = np.maximum(train.cost_usd.mean(axis=0), 1e-12)
    trees = ensemble.ExtraTreesRegressor(200, min_samples_leaf=5, max_features="sqrt", random_state=train.seed)
    trees.fit(train.embed(train.prompts), np.concatenate([train.quality, train.cost_usd / mean_cost], axis=1))

    def predict(prompts: Sequence[str]) -> tuple[Array, Array]:
        quality, cost = np.split(trees.predict(train.embed(prompts)), 2, axis=1)
        return quality, cost * mean_cost

    return by_worth(train, predict)


def by_worth(train: FittingData, predict: Callable[[Sequence[str]], tuple[Array, Array]]) -> Route:
    """Choose the greatest worth * quality - cost, for rising worths: the sweep of the house's own router.

    Args:
        predict: gives quality (prompts, candidates), and cost of the same shape or (candidates,).
    """
    return lambda prompts: worth_sweep(*predict(prompts), train.worths)
