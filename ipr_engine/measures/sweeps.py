"""A sweep holds choices (points, rows) by one parameter of a rule, the cheap end first; `routing.sweep_curve` measures it.

`worth_sweep` and `rule_sweep` turn predicted quality and cost into sweeps, the same way for every estimator; `single`,
`random_mix`, `hull_mix` and `oracle_sweep` are those that need no prediction.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from ipr_engine.bundle import RuleConstants
from ipr_engine.decide.numpy_rule import threshold
from ipr_engine.measures.resampling import Resamples
from ipr_engine.measures.routing import Axis, WeightedOutcomes, hull, single_curve
from ipr_engine.policy.rules import compile_rule

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.integer]

TAUS: Array = np.linspace(1.0, 0.0, 41)  # cheap to dear
# From one hundredth of a cent for a whole right answer up to where cost hardly counts, of prompts that cost about a cent at most.
WORTHS: Array = np.concatenate([[0.0], np.geomspace(1e-4, 10.0, 60)])


def worth_grid(cost: Array) -> Array:
    """Return the worths to sweep on outcomes of these costs: WORTHS, continued at the same density as far as the scale of costs asks.

    The most has to buy the dearest candidate for a thousandth of quality, the least may buy no whole unit of it at the distance
    between the dearest and the cheapest: beyond either end no sweep changes. WORTHS reaches that for mean costs of 0.0001 to
    0.01 per prompt; costs in cents or per 1,000 prompts need more.

    Args:
        cost: (rows, models) realised, NaN where unknown.
    """
    mean = np.nanmean(cost, axis=0)
    most, least = 1000 * float(mean.max()), float(mean.max() - mean.min())
    step = (WORTHS[-1] / WORTHS[1]) ** (1 / (len(WORTHS) - 2))  # the ratio of two neighbours; WORTHS[0] is 0
    above = max(0, math.ceil(math.log(most / WORTHS[-1], step))) if most > 0 else 0
    below = max(0, math.ceil(math.log(WORTHS[1] / least, step))) if least > 0 else 0
    return np.concatenate(
        [
            [0.0],
            WORTHS[1] * step ** -np.arange(below, 0, -1.0),
            WORTHS[1:],
            WORTHS[-1] * step ** np.arange(1.0, above + 1),
        ]
    )


def choose(
    quality: Array,
    cost: Array,
    *,
    tau: float,
    rule: str = "minmax",
    worth: float = 0.0,
    constants: RuleConstants | None = None,
) -> Indices:
    """Choose for every row by docs/decide.md, in float64, all candidates allowed: (rows,).

    Args:
        quality: (rows, models). cost: (rows, models), or (models,) for one mean cost each.
        Ties in objective go to the higher quality, then to the first column.
    """
    c = compile_rule(rule, tau, constants=constants)
    hi, lo = quality.max(axis=1), quality.min(axis=1)
    objective = np.where(quality >= threshold(c, hi, lo, np.float64)[:, None], cost - worth * quality, np.inf)
    # Of equal objectives the higher quality, of equal qualities the first column, as `decide` does.
    tied = objective == objective.min(axis=1, keepdims=True)
    return np.asarray(np.where(tied, quality, -np.inf).argmax(axis=1))


def stacked(settings: Iterable[Indices]) -> Indices:
    """Return the choices of each setting (rows,) as a sweep (points, rows), in integers no wider than columns need."""
    return np.stack([chosen.astype(np.int16) for chosen in settings])


def rule_sweep(
    quality: Array, cost: Array, rule: str, taus: Array = TAUS, constants: RuleConstants | None = None
) -> Indices:
    """Choose by a rule while tau falls from 1 to 0, at worth 0: (points, rows)."""
    return stacked(choose(quality, cost, tau=float(tau), rule=rule, constants=constants) for tau in taus)


def worth_sweep(quality: Array, cost: Array, worths: Array = WORTHS) -> Indices:
    """Choose at tau 1 while worth grows: (points, rows), each the greatest worth * quality - cost."""
    return stacked(choose(quality, cost, tau=1.0, worth=float(worth)) for worth in worths)


def rule_constants(quality: Array) -> RuleConstants:
    """Return hi* and lo* of the `fixed` rule from predicted training quality (rows, models)."""
    return RuleConstants(hi=float(quality.max(axis=1).mean()), lo=float(quality.min(axis=1).mean()))


def single(column: int, rows: int) -> Indices:
    """Choose one candidate for everything, as a sweep of one point."""
    return np.full((1, rows), column, dtype=np.int64)


def random_mix(axis: Axis, models: int, points: int = 11) -> Array:
    """Return the shares (points, models) of sending a random part to the best candidate and the rest to the cheapest."""
    part = np.linspace(0, 1, points)
    shares = np.zeros((points, models))
    shares[:, axis.cheapest] += 1 - part
    shares[:, axis.best] += part
    return shares


def hull_mix(outcomes: WeightedOutcomes) -> Array:
    """Return the shares (vertices, models) of the hull of single candidates, one vertex a row: straight lines between are random mixes.

    Of training outcomes an honest baseline; of the test split itself the hindsight hull.
    """
    singles = single_curve(outcomes, Resamples(outcomes.rows, draws=0))
    return np.eye(outcomes.models)[hull(singles.cost[0], singles.quality[0])]


def oracle_sweep(outcomes: WeightedOutcomes, points: int = 200) -> Indices:
    """Choose by the outcomes themselves, at all worths at which a choice changes: (points, rows).

    At each of its points no policy has a greater sum of worth * quality - cost. More than `points` worths are thinned
    to quantiles, the extremes kept. Complete rows only.
    """
    quality, cost = outcomes.quality, outcomes.cost
    # A row's choice changes where worth equals a slope of its hull, in USD per unit of quality.
    slopes = [0.0]
    for q, c in zip(quality, cost, strict=True):
        on = hull(c, q)
        slopes.extend((np.diff(c[on]) / np.diff(q[on])).tolist())
    distinct = np.unique(slopes)
    if len(distinct) > points:
        distinct = np.unique(np.quantile(distinct, np.linspace(0, 1, points)))
    between = np.append((distinct[1:] + distinct[:-1]) / 2, 2 * distinct[-1] + 1)  # off the ties
    return worth_sweep(quality, cost, np.append(0.0, between))
