"""Rule `path` on the op: predicted cost never rises with tau, the frontier agrees with routing, the gap is exact."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipr_engine.decide import reference
from ipr_engine.decide.contract import DecidePlan, DecidePolicy
from ipr_engine.policy.promise import TAUS, point_at
from ipr_engine.policy.rules import path_coefficients
from ipr_engine.policy.tau_path import TauPath
from tests.support.calibration_data import make_engine, make_outcomes
from tests.support.decide_requests import make_heads
from tests.support.path_rows import with_path

ROUNDING = 4 * np.finfo(np.float32).eps  # of an objective: worth * quality, the difference, and the two costs


def float32_neighbours(tau):
    tau = np.float32(tau)
    return [float(np.nextafter(tau, np.float32(0))), float(tau), float(np.nextafter(tau, np.float32(1)))]


def never_rises(choices, qualities, costs, worths):
    """The cost of each prompt over rising tau: up only between two candidates whose objectives are one number in float32."""
    every = np.arange(len(qualities))
    for before, after, worth in zip(choices[:-1], choices[1:], worths[:-1], strict=True):
        risen = costs[every, after] > costs[every, before]
        for row in every[risen]:
            a, b = (costs[row, m] - worth * qualities[row, m] for m in (before[row], after[row]))
            size = costs[row].max() + worth * qualities[row].max()
            assert abs(a - b) <= ROUNDING * size, (row, before[row], after[row], worth)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    models=st.integers(1, 12),
    extra=st.lists(st.floats(0, 1, width=32), max_size=4),
    spread=st.sampled_from([0.0, 0.3, 2.0]),
    rounded=st.booleans(),
)
def test_predicted_cost_never_rises_with_tau(seed, models, extra, spread, rounded):
    rng = np.random.default_rng(seed)
    heads = make_heads(rng, models, 8)
    prices = np.exp(rng.normal(0, spread, models)) * 1e-6
    terms = {
        "in_rate": prices.astype(np.float32),
        "out_rate": (4 * prices).astype(np.float32),
        "fixed_usd": np.zeros(models, np.float32),
    }
    x, billed = rng.standard_normal((40, 8)).astype(np.float32), rng.integers(1, 3000, 40).astype(np.float32)
    fitted = rng.standard_normal((200, 8)).astype(np.float32)
    quality = 1 / (1 + np.exp(-reference.predict_logit(heads, fitted)))
    if rounded:  # many prompts of equal quality
        quality = quality.round(1)
    cost = prices * 500 + 4 * prices * reference.predict_tokens(heads, fitted)
    outcome = (rng.random(quality.shape) < quality).astype(np.float64)
    outcome[rng.random(outcome.shape) < 0.2] = np.nan
    path = TauPath.fit(quality, outcome, cost, np.arange(models))

    taus = sorted({0.0, 1.0, *TAUS, *(t for tau in (*TAUS, *extra) for t in float32_neighbours(tau) if 0 <= t <= 1)})
    plan, points = DecidePlan(heads), [point_at(path, tau) for tau in taus]
    worths = [point.worth for point in points]
    assert worths[1:] == sorted(worths[1:], reverse=True)
    allowed = np.ones(models, bool)
    made = []
    for point in points:
        c = path_coefficients(takes_best=point.takes_best)
        rule = {"alpha_hi": c.alpha_hi, "alpha_lo": c.alpha_lo, "offset": c.offset, "worth": point.worth}
        result = plan.run(x, DecidePolicy(plan, **rule, **terms, allowed=allowed), billed)
        made.append(result.index.copy())
        for row in (0, 17):  # a row of a batch equals that row alone
            alone = plan.run(x[row : row + 1], DecidePolicy(plan, **rule, **terms, allowed=allowed), float(billed[row]))
            assert alone.index_at(0) == made[-1][row]
        if point.tau not in (0.0, 0.3, 1.0):
            continue
        exact = reference.decide(heads, {**rule, **terms, "allowed": allowed}, x, billed)
        for row, wanted in enumerate(exact.rows):
            if wanted.index != made[-1][row] and not point.takes_best:
                objective = exact.cost_usd[row] - point.worth * exact.quality[row]
                size = exact.cost_usd[row].max() + point.worth
                assert abs(objective[wanted.index] - objective[made[-1][row]]) <= 40 * ROUNDING * size
    qualities, costs = result.quality.astype(np.float64), result.cost_usd.astype(np.float64)
    every = np.arange(len(x))
    assert (qualities[every, made[0]] == qualities.max(axis=1)).all()
    assert (costs[every, made[-1]] == costs.min(axis=1)).all()
    never_rises(made[1:], qualities, costs, worths[1:])
    never_rises(made[:2], qualities, costs, worths[1:2] * 2)


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    return with_path(make_engine(tmp_path_factory.mktemp("plain"), models=5))


@pytest.fixture(scope="module")
def default(default_engine):
    return with_path(default_engine, rows=300)


@pytest.mark.parametrize("family", [None, "claude", "gpt"])
def test_of_the_real_bundle_too(default, family):
    encoded = default.encode(list(make_outcomes(default, "monotone", 200).prompts))
    taus = sorted({t for tau in np.linspace(0, 1, 21) for t in float32_neighbours(tau) if 0 <= t <= 1})
    decided = [default.decide(encoded, tau=tau, family=family) for tau in taus]
    worths = [decisions.policy.worth for decisions in decided]
    assert worths[1:] == sorted(worths[1:], reverse=True)
    qualities, costs = decided[0].qualities.astype(np.float64), decided[0].costs_usd.astype(np.float64)
    never_rises([d.index for d in decided][1:], qualities, costs, worths[1:])
    assert (decided[0].cost_usd >= decided[1].cost_usd).all()


def test_the_frontier_is_every_tau_at_which_the_choice_changes(engine):
    prompts = list(make_outcomes(engine, "frontier", 25).prompts)
    changes = 0
    for decision in engine.route_many(prompts, tau=0.4):
        steps = decision.frontier
        assert steps[0].tau == 0.0
        assert [step.cost_usd for step in steps] == sorted((step.cost_usd for step in steps), reverse=True)
        encoded = engine.encode(prompts[decision.row])
        for step, then in zip(steps, [*steps[1:], None], strict=True):
            assert engine.decide(encoded, tau=step.tau).models == [step.model]
            last = 1.0 if then is None else float(np.nextafter(np.float32(then.tau), np.float32(0)))
            assert engine.decide(encoded, tau=last).models == [step.model]
        changes += len(steps) - 1
        taus = np.linspace(0, 1, 12)
        chosen = [next(s.model for s in reversed(steps) if s.tau <= tau) for tau in taus]
        assert [engine.decide(encoded, tau=float(tau)).models[0] for tau in taus] == chosen
    assert changes > 25


def test_who_is_ranked_first_is_chosen_and_the_next_one_when_it_is_away(engine):
    prompts = list(make_outcomes(engine, "ranked", 40).prompts)
    for tau in (0.0, 0.2, 0.6, 1.0):
        policy = engine.policy(tau=tau)
        for decision in engine.route_many(prompts, policy):
            ranked = decision.ranked
            assert ranked[0] == decision.model
            assert set(ranked) == set(engine.bundle.names)
            objective = decision.costs_usd - np.float32(policy.worth) * decision.qualities
            if tau:  # whoever is away, the worth stays
                at = [engine.bundle.names.index(name) for name in ranked]
                assert (np.diff(objective[at]) >= 0).all()


def test_the_gap_is_how_far_one_quality_must_move(engine):
    prompts = list(make_outcomes(engine, "gap", 60).prompts)
    policy, moved = engine.policy(tau=0.3), 0
    for decision in engine.route_many(prompts, policy):
        q, c = decision.qualities.astype(np.float64), decision.costs_usd.astype(np.float64)
        chosen, gap = decision.index, decision.gap
        assert min(engine.explain(decision).gaps.values()) == pytest.approx(gap, abs=1e-6)

        def choice(qualities, costs=c):
            return int((costs - policy.worth * qualities).argmin())

        for share, stays in ((0.99, True), (1.01, False)):
            flipped = False
            for m in range(len(q)):
                other = q.copy()
                other[m] += -share * gap if m == chosen else share * gap
                flipped |= choice(other) != chosen
            if stays or gap < q[chosen] - 1e-6:  # beyond its own quality nothing can move
                assert flipped == (not stays)
                moved += flipped
    assert moved > 20
