"""What a router has to beat: simple routers fitted on training outcomes, and the bounds nobody can pass.

A `Sweep` is what `routing.sweep_curve` measures: choices (points, rows), the cheap end first. Estimators predict
quality and cost; `worth_sweep` and `rule_sweep` turn predictions into sweeps, the same way for every estimator.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine.bundle import RuleConstants
from ipr_engine.errors import BackendUnavailableError
from ipr_engine.evaluation.bootstrap import Resamples
from ipr_engine.evaluation.routing import Axis, Outcomes, bounded_arqgc, hull, single_curve, sweep_curve
from ipr_engine.policy import compile_rule
from ipr_engine.training.ridge import fit_ridge

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

TAUS: Array = np.linspace(1.0, 0.0, 41)  # cheap to dear
# From one hundredth of a cent for a whole right answer up to where cost hardly counts.
WORTHS: Array = np.concatenate([[0.0], np.geomspace(1e-4, 10.0, 60)])
NEIGHBOURS = (5, 10, 20, 40, 80, 160, 320)
CLUSTERS = (2, 4, 8, 16, 32, 64)


def choose(
    quality: Array,
    cost: Array,
    *,
    tau: float,
    rule: str = "minmax",
    worth: float = 0.0,
    constants: RuleConstants | None = None,
) -> Indices:
    """The choice of every row by docs/design.md sections 3 and 4, in float64, all candidates allowed.

    Args:
        quality: (rows, models). cost: (rows, models), or (models,) for one mean cost each.
        Ties in objective go to the higher quality, then to the first column.
    """
    c = compile_rule(rule, tau, constants=constants)
    hi, lo = quality.max(axis=1), quality.min(axis=1)
    threshold = np.minimum((c.alpha_hi * hi + c.alpha_lo * lo) + c.offset, hi)
    objective = np.where(quality >= threshold[:, None], cost - worth * quality, np.inf)
    tied = objective == objective.min(axis=1, keepdims=True)
    return np.asarray(np.where(tied, quality, -np.inf).argmax(axis=1))


def rule_sweep(
    quality: Array, cost: Array, rule: str, taus: Array = TAUS, constants: RuleConstants | None = None
) -> Indices:
    """Choices (points, rows) of a rule while tau falls from 1 to 0, worth 0."""
    return np.stack([choose(quality, cost, tau=float(tau), rule=rule, constants=constants) for tau in taus])


def worth_sweep(quality: Array, cost: Array, worths: Array = WORTHS) -> Indices:
    """Choices (points, rows) at tau 1 while worth grows: the best sum of worth * quality - cost."""
    return np.stack([choose(quality, cost, tau=1.0, worth=float(worth)) for worth in worths])


def rule_constants(quality: Array) -> RuleConstants:
    """hi* and lo* of the `fixed` rule from predicted training quality (rows, models)."""
    return RuleConstants(hi=float(quality.max(axis=1).mean()), lo=float(quality.min(axis=1).mean()))


def single(column: int, rows: int) -> Indices:
    """One candidate for everything, as a sweep of one point."""
    return np.full((1, rows), column, dtype=np.int64)


def random_mix(axis: Axis, models: int, points: int = 11) -> Array:
    """Shares (points, models) of sending a random part to the best candidate and the rest to the cheapest."""
    part = np.linspace(0, 1, points)
    shares = np.zeros((points, models))
    shares[:, axis.cheapest] += 1 - part
    shares[:, axis.best] += part
    return shares


def hull_mix(outcomes: Outcomes) -> Array:
    """Shares (vertices, models), one hull vertex of single candidates a row: straight lines between are random mixes.

    Of training outcomes an honest baseline; of the test split itself the hindsight hull.
    """
    singles = single_curve(outcomes, Resamples(outcomes.rows, draws=0))
    return np.eye(outcomes.models)[hull(singles.cost[0], singles.quality[0])]


def oracle_sweep(outcomes: Outcomes, points: int = 200) -> Indices:
    """Choices (points, rows) of a router that knows every outcome, for all worths at which a choice changes.

    At each of its points no policy has a greater sum of worth * quality - cost. More than `points` worths are thinned
    to quantiles, the extremes kept. Complete rows only.
    """
    quality, cost = outcomes.quality, outcomes.cost
    slopes = [0.0]
    for q, c in zip(quality, cost, strict=True):
        on = hull(c, q)
        slopes.extend((np.diff(c[on]) / np.diff(q[on])).tolist())
    distinct = np.unique(slopes)
    if len(distinct) > points:
        distinct = np.unique(np.quantile(distinct, np.linspace(0, 1, points)))
    between = np.append((distinct[1:] + distinct[:-1]) / 2, 2 * distinct[-1] + 1)  # off the ties
    return worth_sweep(quality, cost, np.append(0.0, between))


@dataclass(frozen=True)
class Estimate:
    """An estimator's predictions: for test rows, and for training rows out of fold; what tuning chose.

    Attributes:
        quality, cost: (test rows, models). train_quality, train_cost: (train rows, models), out of fold.
    """

    quality: Array
    cost: Array
    train_quality: Array
    train_cost: Array
    setting: str


def knn(x: Array, train: Outcomes, folds: Indices, test_x: Array, neighbours: Sequence[int] = NEIGHBOURS) -> Estimate:
    """Mean quality and cost of the k nearest training prompts by cosine; k of greatest out-of-fold area on train."""
    from_sklearn = _need("sklearn.neighbors", "the kNN baseline")
    unit, test_unit = _unit(x), _unit(test_x)
    values = np.concatenate([train.quality, train.cost], axis=1)

    def averages(fit: Array, of: Array, at: Array, ks: Sequence[int]) -> list[Array]:
        near = from_sklearn.NearestNeighbors(n_neighbors=min(max(ks), len(fit)), algorithm="brute").fit(fit)
        running = np.cumsum(of[near.kneighbors(at, return_distance=False)], axis=1)  # (rows, k, 2 models)
        return [running[:, min(k, len(fit)) - 1] / min(k, len(fit)) for k in ks]

    def in_blocks(fit: Array, of: Array, at: Array, ks: Sequence[int]) -> list[Array]:
        blocks = [averages(fit, of, part, ks) for part in np.array_split(at, max(1, len(at) // 512))]
        return [np.concatenate(parts) for parts in zip(*blocks, strict=True)]

    ks = sorted({k for k in neighbours if k <= len(x) // 2} or {1})
    held = [np.empty_like(values) for _ in ks]
    for fold in np.unique(folds):
        out = folds == fold
        for table, part in zip(held, in_blocks(unit[~out], values[~out], unit[out], ks), strict=True):
            table[out] = part
    k, table = _best(ks, held, train)
    final = in_blocks(unit, values, test_unit, [k])[0]
    return _split(final, table, train.models, f"k = {k}")


def kmeans(
    x: Array, train: Outcomes, folds: Indices, test_x: Array, clusters: Sequence[int] = CLUSTERS, seed: int = 0
) -> Estimate:
    """Mean quality and cost of the prompt's k-means cluster; k of greatest out-of-fold area on train."""
    from_sklearn = _need("sklearn.cluster", "the k-means baseline")
    unit, test_unit = _unit(x), _unit(test_x)
    values = np.concatenate([train.quality, train.cost], axis=1)

    def averages(fit: Array, of: Array, at: Array, k: int) -> Array:
        model = from_sklearn.KMeans(n_clusters=k, n_init=3, random_state=seed).fit(fit)
        means = np.stack([of[model.labels_ == c].mean(axis=0) for c in range(k)])
        return np.asarray(means[model.predict(at)])

    ks = [k for k in clusters if k <= len(np.unique(unit, axis=0)) // 2] or [1]
    held = [np.empty_like(values) for _ in ks]
    for fold in np.unique(folds):
        out = folds == fold
        for table, k in zip(held, ks, strict=True):
            table[out] = averages(unit[~out], values[~out], unit[out], k)
    k, table = _best(ks, held, train)
    return _split(averages(unit, values, test_unit, k), table, train.models, f"k = {k}")


def ridge(x: Array, train: Outcomes, folds: Indices, test_x: Array) -> Estimate:
    """Plain ridge for every quality and every cost, a penalty each of least squared error out of fold; clipped."""
    values = np.concatenate([train.quality, train.cost], axis=1)
    fit = fit_ridge(x, values, folds)
    low = np.concatenate([np.zeros(train.models), train.cost.min(axis=0)])
    high = np.concatenate([np.ones(train.models), train.cost.max(axis=0)])
    final = np.clip(test_x @ fit.weights.T + fit.bias, low, high)
    return _split(final, np.clip(fit.out_of_fold, low, high), train.models, "a penalty a target")


def _best(settings: Sequence[int], tables: Sequence[Array], train: Outcomes) -> tuple[int, Array]:
    """The setting whose out-of-fold `worth` sweep has the greatest area; ties and undefined areas to the largest."""
    once, axis = Resamples(train.rows, draws=0), Axis.of(train)
    singles = single_curve(train, once)
    areas = []
    for table in tables:
        choices = worth_sweep(table[:, : train.models], table[:, train.models :])
        areas.append(bounded_arqgc(sweep_curve(choices, train, once), axis, singles)[0])
    order = np.nan_to_num(np.asarray(areas), nan=-np.inf)
    best = len(order) - 1 - int(order[::-1].argmax())
    return settings[best], tables[best]


def _split(final: Array, held: Array, models: int, setting: str) -> Estimate:
    return Estimate(final[:, :models], final[:, models:], held[:, :models], held[:, models:], setting)


def _unit(x: Array) -> Array:
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-32))


ESTIMATORS: dict[str, Callable[[Array, Outcomes, Indices, Array], Estimate]] = {
    "kNN": knn,
    "k-means": kmeans,
    "ridge": ridge,
}


def tier_columns(train: Outcomes, tiers: int = 4) -> Indices:
    """A candidate for every tier, easy to hard: hull vertices of the training outcomes, evenly spread by rank."""
    vertices = hull_mix(train).argmax(axis=1)
    return np.asarray(vertices[np.round(np.linspace(0, len(vertices) - 1, tiers)).astype(int)])


def litellm_tiers(prompts: Sequence[str]) -> Indices:
    """LiteLLM's `heuristic_v2` tier of every prompt, 0 (simple) to 3 (reasoning), by LiteLLM's own code and artifact.

    Raises:
        BackendUnavailableError: litellm is not installed, or is a version without `heuristic_v2`.
    """
    purpose = "LiteLLM's heuristic_v2"
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else importing it asks the network for prices
    classifier = _need("litellm.router_strategy.adaptive_router.classifier", purpose, package="litellm")
    tiers = _need("litellm.router_strategy.complexity_router.tier_predictor", purpose, package="litellm")
    predictor = tiers.TierSuccessPredictor(tiers.resolve_tier_artifact("ultrafeedback"))
    return np.asarray(
        [predictor.predict(p, classifier.classify_prompt(p)).required_tier - 1 for p in prompts], dtype=np.int64
    )


def _need(module: str, purpose: str, package: str = "ipr_engine[eval]") -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise BackendUnavailableError(f"{purpose} needs {module}: pip install '{package}' ({error})") from error
