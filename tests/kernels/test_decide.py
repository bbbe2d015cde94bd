"""One body of tests for decide on reference, C++ and the Triton kernel: in the interpreter, on a GPU where there is one.

Granted errors: decide_promises.accuracy.Error, twice those of plain float32 plus a floor of 4 roundings. The kernel's sums run
in another order than numpy's, over the same float32 products; its exp is within 1 ulp, as the CPU's, its sigmoid adds
two roundings; the division inside silu and gelu is off by 2 ulp at most.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ipr_engine.decide.contract import STATUS, Heads
from ipr_engine.kernels.plan import GpuPlan, GpuRequest, GpuResult
from ipr_engine.kernels.run import DecideLaunch
from tests.support import decide_implementations, decide_requests  # the first before anything that imports triton
from tests.support.decide_implementations import (
    DEVICE,
    IMPLEMENTATIONS,
    LAUNCHES,
    TALL,
    by_reference,
    by_triton,
    launch,
    tensor,
    use_wide_tiles,
)
from tests.support.decide_promises import accuracy, symmetry
from tests.support.decide_promises.choice import *  # noqa: F403
from tests.support.decide_requests import PARTS, Request, make_heads, make_policy, make_request

LARGE = [(257, 17, 7, "linear_uncapped"), (3, 1000, 7, "linear")]
SIZES = [
    (1, 1, 1, "all"), (3, 11, 7, "linear"), (1, 11, 384, "trunk_adapters"), (17, 11, 384, "trunk_identity_no_skip"),
    (3, 11, 4096, "linear"), (1, 2, 4096, "trunk_one_unit"), (3, 33, 63, "adapters_only"),
    (5, 64, 130, "linear_no_tokens"), (3, 65, 7, "all"),
    (3, 11, 63, "forest"), (5, 65, 7, "forest_all"), (3, 11, 70, "forest_wide"),
]  # fmt: skip


def sized(sizes):
    return pytest.mark.parametrize(
        ("batch", "models", "dim", "form", "rule"),
        [(*size, accuracy.RULES[i % len(accuracy.RULES)]) for i, size in enumerate(sizes)],
        ids=lambda value: value[0] if isinstance(value, tuple) else str(value),
    )


@pytest.fixture(params=IMPLEMENTATIONS)
def impl(request):
    return request.param


@pytest.fixture(params=["triton"])
def isa(request, monkeypatch):
    """The bodies written for instruction sets run on the kernel here."""
    use_wide_tiles(monkeypatch)
    return request.param


@sized(SIZES)
def test_quality_tokens_and_cost_are_within_twice_the_error_of_plain_float32(impl, rng, batch, models, dim, form, rule):
    accuracy.quality_tokens_and_cost_are_within_twice_the_error_of_plain_float32(
        impl, rng, batch, models, dim, form, rule
    )


@sized(SIZES)
def test_choice_is_admissible_near_ties(impl, rng, batch, models, dim, form, rule):
    accuracy.choice_is_admissible_near_ties(impl, rng, batch, models, dim, form, rule)


@sized(SIZES + LARGE)
def test_decision_equals_reference_when_margins_exceed_error(impl, rng, batch, models, dim, form, rule):
    accuracy.decision_equals_reference_when_margins_exceed_error(impl, rng, batch, models, dim, form, rule)


@pytest.mark.parametrize("tiles", ["split", "rows"])
@pytest.mark.parametrize("form", ["linear", "all", "adapters_only", "forest", "forest_all", "forest_wide"])
def test_no_tiling_changes_a_decision(rng, monkeypatch, form, tiles):
    monkeypatch.setitem(decide_requests.IMPLEMENTATIONS, "triton", lambda it: by_triton(it, LAUNCHES[tiles]))
    accuracy.decision_equals_reference_when_margins_exceed_error("triton", rng, 17, 19, 40, form, accuracy.RULES[1])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("models", [11, 70])
def test_narrow_weights_are_only_rounded(rng, dtype, models):
    """The answer is that of float32 heads whose matrices have been rounded to `dtype`.

    To the bit in the interpreter; compiled, a load of another width lays a tile out otherwise, and sums run in another order.
    """
    request = make_request(rng, 3, models, 63, "all", masked=True, worth=0.001)
    torch = decide_implementations.torch
    rounded = {
        name: torch.from_numpy(value).to(getattr(torch, dtype)).float().numpy()
        for name, value in vars(request.heads).items()
        if isinstance(value, np.ndarray) and value.ndim > 1
    }
    same = request.but(heads=Heads(**{**vars(request.heads), **rounded}))
    narrow = by_triton(request, dtype=dtype)
    if decide_implementations.ON_DEVICE:
        exact = by_reference(same)
        error = accuracy.Error.granted(same, same.reference())
        np.testing.assert_allclose(narrow.quality, exact.quality, rtol=0, atol=error.quality)
        np.testing.assert_allclose(narrow.tokens_out, exact.tokens_out, rtol=error.tokens)
        return
    wide = by_triton(same)
    for part in PARTS:
        np.testing.assert_array_equal(getattr(narrow, part), getattr(wide, part), err_msg=part)


@pytest.mark.parametrize("tiles", LAUNCHES)
@pytest.mark.parametrize(("trees", "depth"), [(1, 1), (33, 2), (40, 5), (3, 10)])
def test_every_tree_is_walked_to_its_leaf(rng, trees, depth, tiles):
    """Leaves are powers of two, and no other: the sum is exact in any order and tells each tree's leaf."""
    heads = make_heads(rng, 3, 9, trees=trees, depth=depth, tokens=False)
    leaf = np.zeros_like(heads.tree_leaf)
    which = rng.integers(0, trees)
    leaf[which] = np.exp2(rng.integers(-6, 2, leaf[which].shape)) * rng.choice([-1, 1], leaf[which].shape)
    flat = {"skip": np.zeros((3, 9), np.float32), "bias": np.zeros(3, np.float32)}
    request = make_request(rng, 7, 3, 9, "linear_no_tokens").but(heads=replace(heads, **flat, tree_leaf=leaf))
    request.x[0, 0], request.x[1] = heads.tree_threshold.flat[0], np.inf  # a threshold itself
    request.x[1, 1:] = 0
    expected, got = request.run("scalar"), by_triton(request, LAUNCHES[tiles])
    np.testing.assert_allclose(got.quality[2:], expected.quality[2:], rtol=2e-7)
    assert [STATUS[s] for s in got.status] == [STATUS[s] for s in expected.status]


def test_a_forest_is_walked_in_float32_beside_narrow_weights(rng):
    """Weights are rounded, thresholds and leaves are not: where x lies between two float16 a tree tells them apart."""
    threshold = np.float32([[1.0001]])
    heads = Heads(
        bias=np.zeros(1, np.float32), skip=np.zeros((1, 1), np.float32), tree_threshold=threshold,
        tree_column=np.zeros((1, 1), np.int32), tree_leaf=np.float32([[[-1.00001], [1.00001]]]),
    )  # fmt: skip
    request = make_request(rng, 2, 1, 1, "linear_no_tokens").but(heads=heads, x=np.float32([[1.00005], [1.00015]]))
    wide, narrow = by_triton(request), by_triton(request, dtype="float16")
    assert wide.quality[0] < 0.5 < wide.quality[1]
    np.testing.assert_array_equal(narrow.quality, wide.quality)


def row_alone(request: Request, row: int) -> Request:
    one = slice(row, row + 1)
    cut = {
        name: None if (value := getattr(request, name)) is None else value[one] for name in ("tokens_out", "extra_usd")
    }
    return request.but(x=request.x[one], billed_tokens=request.billed_tokens[one], allowed=request.allowed[one], **cut)


@pytest.mark.parametrize("tiles", LAUNCHES)
@pytest.mark.parametrize("form", ["linear_no_tokens", "all", "forest"])
def test_row_of_a_batch_equals_that_row_alone(rng, form, tiles):
    request = make_request(rng, 17, 19, 63, form, masked=True, worth=0.001)
    whole = by_triton(request, LAUNCHES[tiles])
    for row in (0, 3, 16):
        alone = by_triton(row_alone(request, row), LAUNCHES[tiles])
        for part in PARTS:
            assert getattr(alone, part).tobytes() == getattr(whole, part)[row : row + 1].tobytes(), (part, row)


@pytest.mark.parametrize("form", ["all", "forest"])
def test_permuting_candidates_permutes_the_answer(isa, rng, form):
    symmetry.permuting_candidates_permutes_the_answer(isa, rng, form)


@pytest.mark.parametrize("scale", [2.0**-10, 2.0**20])
def test_scaling_prices_and_worth_by_a_power_of_two_changes_no_choice(isa, rng, scale):
    symmetry.scaling_prices_and_worth_by_a_power_of_two_changes_no_choice(isa, rng, scale)


def test_a_candidate_that_is_never_allowed_changes_nothing(isa, rng):
    symmetry.a_candidate_that_is_never_allowed_changes_nothing(isa, rng, "all")


@pytest.mark.parametrize("tiles", LAUNCHES)
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_status_is_that_of_the_cpu_whatever_x_is(rng, tiles, poison):
    """A hidden unit that padding adds, or a relu that forgets NaN, would show here."""
    request = make_request(rng, 9, 19, 63, "trunk_one_unit", masked=True)
    request.x[::2, 5] = poison
    expected, got = request.run("scalar"), by_triton(request, LAUNCHES[tiles])
    assert [STATUS[s] for s in got.status] == [STATUS[s] for s in expected.status]
    np.testing.assert_array_equal(got.index, expected.index)


@pytest.mark.parametrize("tiles", ["table", "split"])
def test_a_launch_serves_what_its_buffers_hold_and_can_be_repeated(rng, tiles):
    """Policies, masks, prices and tokens are buffers: what a captured graph replays."""
    request = make_request(rng, 5, 19, 63, "adapters_only", masked=True)
    run = launch(request, LAUNCHES[tiles])
    first = run().numpy()
    for _ in range(2):
        decide_implementations.poison(run.result)
        again = run().numpy()
        assert {part: again[part].tobytes() for part in PARTS} == {part: first[part].tobytes() for part in PARTS}
    other = make_request(rng, 5, 19, 63, "adapters_only", masked=True, rule="max", tau=0.2, worth=0.01)
    run.plan.set_policy(0, **other.policy)
    for name in ("x", "billed_tokens", "extra_usd"):
        getattr(run.request, name).copy_(tensor(getattr(other, name)))
    run.request.allowed.copy_(tensor(other.allowed))
    decide_implementations.poison(run.result)
    got, fresh = run().numpy(), by_triton(other.but(heads=request.heads), LAUNCHES[tiles])
    for part in PARTS:
        assert got[part].tobytes() == getattr(fresh, part).tobytes(), part


@pytest.mark.parametrize("tiles", ["table", "split"])
def test_each_row_follows_its_own_policy_and_an_unknown_one_allows_nobody(rng, tiles):
    requests = [make_request(rng, 6, 19, 63, rule=rule, tau=tau, worth=worth) for rule, tau, worth in accuracy.RULES]
    heads, x, billed = requests[0].heads, requests[0].x, requests[0].billed_tokens
    plan = GpuPlan(heads, device=DEVICE, policies=5, launch=LAUNCHES[tiles])
    for row, one in enumerate(requests):
        plan.set_policy(row, **one.policy)
    policy_of_row = [3, 0, 2, 5, -1, 4]  # 4 was never set
    one_launch = GpuRequest(
        x=tensor(x), billed_tokens=tensor(billed), policy_of_row=tensor(np.array(policy_of_row, np.int32))
    )
    got = DecideLaunch(plan, one_launch, GpuResult(plan, 6))().numpy()
    for row, policy in enumerate(policy_of_row[:3]):
        alone = by_triton(requests[policy].but(heads=heads, x=x, billed_tokens=billed), LAUNCHES[tiles])
        assert all(got[part][row].tobytes() == getattr(alone, part)[row].tobytes() for part in PARTS)
    assert [STATUS[s] for s in got["status"][3:]] == ["none_allowed"] * 3


def test_nan_among_given_tokens_means_the_predicted_ones(rng):
    request = make_request(rng, 3, 11, 63)
    predicted = by_triton(request).tokens_out
    given = np.where(rng.random((3, 11)) < 0.5, np.float32(123), np.float32(np.nan))
    got = by_triton(request.but(tokens_out=given)).tokens_out
    np.testing.assert_array_equal(got, np.where(np.isnan(given), predicted, given))


def test_buffers_that_say_nothing_change_nothing(rng):
    request = make_request(rng, 3, 11, 63)
    bare = by_triton(request)
    run = launch(request)
    empty = GpuRequest.buffers(run.plan, 3, x=run.request.x, billed_tokens=run.request.billed_tokens)
    got = DecideLaunch(run.plan, empty, GpuResult(run.plan, 3))().numpy()
    assert {part: got[part].tobytes() for part in PARTS} == {part: getattr(bare, part).tobytes() for part in PARTS}


def test_exp_is_within_an_ulp_and_right_at_the_ends(rng):
    """tokens = exp(x) when len_skip is 1, len_bias 0 and nothing caps it."""
    one, zero = np.ones(1, np.float32), np.zeros(1, np.float32)
    ends = np.float32([0, -0.0, 88.7228, 88.72284, -87.33, -103.9, -104.1, 1e30, -1e30, np.inf, -np.inf, np.nan])
    sweep = np.float32(np.concatenate([rng.uniform(-105, 90, 1500), rng.normal(0, 1e-3, 100), ends]))
    heads = Heads(bias=zero, skip=zero[:, None], len_skip=one[:, None], len_bias=zero)
    request = Request(heads=heads, policy=make_policy(rng, 1), x=sweep[:, None], billed_tokens=1)
    got = by_triton(request, replace(TALL, block_rows=32, block_models=16, block_dim=32, block_hidden=16)).tokens_out[
        :, 0
    ]
    with np.errstate(over="ignore"):
        exact = np.exp(sweep.astype(np.float64))
        rounded = exact.astype(np.float32)
    tiny = np.finfo(np.float32).tiny
    normal, subnormal = np.isfinite(rounded) & (rounded >= tiny), rounded < tiny
    assert np.max(np.abs(got[normal] - exact[normal]) / np.spacing(rounded[normal])) <= 1.0
    assert np.max(np.abs(got[subnormal] - exact[subnormal])) <= np.finfo(np.float32).smallest_subnormal
    np.testing.assert_array_equal(np.isposinf(got), np.isposinf(rounded))
    np.testing.assert_array_equal(np.isnan(got), np.isnan(sweep))


def test_an_empty_batch_launches_nothing(rng):
    assert by_triton(make_request(rng, 0, 11, 63)).quality.shape == (0, 11)


def test_reference_and_kernel_agree_on_every_row_of_a_wide_margin(rng):
    """Not vacuous: of rows drawn at random nearly all are clear of ties, and there index and cause are the reference's."""
    request = make_request(rng, 24, 11, 130, "trunk_adapters", worth=0.001)
    exact, got = by_reference(request), by_triton(request)
    wide = exact.gap > 1e-4
    assert wide.sum() >= 20
    np.testing.assert_array_equal(got.index[wide], exact.index[wide])
    np.testing.assert_array_equal(got.cause[wide], exact.cause[wide])
