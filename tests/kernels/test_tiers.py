"""Price tiers and bills per candidate on the reference, C++ and the Triton kernel."""

from __future__ import annotations

import numpy as np
import pytest

from ipr_engine.errors import InvalidInputError
from ipr_engine.kernels.packing import MORE_TIERS
from ipr_engine.kernels.plan import GpuPlan, GpuRequest, GpuResult
from ipr_engine.kernels.run import DecideLaunch
from tests.support.decide_implementations import DEVICE, IMPLEMENTATIONS, LAUNCHES, by_triton, tensor, use_wide_tiles
from tests.support.decide_promises.tiers import *  # noqa: F403
from tests.support.decide_promises.tiers import bills_per_candidate, terms, tiered
from tests.support.decide_requests import make_heads, make_policy, make_request


@pytest.fixture(params=IMPLEMENTATIONS)
def isa(request, monkeypatch):
    use_wide_tiles(monkeypatch)
    return request.param


@pytest.mark.parametrize("tiles", LAUNCHES)
def test_rows_of_policies_with_other_tiers_are_charged_each_by_its_own(rng, tiles):
    flat = make_request(rng, 6, 19, 63)
    requests = [flat, tiered(rng, flat, 2), tiered(rng, flat, MORE_TIERS + 1)]
    plan = GpuPlan(flat.heads, device=DEVICE, policies=3, launch=LAUNCHES[tiles])
    for row, one in enumerate(requests):
        plan.set_policy(row, **one.policy)
    launched = GpuRequest(
        x=tensor(flat.x), billed_tokens=tensor(flat.billed_tokens),
        policy_of_row=tensor(np.array([2, 0, 1, 1, 0, 2], np.int32)),
    )  # fmt: skip
    got = DecideLaunch(plan, launched, GpuResult(plan, 6))().numpy()
    for row, policy in enumerate([2, 0, 1, 1, 0, 2]):
        alone = by_triton(requests[policy], LAUNCHES[tiles])
        assert got["cost_usd"][row].tobytes() == alone.cost_usd[row].tobytes()
        assert got["index"][row] == alone.index[row]


@pytest.mark.parametrize("tiles", LAUNCHES)
def test_no_tiling_changes_a_bill(rng, tiles):
    request = bills_per_candidate(rng, tiered(rng, make_request(rng, 9, 19, 40, masked=True), 3))
    expected, got = request.run("scalar"), by_triton(request, LAUNCHES[tiles])
    np.testing.assert_allclose(got.cost_usd, expected.cost_usd, rtol=1e-6)
    np.testing.assert_array_equal(got.index, expected.index)


def test_more_tiers_than_a_row_has_room_for_are_refused(rng):
    plan = GpuPlan(make_heads(rng, 3, 4), device=DEVICE)
    plan.set_policy(0, **terms(tiers=MORE_TIERS + 1))
    with pytest.raises(InvalidInputError, match=f"tier_above: expected at most {MORE_TIERS} thresholds on a GPU"):
        plan.set_policy(0, **terms(tiers=MORE_TIERS + 2))


def test_a_flat_policy_after_a_tiered_one_leaves_no_tier_in_its_row(rng):
    plan = GpuPlan(make_heads(rng, 3, 4), device=DEVICE)
    flat = make_policy(rng, 3)
    plan.set_policy(0, **terms(tiers=3))
    plan.set_policy(0, **flat)
    np.testing.assert_array_equal(plan.policies[0].cpu().numpy(), plan.pack_policy(**flat))
