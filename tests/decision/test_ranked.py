"""`ranked` and `to_dict` read the compiled result; their values are those of the numpy definition (reference.failover)."""

import numpy as np
import pytest

from ipr_engine import Engine
from ipr_engine._C import DecidePlan, DecidePolicy, decide_result
from ipr_engine.decide import reference
from ipr_engine.decide.contract import Heads
from ipr_engine.policy.rules import Coefficients
from tests.support.bundles import make_bundle
from tests.support.two_tier_bundles import join, make_tiers

CHAT = [{"role": "user", "content": "what is the story"}]
TOOLS = {"messages": CHAT, "tools": [{"type": "function", "function": {"name": "f"}}], "max_tokens": 40}
PROMPTS = [
    "why",
    "what is the story",
    CHAT,
    TOOLS,
    "a b c " * 400,
    "how to code",
    {"messages": CHAT, "max_tokens": 9000},
]
TERMS = [
    {"tau": 0.0},
    {"tau": 0.4},
    {"tau": 1.0},
    {"tau": 0.3, "worth": 0.01},
    {"tau": 0.2, "rule": "max", "slack": 0.1},
    {"tau": 0.5, "exclude": ["beta/mid"]},
    {"tau": 0.5, "min_support": 1.0, "unsupported": "alpha/large"},
    {"tau": 0.5, "min_support": 1.0, "unsupported": "cheapest"},
]


@pytest.mark.parametrize("models", [1, 2, 3, 11, 17, 40])
def test_the_compiled_order_is_the_definition_to_the_last_tie(models, rng):
    ties = rng.permutation(models).astype(np.int32)
    plan = DecidePlan(Heads(skip=np.ones((models, 2), np.float32), bias=np.zeros(models, np.float32), tie_rank=ties))
    names = tuple(f"c{m}" for m in range(models))
    for _ in range(60):
        quality = (rng.integers(0, 6, models) / 5).astype(np.float32)  # ties abound
        cost = (rng.integers(0, 4, models) / 1000).astype(np.float32)
        if rng.random() < 0.5:
            quality, cost = rng.random(models, np.float32), rng.random(models, np.float32)
        hi, lo, offset = (float(x) for x in rng.uniform(-1, 1, 3))
        worth = float(rng.choice([0.0, 1e-3, 0.3]))
        mask = rng.random(models) < 0.7
        mask[rng.integers(models)] = True
        own = np.zeros(models, np.float32)
        policy = DecidePolicy(plan, hi, lo, offset, worth, own, own, own, mask)
        result = decide_result(
            quality=quality[None],
            tokens_out=quality[None],
            cost_usd=cost[None],
            threshold=own[:1],
            gap=own[:1],
            index=np.zeros(1, np.int32),
            status=np.zeros(1, np.uint8),
            cause=np.full(1, 3, np.uint8),
        )
        want = reference.failover(quality, cost, mask, ties, Coefficients(hi, lo, offset), worth, np.float32)
        assert result.ranked(0, policy, names, None) == tuple(names[m] for m in want)
        fewer = mask & (rng.random(models) < 0.5)
        want = reference.failover(quality, cost, fewer, ties, Coefficients(hi, lo, offset), worth, np.float32)
        assert result.ranked(0, policy, names, fewer.tobytes()) == tuple(names[m] for m in want)


@pytest.fixture(scope="module")
def engines(tmp_path_factory):
    one = make_bundle(tmp_path_factory.mktemp("one"), models=5, dim=16, context_windows=[1000, None, 800, 600, None])
    folder = tmp_path_factory.mktemp("two")
    return [Engine.load(one), Engine(join(folder, make_tiers(folder), gap=0.05))]


def as_before(decision):
    """`to_dict` as it was written before it read the compiled result at once: field by field."""
    ok = decision.status == "ok"
    finite = ok and np.isfinite(decision.gap)
    policy = decision.policy
    order = []
    if ok:
        c = decision.coefficients
        order = reference.failover(
            decision.qualities, decision.costs_usd, decision.allowed, decision.bundle.tie_rank,
            c, policy.worth, np.float32,
        )  # fmt: skip
        if decision.cause == "unsupported":
            cheapest = policy.unsupported.candidate is None
            if cheapest:
                free = np.flatnonzero(decision.allowed)
                keys = (decision.bundle.tie_rank[free], -decision.qualities[free], decision.costs_usd[free])
                order = free[np.lexsort(keys)].tolist()
            order = [decision.index, *(m for m in order if m != decision.index)]
    return {
        "model": decision.model,
        "status": decision.status,
        "reason": decision.reason,
        "cause": decision.cause,
        "prior": decision.prior,
        "quality": decision.quality if ok else None,
        "cost_usd": decision.cost_usd if ok else None,
        "cost": decision.cost if ok else None,
        "cost_terms": None,
        "tokens_in": decision.tokens_in if ok else None,
        "tokens_out": decision.tokens_out if ok else None,
        "threshold": decision.threshold if ok else None,
        "gap": decision.gap if finite else None,
        "support": decision.support if decision.support is None or np.isfinite(decision.support) else None,
        "billed_tokens": decision.billed_tokens,
        "truncated": decision.truncated,
        "escalated": decision.escalated,
        "ranked": [decision.bundle.names[m] for m in order],
        "excluded": {v.name: v.excluded_because for v in decision.candidates if v.excluded_because is not None},
        "tau": policy.tau,
        "rule": policy.rule,
        "worth": policy.worth,
        "promise": None if policy.promise is None else policy.promise.to_dict(),
        "calibration": decision.calibration,
        "calibration_reason": decision.calibration_reason,
        "bundle": decision.bundle_hash,
    }


@pytest.mark.parametrize("terms", TERMS, ids=str)
def test_to_dict_and_ranked_are_what_they_were_field_by_field(engines, terms):
    for engine in engines:
        known = set(engine.bundle.names)
        if not {*terms.get("exclude", ()), terms.get("unsupported", "cheapest")} - {"cheapest"} <= known:
            continue
        if "min_support" in terms and engine.bundle.support is None:
            continue
        made = engine.route_many([*PROMPTS, ""], on_error="status", **terms)
        assert made[-1].status == "invalid_input"
        for row in made:
            got = row.to_dict()
            assert got == as_before(row)
            assert list(got) == list(as_before(row))
            assert list(got["excluded"]) == [name for name in engine.bundle.names if name in got["excluded"]]
            assert row.ranked[:1] == (() if row.model is None else (row.model,))
