"""This benchmark times text to decision under a bare policy, under one with mask, family and map, and under one with weights.

The weights are on seconds and Wh beside USD. Calls are also timed with what a server would log of each decision, the model
and the calibration status, and with the rest of a decision read: who is next in failover, and the whole of it as a dict.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from ipr_engine import Bundle, Decisions, Engine, Policy
from ipr_engine.bundle import CalibratedPoint, CalibrationMap, CalibrationSample, Knot, with_calibrations
from ipr_engine.decide.reference import failover

from ..harness.results import Line
from ..harness.turns import FULL, Size, interleave
from .prompts import ASCII

TAU = 0.2
FAMILY = "Claude"


def run(size: Size = FULL) -> Iterator[Line]:
    yield from interleave(variants(), list(ASCII), {"op": "policy", "prompts": "ascii"}, base="bare", size=size)
    yield from interleave(readings(), list(ASCII), {"op": "decision", "prompts": "ascii"}, base="model", size=size)


def variants() -> dict[str, Callable[[str], object]]:
    bundle = Engine.load().bundle
    family = tuple(candidate.name for candidate in bundle.candidates if candidate.family == FAMILY)
    with tempfile.TemporaryDirectory() as root:
        engine = Engine.load(with_calibrations(bundle, [family_map(bundle, family)], root=Path(root)))
    bare = engine.policy(tau=TAU)
    full = engine.policy(tau=TAU, rule="calibrated", family=FAMILY, requires="tools")
    check(engine, full, family)
    figures = {name: {"ttft_s": 0.4, "tpot_s": 0.01, "wh_per_1m_output": 200.0} for name in bundle.names}
    weighed = engine.policy(
        tau=TAU, cost_weights={"ttft_s": 1e-3, "generation_s": 1e-4, "wh": 1e-3}, performance=figures
    )

    def logged(policy: Policy) -> Callable[[str], object]:
        def call(prompt: str) -> object:
            decision = engine.route(prompt, policy)
            return decision.model, decision.calibration

        return call

    return {
        "bare": lambda prompt: engine.route(prompt, bare),
        "mask, family, calibration": lambda prompt: engine.route(prompt, full),
        "USD, seconds and Wh": lambda prompt: engine.route(prompt, weighed),
        "bare, model and status read": logged(bare),
        "mask, family, calibration, model and status read": logged(full),
    }


def readings() -> dict[str, Callable[[str], object]]:
    engine = Engine.load()
    policy, rank = engine.policy(tau=TAU), engine.bundle.tie_rank
    made = {prompt: engine.route(prompt, policy) for prompt in ASCII}
    for decision in made.values():
        c, rows = decision.coefficients, (decision.qualities, decision.costs_usd, decision.allowed)
        order = failover(*rows, rank, c, policy.worth, np.float32)
        assert decision.ranked == tuple(engine.bundle.names[m] for m in order), decision
        assert decision.to_dict()["ranked"] == list(decision.ranked)
    return {
        "model": lambda prompt: made[prompt].model,
        "ranked": lambda prompt: made[prompt].ranked,
        "to_dict": lambda prompt: made[prompt].to_dict(),
    }


def check(engine: Engine, policy: Policy, family: tuple[str, ...]) -> None:
    """Check that the policy does what it is timed for: it chooses inside the family, and is calibrated."""
    decisions = engine.route_many(list(ASCII), policy)
    assert isinstance(decisions, Decisions)
    assert set(decisions.models) <= set(family), decisions
    assert set(decisions.calibration) == {"calibrated"}, decisions[0].calibration_reason


def family_map(bundle: Bundle, names: tuple[str, ...]) -> CalibrationMap:
    """Return a map in form, not in truth: what it costs to run one does not depend on its numbers."""
    point = CalibratedPoint(
        alpha_hi=0.0,
        alpha_lo=1.0,
        offset=0.0,
        worth=0.01,
        allowed=None,
        quality=0.5,
        quality_lower=0.5,
        cost_usd=1e-3,
        share_best=0.5,
    )
    return CalibrationMap(
        family=FAMILY,
        whole=False,
        candidates=names,
        heads=bundle.heads_key(names),
        prices=bundle.prices.key(bundle.candidates, names),
        best=names[0],
        cheapest=names[-1],
        risk=0.1,
        simultaneous=False,
        test="target",
        best_quality=0.6,
        cheapest_quality=0.4,
        sample=CalibrationSample(
            source="none",
            prompts=1,
            prompt_ids_sha256="0" * 64,
            path_source="none",
            path_prompts=1,
            disjoint="stated",
            support=None,
        ),
        points=(point, point),
        knots=tuple(Knot(level=level, point=0, status="certified") for level in (0.0, 1.0)),
        shares=(Knot(level=1.0, point=0, status="certified"),),
    )
