"""These tests hold decide to its promises on price tiers: what it charges at a tier's edge, and what stays without tiers.

The tests take every name that begins with `test_`: `from tests.support.decide_promises.tiers import *`.
"""

from __future__ import annotations

import numpy as np
import pytest

from ipr_engine.decide.contract import STATUS, Heads
from tests.support.decide_promises import accuracy
from tests.support.decide_requests import PARTS, Request, make_policy, make_request

EDGE = 200_000
MODELS = [1, 2, 11, 19, 65]


def tiered(rng: np.random.Generator, request: Request, tiers: int) -> Request:
    """Return the request with rates that differ by tier; a third of the candidates lack the last tier."""
    models = len(request.heads.bias)
    above = np.sort(rng.integers(1, 4000, (tiers - 1, models)).astype(np.float32), axis=0)
    above[-1, ::3] = np.inf
    factor = rng.uniform(0.5, 3, (tiers, models)).astype(np.float32)
    rates = {name: request.policy[name] * factor for name in ("in_rate", "out_rate")}
    return request.with_policy(**rates, tier_above=above)


def bills_per_candidate(rng: np.random.Generator, request: Request) -> Request:
    shape = len(request.x), len(request.heads.bias)
    return request.but(billed_tokens=rng.integers(0, 4000, shape).astype(np.float32))


def priced(models: int, billed: object, batch: int) -> Request:
    """Return candidates of powers of two, so that every bill is exact: m costs 2^-20 and 2^-18 USD a token, twice that above EDGE."""
    base = np.full(models, 2.0**-20, np.float32)
    return Request(
        heads=Heads(bias=np.zeros(models, np.float32), skip=np.zeros((models, 1), np.float32)),
        policy={
            "alpha_hi": 0.0, "alpha_lo": 1.0, "offset": 0.0, "worth": 0.0,
            "in_rate": np.stack([base, 2 * base]), "out_rate": np.stack([4 * base, 8 * base]),
            "tier_above": np.full((1, models), EDGE, np.float32),
            "fixed_usd": np.zeros(models, np.float32), "allowed": np.ones(models, bool),
        },
        x=np.zeros((batch, 1), np.float32),
        billed_tokens=billed,
        tokens_out=np.full(models, 64, np.float32),
    )  # fmt: skip


def terms(models: int = 3, tiers: int = 2) -> dict[str, object]:
    policy = make_policy(np.random.default_rng(0), models)
    rates = {name: np.repeat(policy[name][None], tiers, axis=0) for name in ("in_rate", "out_rate")}
    above = np.arange(1, tiers, dtype=np.float32)[:, None] * np.full((1, models), 100, np.float32)
    return {**policy, **rates, "tier_above": above}


@pytest.mark.parametrize("models", MODELS)
def test_the_whole_request_is_charged_at_the_tier_above_whose_edge_its_input_lies(isa, models):
    tokens = np.float32([0, 1, EDGE - 1, EDGE, EDGE + 1, 2 * EDGE])
    got = priced(models, tokens, len(tokens)).run(isa)
    factor = np.where(tokens > EDGE, 2, 1)
    expected = factor * (tokens * 2.0**-20 + 64 * 2.0**-18)
    np.testing.assert_array_equal(got.cost_usd, np.broadcast_to(expected[:, None], (len(tokens), models)))


@pytest.mark.parametrize("models", MODELS)
def test_each_candidate_is_billed_by_its_own_count_and_in_its_own_tier(isa, models):
    own = (EDGE - 2 + np.arange(3 * models) % 5).reshape(3, models).astype(np.float32)
    got = priced(models, own, 3).run(isa)
    expected = np.where(own > EDGE, 2, 1) * (own * 2.0**-20 + 64 * 2.0**-18)
    np.testing.assert_array_equal(got.cost_usd, expected)


def test_of_three_tiers_each_is_charged_between_its_edges(isa):
    rates = np.float32([[1], [4], [2]]) * 2.0**-20
    tokens = np.float32([10, 11, 20, 21, 1000])
    request = priced(1, tokens, 5).with_policy(
        in_rate=rates, out_rate=0 * rates, tier_above=np.float32([[10], [20]])
    )  # fmt: skip
    got = request.run(isa).cost_usd[:, 0]
    np.testing.assert_array_equal(got, np.float32([10, 4 * 11, 4 * 20, 2 * 21, 2000]) * 2.0**-20)


def test_a_dearer_tier_can_change_the_choice(isa):
    """Candidate 1 is cheaper at first, and dearer above its edge; candidate 0 has no tier."""
    request = priced(2, np.float32([EDGE, EDGE + 1]), 2)
    request = request.with_policy(
        in_rate=np.float32([[3, 2], [3, 4]]), out_rate=np.zeros((2, 2), np.float32),
        tier_above=np.float32([[np.inf, EDGE]]),
    )  # fmt: skip
    assert [request.run(isa).index_at(row) for row in (0, 1)] == [1, 0]


@pytest.mark.parametrize(("models", "tiers"), [(1, 2), (11, 2), (11, 5), (19, 3), (65, 8)])
@pytest.mark.parametrize("own_bills", [False, True])
def test_decision_equals_reference(isa, rng, models, tiers, own_bills):
    request = tiered(rng, make_request(rng, 17, models, 63, masked=True, worth=0.001), tiers)
    if own_bills:
        request = bills_per_candidate(rng, request)
    exact, got = request.reference(), request.run(isa)
    error = accuracy.Error.granted(request, exact)
    np.testing.assert_allclose(got.cost_usd, exact.cost_usd, rtol=0, atol=error.cost)
    assert [STATUS[status] for status in got.status] == [row.status for row in exact.rows]
    clear = [r for r, row in enumerate(exact.rows) if row.status == "ok" and row.gap > 1e-4]
    assert len(clear) >= 4
    assert [got.index_at(r) for r in clear] == [exact.rows[r].index for r in clear]


@pytest.mark.parametrize("models", [11, 19])
def test_tiers_that_nobody_reaches_and_equal_bills_change_no_bit(isa, rng, models):
    request = make_request(rng, 17, models, 63, masked=True, worth=0.001)
    plain = request.run(isa)
    flat = {part: getattr(plain, part).tobytes() for part in PARTS}
    never = np.full((1, models), np.inf, np.float32)
    dear = {name: np.stack([request.policy[name], 9 * request.policy[name]]) for name in ("in_rate", "out_rate")}
    each = np.repeat(request.billed_tokens[:, None], models, axis=1)
    for other in (request.with_policy(**dear, tier_above=never), request.but(billed_tokens=each)):
        got = other.run(isa)
        assert {part: getattr(got, part).tobytes() for part in PARTS} == flat


@pytest.mark.parametrize("models", [1, 19])
def test_a_bill_that_is_no_number_fails_its_row_alone(isa, models):
    own = np.full((3, models), 5, np.float32)
    own[1, -1] = np.nan
    got = priced(models, own, 3).run(isa)
    assert [STATUS[status] for status in got.status] == ["ok", "nonfinite_cost", "ok"]


def test_a_free_candidate_costs_nothing_in_any_tier(isa):
    request = priced(2, np.float32([1, 2 * EDGE]), 2)
    free = np.float32([[1, 0], [2, 0]])
    got = request.with_policy(in_rate=free, out_rate=free).run(isa)
    np.testing.assert_array_equal(got.cost_usd[:, 1], [0, 0])
    np.testing.assert_array_equal(got.index, [1, 1])
