"""What GpuPlan, GpuRequest and the launch table refuse, by name; the kernel's arguments are those that variant.py lists."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.resources import files
from itertools import product

import numpy as np
import pytest

from ipr_engine.decide.contract import Heads
from ipr_engine.errors import InvalidInputError
from ipr_engine.kernels.plan import PER_MODEL, RESULTS, GpuPlan, GpuRequest, GpuResult, StateNorm, result_layout
from ipr_engine.kernels.run import decide, variant_of
from ipr_engine.kernels.variant import INTEGERS, POINTERS, KernelVariant, launch_params, options
from tests.support import decide_implementations  # before anything that imports triton
from tests.support.decide_implementations import DEVICE, gpu_request
from tests.support.decide_requests import make_heads, make_policy, make_request

torch = decide_implementations.torch
BATCH = 3


@pytest.fixture
def plan(rng):
    return GpuPlan(make_heads(rng, 5, 7), device=DEVICE)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("x", torch.zeros(BATCH, 8)),
        ("x", torch.zeros(BATCH, 7, dtype=torch.float64)),
        ("x", torch.zeros(7, BATCH).T),
        ("billed_tokens", torch.zeros(BATCH + 1)),
        ("policy_of_row", torch.zeros(BATCH, dtype=torch.int64)),
        ("tokens_out", torch.zeros(BATCH)),
        ("extra_usd", torch.zeros(BATCH, 6)),
        ("allowed", torch.zeros(BATCH, 5)),
        ("states", torch.zeros(BATCH, 2, 7)),
        ("pooling", "max"),
        ("normalize", True),
        ("norm", StateNorm(scale=torch.ones(7), shift=torch.ones(7), eps=1e-5)),
    ],
)
def test_what_does_not_fit_is_named(plan, name, wrong):
    request = GpuRequest.buffers(plan, BATCH)
    wrong = wrong.to(DEVICE) if isinstance(wrong, torch.Tensor) else wrong
    with pytest.raises(InvalidInputError, match=rf"^{name}: expected"):
        decide(plan, replace(request, **{name: wrong}), GpuResult(plan, BATCH))


@pytest.mark.parametrize(
    ("name", "wrong"),
    [("scale", torch.ones(8)), ("shift", torch.ones(7, dtype=torch.float16)), ("eps", 0.0), ("eps", float("nan"))],
)
def test_a_layer_norm_that_does_not_fit_is_named(plan, name, wrong):
    norm = StateNorm(scale=torch.ones(7, device=DEVICE), shift=torch.zeros(7, device=DEVICE), eps=1e-12)
    request = GpuRequest.buffers(
        plan, BATCH, states=torch.zeros(BATCH, 2, 7, device=DEVICE), pooling="mean", norm=replace(norm, **{name: wrong}),
        lengths=torch.ones(BATCH, dtype=torch.int32, device=DEVICE),
    )  # fmt: skip
    with pytest.raises(InvalidInputError, match=rf"^norm\.{name}: expected"):
        decide(plan, request, GpuResult(plan, BATCH))


def test_tokens_must_be_given_to_heads_that_predict_none(rng):
    plan = GpuPlan(make_heads(rng, 5, 7, tokens=False), device=DEVICE)
    with pytest.raises(InvalidInputError, match=r"^tokens_out: expected"):
        decide(plan, GpuRequest.buffers(plan, BATCH, optional=False), GpuResult(plan, BATCH))


def test_a_result_of_other_heads_is_refused(rng, plan):
    other = GpuPlan(make_heads(rng, 6, 7), device=DEVICE)
    with pytest.raises(InvalidInputError, match=r"^result: expected one made for 5 models, got one for 6"):
        decide(plan, GpuRequest.buffers(plan, BATCH), GpuResult(other, BATCH))


def test_weights_outside_of_float16_are_refused():
    heads = Heads(bias=np.zeros(1, np.float32), skip=np.full((1, 4), 1e6, np.float32))
    with pytest.raises(InvalidInputError, match=r"^dtype: .*float16"):
        GpuPlan(heads, device=DEVICE, dtype="float16")
    GpuPlan(heads, device=DEVICE, dtype="bfloat16")


@pytest.mark.parametrize(("name", "value"), [("dtype", "int8"), ("policies", 0)])
def test_a_plan_refuses_what_it_cannot_be(rng, name, value):
    with pytest.raises(InvalidInputError, match=rf"^{name}: expected"):
        GpuPlan(make_heads(rng, 5, 7), device=DEVICE, **{name: value})


def test_a_policy_needs_a_row_of_the_buffer(rng, plan):
    with pytest.raises(InvalidInputError, match=r"^row: expected 0 to 0, got 1"):
        plan.set_policy(1, **make_policy(rng, 5))


def test_a_policy_is_checked_as_on_the_cpu(rng, plan):
    with pytest.raises(InvalidInputError, match=r"^worth: expected"):
        plan.set_policy(0, **{**make_policy(rng, 5), "worth": -1.0})


def test_the_kernel_takes_the_arguments_that_the_form_lists():
    from ipr_engine.kernels.decide import (
        decide_kernel,  # imports triton, which decide_implementations has chosen how to run
    )

    params = launch_params(11, 7)
    constants = KernelVariant(dim=7).constants(params)
    assert tuple(decide_kernel.arg_names) == (*POINTERS, *INTEGERS, *constants)
    assert tuple(KernelVariant(dim=7).signature()) == (*POINTERS, *INTEGERS)


def test_the_form_tells_what_a_request_brings(rng):
    request = make_request(rng, BATCH, 5, 7, "all", masked=True)
    variant = variant_of(GpuPlan(request.heads, device=DEVICE, dtype="bfloat16"), gpu_request(request, BATCH))
    assert (variant.hidden, variant.rank, variant.identity, variant.tokens, variant.weights) == (
        33,
        3,
        True,
        True,
        "bfloat16",
    )
    assert (variant.given, variant.extra, variant.row_mask, variant.pooling) == (False, True, True, "none")


def test_a_forest_is_part_of_the_form_and_leaves_the_names_of_others_as_they_were(rng):
    plan = GpuPlan(make_heads(rng, 5, 7, trees=9, depth=3), device=DEVICE)
    variant = plan.variant()
    assert (plan.trees, plan.depth, variant.trees, variant.depth) == (9, 3, 9, 3)
    params = launch_params(5, 7)
    assert variant.constants(params)["BLOCK_TREES"] == 16
    assert variant.name(params) != replace(variant, trees=0, depth=0).name(params)
    assert (
        KernelVariant(dim=384, hidden=64, trunk=True).name(launch_params(11, 384))
        == "decide_models16_384x64_float32_046b6214250e"
    )


def test_every_launch_parameter_says_whence_it_is_and_every_number_of_candidates_has_some():
    entries = json.loads((files("ipr_engine.kernels") / "launch.json").read_text("utf-8"))["entries"]
    assert all(entry["source"].startswith(("estimated: ", "measured: ")) for entry in entries)
    assert launch_params(16, 384).shape_class == "models16"
    for models, dim, arch in product(
        (1, 16, 17, 32, 33, 64, 65, 128, 129, 1000, 100_000),
        (1, 384, 385, 768, 4096),
        (None, "sm_80", "sm_90", "sm_100"),
    ):
        params = launch_params(models, dim, arch)
        assert not params.one_program or models <= params.block_models


@pytest.mark.parametrize(("models", "adapters"), [(11, False), (32, True)])
def test_a_wider_x_has_fewer_loads_in_flight_and_sums_in_the_same_order(models, adapters):
    narrow, wide = (launch_params(models, dim, adapters=adapters) for dim in (384, 385))
    assert wide.unroll < narrow.unroll
    assert replace(wide, unroll=narrow.unroll, shape_class=narrow.shape_class, source=narrow.source) == narrow


def test_adapters_of_many_candidates_have_more_registers_a_thread():
    plain, adapters = (launch_params(100, 384, adapters=some) for some in (False, True))
    assert options(adapters)["maxnreg"] > options(plain)["maxnreg"]


@pytest.mark.parametrize(
    ("name", "value"), [("block_rows", 3), ("block_dim", 256), ("block_hidden", 128), ("num_warps", 0), ("unroll", 0)]
)
def test_blocks_that_the_memory_layout_does_not_hold_are_refused(name, value):
    with pytest.raises(InvalidInputError, match=rf"^{name}: expected"):
        replace(launch_params(11, 7), **{name: value})


def test_one_program_cannot_take_more_candidates_than_its_tile(rng):
    with pytest.raises(InvalidInputError, match=r"^launch: one_program takes at most block_models = 16"):
        GpuPlan(make_heads(rng, 17, 7), device=DEVICE, launch=launch_params(16, 7))


def test_results_lie_apart_in_one_block():
    layout, size = result_layout(5, 11)
    ends = 0
    for name in RESULTS:
        begin, count = layout[name]
        assert begin % 256 == 0
        assert begin >= ends
        assert count == 5 * (11 if name in PER_MODEL else 1) * RESULTS[name][1]
        ends = begin + count
    assert size >= ends


def test_a_packed_policy_is_a_row_of_the_buffer(rng, plan):
    terms = make_policy(rng, 5, "max", 0.2, 0.01)
    row = plan.pack_policy(**terms)
    plan.set_policy(0, **terms)
    np.testing.assert_array_equal(plan.policies[0].cpu().numpy(), row)
    np.testing.assert_array_equal(row[:4], np.float32([terms[n] for n in ("alpha_hi", "alpha_lo", "offset", "worth")]))


def test_more_rows_than_the_kernel_can_count_are_refused_before_anything_is_allocated(plan):
    for rows, told in ((2**31 // 5 + 1, r"batch \* models \* rank"), (2**31 // 7 + 1, r"batch \* dim")):
        with pytest.raises(InvalidInputError, match=f"batch: expected {told} below"):
            GpuResult(plan, rows)


def test_more_policies_than_the_kernel_can_count_are_refused_before_anything_is_allocated(rng):
    with pytest.raises(InvalidInputError, match="policies: expected rows of 416 numbers, fewer than 2"):
        GpuPlan(make_heads(rng, 5, 7), device=DEVICE, policies=2**31 // 416 + 1)
