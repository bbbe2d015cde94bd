"""These tests hold decide to its promises on the choice, its cause, its gap and rows that cannot be decided.

The tests take every name that begins with `test_`: `from tests.support.decide_promises.choice import *`.
"""

from __future__ import annotations

import numpy as np
import pytest

from ipr_engine.decide.contract import CAUSE, STATUS, Heads
from tests.support.decide_requests import Request, bytes_of, make_request, row_bytes


def fixed_request(quality, cost, *, tie_rank=None, batch=1, **policy) -> Request:
    """Return candidates whose quality and cost are as told, up to rounding, whatever x is: equal ones are exactly equal."""
    quality, cost = np.asarray(quality, np.float64), np.asarray(cost, np.float32)
    models = len(quality)
    numbers = {"alpha_hi": 0.5, "alpha_lo": 0.5, "offset": 0.0, "worth": 0.0}
    zeros = np.zeros(models, np.float32)
    return Request(
        heads=Heads(
            bias=np.log(quality / (1 - quality)).astype(np.float32),
            skip=zeros[:, None],
            tie_rank=None if tie_rank is None else np.asarray(tie_rank, np.int32),
        ),
        policy={
            **numbers,
            "in_rate": zeros,
            "out_rate": zeros,
            "fixed_usd": cost,
            "allowed": np.ones(models, bool),
            **policy,
        },
        x=np.zeros((batch, 1), np.float32),
        billed_tokens=1,
        tokens_out=zeros,
    )


@pytest.mark.parametrize(
    "rule", [{"alpha_hi": 1.0, "alpha_lo": 0.0}, {"alpha_hi": 1.0, "alpha_lo": 0.0, "offset": -0.0}]
)
def test_tau_zero_takes_the_best_predicted_candidate(isa, rng, rule):
    request = make_request(rng, 17, 65, 63).with_policy(**rule)
    got = request.run(isa)
    np.testing.assert_array_equal(got.index, got.quality.argmax(1))


@pytest.mark.parametrize("rule", [{"alpha_hi": 0.0, "alpha_lo": 1.0}, {"alpha_hi": 0.0, "alpha_lo": 0.0}])
def test_tau_one_takes_the_cheapest_candidate(isa, rng, rule):
    request = make_request(rng, 17, 65, 63).with_policy(**rule, offset=0.0)
    got = request.run(isa)
    np.testing.assert_array_equal(got.index, got.cost_usd.argmin(1))


def test_predicted_cost_never_rises_with_tau(isa, rng):
    request = make_request(rng, 17, 65, 63)
    costs = []
    for tau in np.linspace(0, 1, 21):
        got = request.with_policy(alpha_hi=1 - tau, alpha_lo=tau).run(isa)
        costs.append(got.cost_usd[np.arange(17), got.index])
    assert np.all(np.diff(costs, axis=0) <= 0)


@pytest.mark.parametrize("models", [2, 11, 65, 1000])
def test_the_only_allowed_candidate_is_always_chosen(isa, rng, models):
    request = make_request(rng, 17, models, 63, rule="fixed", tau=0.0)
    only = rng.integers(models, size=17)
    got = request.but(allowed=np.arange(models) == only[:, None]).run(isa)
    np.testing.assert_array_equal(got.index, only)
    assert {CAUSE[c] for c in got.cause} == {"only_allowed"}
    assert np.isposinf(got.gap).all()


@pytest.mark.parametrize("models", [17, 1000])
def test_row_mask_and_policy_mask_are_anded(isa, rng, models):
    request = make_request(rng, 17, models, 63, masked=True)
    policy_mask = rng.random(models) < 0.5
    both = request.with_policy(allowed=policy_mask).run(isa)
    folded = request.but(allowed=request.allowed & policy_mask).run(isa)
    assert bytes_of(both) == bytes_of(folded)


def test_equal_objective_takes_the_higher_quality(isa):
    assert fixed_request([0.6, 0.8, 0.7, 0.1], [1, 1, 1, 9]).run(isa).index_at(0) == 1


@pytest.mark.parametrize("tie_rank", [[0, 1, 2, 3], [5, -7, 9, 0], [3, 2, 1, 0]])
def test_equal_objective_and_quality_take_the_lower_tie_rank(isa, tie_rank):
    request = fixed_request([0.8, 0.8, 0.8, 0.1], [1, 1, 1, 9], tie_rank=tie_rank)
    assert request.run(isa).index_at(0) == int(np.argmin(tie_rank[:3]))


def test_ties_are_broken_across_groups_of_sixteen(isa):
    quality, cost = np.full(100, 0.5), np.full(100, 2.0)
    cost[[20, 50, 99]] = 1.0
    quality[[50, 99]] = 0.6
    quality[0] = 0.1
    assert fixed_request(quality, cost).run(isa).index_at(0) == 50
    assert fixed_request(quality, cost, tie_rank=np.arange(100)[::-1]).run(isa).index_at(0) == 99


def test_worth_buys_quality_within_the_threshold(isa):
    request = fixed_request([0.60, 0.80, 0.90], [1.0, 1.1, 3.0], alpha_hi=0.0, alpha_lo=0.0)
    assert [request.with_policy(worth=worth).run(isa).index_at(0) for worth in (0.0, 1.0, 100.0)] == [0, 1, 2]
    assert request.with_policy(worth=0.0, offset=0.7).run(isa).index_at(0) == 1


def test_given_tokens_replace_predicted_ones(isa, rng):
    request = make_request(rng, 17, 11, 63)
    given = rng.uniform(0, 900, (17, 11)).astype(np.float32)
    got = request.but(tokens_out=given).run(isa)
    np.testing.assert_array_equal(got.tokens_out, given)
    one_row = request.but(tokens_out=given[0]).run(isa)
    np.testing.assert_array_equal(one_row.tokens_out, np.broadcast_to(given[0], (17, 11)))


def test_predicted_tokens_never_exceed_their_cap(isa, rng):
    request = make_request(rng, 17, 11, 63)
    x = request.x * np.float32(1000)  # exp overflows
    got = request.but(x=x).run(isa)
    assert np.all(got.tokens_out <= request.heads.len_cap)
    assert np.all(got.status == 0)


def status_of(request: Request, isa: str) -> list[str]:
    return [STATUS[s] for s in request.run(isa).status]


def test_nothing_allowed_is_a_status(isa, rng):
    request = make_request(rng, 3, 11, 63)
    allowed = np.ones((3, 11), bool)
    allowed[1] = False
    assert status_of(request.but(allowed=allowed), isa) == ["ok", "none_allowed", "ok"]
    assert status_of(request.with_policy(allowed=np.zeros(11, bool)), isa) == ["none_allowed"] * 3


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("form", ["linear", "all", "adapters_only"])
def test_nonfinite_embedding_is_a_status_and_other_rows_stand(isa, rng, form, poison):
    request = make_request(rng, 17, 11, 63, form)
    expected = request.run(isa)
    request.x[5, 7] = poison
    got = request.run(isa)
    assert STATUS[got.status_at(5)] == "nonfinite_quality"
    for r in range(17):
        if r != 5:
            assert row_bytes(got, r) == row_bytes(expected, r)


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_nonfinite_cost_is_a_status_and_other_rows_stand(isa, rng, poison):
    request = make_request(rng, 3, 11, 63)
    extra = np.zeros((3, 11), np.float32)
    extra[1, 10] = poison
    assert status_of(request.but(extra_usd=extra), isa) == ["ok", "nonfinite_cost", "ok"]
    billed = np.float32([1, abs(poison), 1])
    assert status_of(request.but(billed_tokens=billed), isa) == ["ok", "nonfinite_cost", "ok"]


def test_nonfinite_numbers_of_forbidden_candidates_do_no_harm(isa, rng):
    request = make_request(rng, 3, 11, 63)
    extra = np.zeros((3, 11), np.float32)
    extra[:, 4] = np.nan
    allowed = np.arange(11) != 4
    got, clean = (request.but(extra_usd=e, allowed=allowed).run(isa) for e in (extra, np.zeros_like(extra)))
    for part in ("index", "threshold", "gap", "status", "cause"):
        assert getattr(got, part).tobytes() == getattr(clean, part).tobytes()


def test_a_failed_row_has_index_minus_one_cause_failed_and_nan(isa, rng):
    got = make_request(rng, 3, 11, 63).but(allowed=np.zeros((3, 11), bool)).run(isa)
    assert got.index.tolist() == [-1] * 3
    assert {CAUSE[c] for c in got.cause} == {"failed"}
    assert np.isnan(got.threshold).all()
    assert np.isnan(got.gap).all()


@pytest.mark.parametrize(
    ("cause", "policy", "index"),
    [
        ("below_fixed_level", {"alpha_hi": 0.0, "alpha_lo": 0.0, "offset": 0.95}, 2),
        ("best_quality", {"alpha_hi": 1.0, "alpha_lo": 0.0}, 2),
        ("best_quality", {"alpha_hi": 0.0, "alpha_lo": 0.0, "offset": 0.85}, 2),
        ("within_tolerance", {"alpha_hi": 0.5, "alpha_lo": 0.5}, 1),
        ("only_allowed", {"allowed": np.array([True, False, False])}, 0),
    ],
)
def test_cause_says_why(isa, cause, policy, index):
    got = fixed_request([0.5, 0.8, 0.9], [1, 2, 3], **policy).run(isa)
    assert (CAUSE[got.cause_at(0)], got.index_at(0)) == (cause, index)


def test_gap_of_a_cheap_candidate_is_its_distance_to_the_threshold(isa):
    request = fixed_request([0.5, 0.8, 0.9], [1, 2, 3], alpha_hi=0.0, alpha_lo=0.0, offset=0.75)
    assert request.run(isa).gap_at(0) == pytest.approx(0.05, rel=1e-5)


def test_gap_counts_what_a_cheaper_candidate_lacks(isa):
    request = fixed_request([0.74, 0.9, 0.95], [1, 2, 3], alpha_hi=0.0, alpha_lo=0.0, offset=0.75)
    assert request.run(isa).gap_at(0) == pytest.approx(0.01, rel=1e-4)


def test_gap_of_the_best_candidate_is_measured_against_the_others(isa):
    request = fixed_request([0.5, 0.6, 0.9], [1, 2, 3], alpha_hi=1.0, alpha_lo=0.0)
    assert request.run(isa).gap_at(0) == pytest.approx(0.3, rel=1e-5)


def test_gap_divides_the_price_of_a_dearer_candidate_by_worth(isa):
    request = fixed_request([0.8, 0.8], [1.0, 1.01], alpha_hi=0.0, alpha_lo=0.0, offset=0.1, worth=1.0)
    assert request.run(isa).gap_at(0) == pytest.approx(0.01, rel=1e-3)
