"""`frontier` finds the taus at which one prompt's choice changes, from its qualities and costs, in the op's float32 steps."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ipr_engine.bundle.calibration import RuleConstants
from ipr_engine.bundle.spec import BundleSpec
from ipr_engine.decide.numpy_rule import order, threshold
from ipr_engine.policy.policy import Policy
from ipr_engine.policy.promise import point_at
from ipr_engine.policy.rules import CALIBRATED, PATH, compile_rule, path_coefficients

Float32s = npt.NDArray[np.float32]


class FrontierStep(NamedTuple):
    """A `FrontierStep` says that from this tau on, up to the next step, `model` is chosen."""

    tau: float
    model: str
    quality: float
    cost_usd: float


def frontier(
    policy: Policy,
    bundle: BundleSpec,
    qualities: Float32s,
    costs: Float32s,
    allowed: npt.NDArray[np.bool_],
    *,
    constants: RuleConstants | None,
) -> tuple[FrontierStep, ...]:
    """Return the steps in rising tau, the first at 0; on the float32 grid of tau, up to the rounding of the threshold (1 ulp).

    allowed: (models,) who may be chosen at some tau. Under rule `calibrated` the steps lie at the map's knots, under rule `path` where
    the worth passes the prompt's own break points.
    constants: of the heads that predicted these qualities, for rule `fixed`.
    """
    if policy.rule == CALIBRATED:
        return _knot_frontier(policy, bundle, qualities, costs, allowed)
    if policy.rule == PATH:
        return _path_frontier(policy, bundle, qualities, costs, allowed)
    preferred = [m for m in order(qualities, costs, policy.worth, bundle.tie_rank) if allowed[m]]

    def threshold_at(tau: np.float32) -> np.float32:
        coefficients = compile_rule(policy.rule, float(tau), slack=policy.slack, constants=constants)
        reached: np.float32 = threshold(coefficients, qualities[allowed].max(), qualities[allowed].min())
        return reached

    def enters_at(m: int) -> np.float32 | None:
        """Return the smallest float32 tau at which m is feasible, by bisection over the bit patterns of [0, 1]; None for none."""
        # float32 from 0 to 1 order as their bit patterns do, so 30 halvings find the smallest one
        low, high = 0, int(np.float32(1.0).view(np.int32))
        if qualities[m] < threshold_at(np.float32(1.0)):
            return None
        while low < high:
            middle = (low + high) // 2
            if qualities[m] >= threshold_at(np.int32(middle).view(np.float32)):
                high = middle
            else:
                low = middle + 1
        return np.int32(low).view(np.float32)

    # candidate -> the tau from which on it reaches the threshold; at each of these the best preferred one may change
    entries = {m: tau for m in preferred if (tau := enters_at(m)) is not None}
    steps: list[FrontierStep] = []
    for tau in sorted(set(entries.values())):
        m = next(m for m in preferred if m in entries and entries[m] <= tau)
        if not steps or steps[-1].model != bundle.names[m]:
            steps.append(FrontierStep(float(tau), bundle.names[m], float(qualities[m]), float(costs[m])))
    return tuple(steps)


def _knot_frontier(
    policy: Policy, bundle: BundleSpec, qualities: Float32s, costs: Float32s, allowed: npt.NDArray[np.bool_]
) -> tuple[FrontierStep, ...]:
    assert policy.map is not None  # what rule `calibrated` reads
    steps: list[FrontierStep] = []
    for knot in policy.map.knots:
        point = policy.map.points[knot.point]
        names = policy.map.candidates if point.allowed is None else point.allowed
        mask = allowed & np.array([name in names for name in bundle.names])
        if not mask.any():  # its single candidate is away: as `calibrated.resolve_point`, the others take its place
            mask = allowed
        least = threshold(point, qualities[mask].max(), qualities[mask].min())
        worth = point.worth if policy.options.get("worth") is None else policy.worth
        preferred = order(qualities, costs, worth, bundle.tie_rank)
        m = next(m for m in preferred if mask[m] and qualities[m] >= least)
        if not steps or steps[-1].model != bundle.names[m]:
            steps.append(FrontierStep(knot.level, bundle.names[m], float(qualities[m]), float(costs[m])))
    return tuple(steps)


def _path_frontier(
    policy: Policy, bundle: BundleSpec, qualities: Float32s, costs: Float32s, allowed: npt.NDArray[np.bool_]
) -> tuple[FrontierStep, ...]:
    """Return the steps under rule `path`, by halving ranges of tau.

    The choice moves along the prompt's lower envelope as tau rises: where both ends of a range agree, nothing lies between.
    """
    path = policy.path
    assert path is not None  # what rule `path` reads

    def chosen_at(bits: int) -> int:
        point = point_at(path, float(np.int32(bits).view(np.float32)))
        rule = path_coefficients(takes_best=point.takes_best)
        least = threshold(rule, qualities[allowed].max(), qualities[allowed].min())
        preferred = order(qualities, costs, point.worth, bundle.tie_rank)
        return next(m for m in preferred if allowed[m] and qualities[m] >= least)

    first, last = 0, int(np.float32(1.0).view(np.int32))
    found: list[tuple[int, int]] = [(first, chosen_at(first))]
    # ranges of bit patterns still to be halved: (low, choice there, high, choice there)
    open_: list[tuple[int, int, int, int]] = [(first, found[0][1], last, chosen_at(last))]
    while open_:
        low, at_low, high, at_high = open_.pop()
        if at_low == at_high:
            continue
        if high == low + 1:
            found.append((high, at_high))
            continue
        middle = (low + high) // 2
        between = chosen_at(middle)
        open_ += [(middle, between, high, at_high), (low, at_low, middle, between)]  # the lower half first
    return tuple(
        FrontierStep(float(np.int32(bits).view(np.float32)), bundle.names[m], float(qualities[m]), float(costs[m]))
        for bits, m in found
    )
