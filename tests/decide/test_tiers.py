"""Price tiers and bills per candidate: what decide charges at a tier's edge, and what stays as it was without them.

tests/kernels/test_tiers.py runs the shared promises on the reference and on the Triton kernel.
"""

from __future__ import annotations

import numpy as np
import pytest

from ipr_engine.decide.contract import DecidePlan, DecidePolicy, Heads, available_isas
from ipr_engine.errors import InvalidInputError
from tests.support.decide_promises.tiers import *  # noqa: F403
from tests.support.decide_promises.tiers import bills_per_candidate, terms, tiered
from tests.support.decide_requests import bytes_of, make_heads, make_policy, make_request, row_bytes


@pytest.mark.skipif(len(available_isas()) == 1, reason="one instruction set on this machine")
@pytest.mark.parametrize(("models", "tiers"), [(1, 2), (11, 3), (65, 8), (1000, 2)])
def test_instruction_sets_agree_in_every_bit(rng, models, tiers):
    request = tiered(rng, make_request(rng, 9, models, 63, "all", masked=True, worth=0.001), tiers)
    for asked in (request, bills_per_candidate(rng, request)):
        expected, *others = (bytes_of(asked.run(isa)) for isa in available_isas())
        assert all(got == expected for got in others)


@pytest.mark.parametrize("models", [11, 19])
def test_row_of_a_batch_equals_that_row_alone(isa, rng, models):
    request = bills_per_candidate(rng, tiered(rng, make_request(rng, 17, models, 63, masked=True), 3))
    whole = request.run(isa)
    for r in range(17):
        one = slice(r, r + 1)
        alone = request.but(
            x=request.x[one], billed_tokens=request.billed_tokens[one], extra_usd=request.extra_usd[one],
            allowed=request.allowed[one],
        )  # fmt: skip
        assert row_bytes(alone.run(isa), 0) == row_bytes(whole, r)


def test_permuting_candidates_permutes_the_answer(isa, rng):
    models = 37
    request = bills_per_candidate(rng, tiered(rng, make_request(rng, 9, models, 63, masked=True, worth=0.001), 3))
    order = rng.permutation(models)

    def permuted(array: object) -> object:
        return np.ascontiguousarray(array[..., order]) if isinstance(array, np.ndarray) else array

    heads = request.heads
    rows = {name: np.ascontiguousarray(v[order]) for name, v in vars(heads).items() if isinstance(v, np.ndarray)}
    other = request.but(
        heads=Heads(**{**vars(heads), **rows, "tie_rank": order.astype(np.int32)}),
        policy={name: permuted(value) for name, value in request.policy.items()},
        **{name: permuted(getattr(request, name)) for name in ("billed_tokens", "extra_usd", "allowed")},
    )
    before, after = request.run(isa), other.run(isa)
    np.testing.assert_array_equal(before.index, order[after.index])
    np.testing.assert_array_equal(before.cost_usd[:, order], after.cost_usd)
    np.testing.assert_array_equal(before.gap, after.gap)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("tier_above", np.zeros(3, np.float32), r"\(tiers - 1, models\) = \(1 or more, 3\) float32"),
        ("tier_above", np.zeros((0, 3), np.float32), r"\(tiers - 1, models\)"),
        ("tier_above", np.zeros((1, 3)), r"got float64"),
        ("tier_above", np.float32([[1, -1, 1]]), r"values >= 0, got -1 at flat position 1"),
        ("tier_above", np.float32([[1, np.nan, 1]]), r"values >= 0, got nan"),
        ("tier_above", None, r"in_rate: expected \(models,\)"),
        ("in_rate", np.zeros(3, np.float32), r"\(tiers, models\) = \(2, 3\)"),
        ("in_rate", np.float32([[1, 1, 1], [1, -1, 1]]), r"finite, nonnegative values, got -1 at flat position 4"),
        ("out_rate", np.zeros((3, 3), np.float32), r"\(tiers, models\) = \(2, 3\)"),
        ("out_rate", np.float32([[1, 1, 1], [1, np.inf, 1]]), r"finite, nonnegative"),
    ],
)
def test_tiers_that_cannot_be_are_refused(name, value, told):
    plan = DecidePlan(make_heads(np.random.default_rng(0), 3, 4))
    with pytest.raises(InvalidInputError, match=told):
        DecidePolicy(plan, **{**terms(), name: value})


def test_an_edge_below_the_one_before_is_refused():
    plan = DecidePlan(make_heads(np.random.default_rng(0), 3, 4))
    with pytest.raises(InvalidInputError, match=r"do not fall .*got 50 after 100 for candidate 1"):
        DecidePolicy(plan, **{**terms(tiers=3), "tier_above": np.float32([[100, 100, 100], [100, 50, 100]])})


@pytest.mark.parametrize("wrong", [np.zeros((3, 4), np.float32), np.zeros((2, 3)), np.zeros((1, 2, 3), np.float32)])
def test_bills_of_another_shape_are_refused(rng, wrong):
    request = make_request(rng, 2, 3, 4).but(billed_tokens=wrong)
    with pytest.raises(InvalidInputError, match=r"billed_tokens: expected a number, \(batch,\) = \(2,\) or \(batch, m"):
        request.run()


def test_a_negative_bill_of_one_candidate_is_refused(rng):
    request = make_request(rng, 2, 3, 4).but(billed_tokens=np.float32([[1, 2, 3], [1, 2, -3]]))
    with pytest.raises(InvalidInputError, match=r"billed_tokens: expected values >= 0, got -3 at row 1"):
        request.run()


def test_a_policy_tells_its_tiers(rng):
    plan = DecidePlan(make_heads(rng, 3, 4))
    assert DecidePolicy(plan, **make_policy(rng, 3)).tiers == 1
    assert DecidePolicy(plan, **terms(tiers=4)).tiers == 4
