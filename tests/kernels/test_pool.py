"""Pooling fused into decide's launch: what ipr_engine.encoders.torch makes of the same states."""

from __future__ import annotations

import numpy as np
import pytest

from ipr_engine.decide.contract import STATUS
from ipr_engine.kernels.plan import GpuPlan, GpuRequest, GpuResult, StateNorm
from ipr_engine.kernels.run import DecideLaunch
from ipr_engine.kernels.variant import LaunchParams
from tests.support import decide_implementations  # before anything that imports triton
from tests.support.decide_implementations import DEVICE, gpu_request, poison, tensor
from tests.support.decide_requests import PARTS, make_request

torch = decide_implementations.torch
BATCH, TOKENS, DIM = 5, 11, 40
SPLIT = LaunchParams(
    one_program=False, block_rows=2, block_models=8, block_hidden=16, block_dim=32, unroll=1, block_choice=16,
    block_tokens=4, num_warps=4, num_stages=1,
)  # fmt: skip
LENGTHS = np.array([11, 1, 4, 8, 5])
DTYPES, TILES = ("float32", "float16", "bfloat16"), {"table": None, "split": SPLIT}


def every_pair(*forms):
    """Each form, (pooling, normalize), with each type and each tiling, each type with each tiling; not all three at once."""
    cases = [
        (*form, dtype, list(TILES)[(row + column) % 2])
        for row, form in enumerate(forms)
        for column, dtype in enumerate(DTYPES)
    ]
    return pytest.mark.parametrize(("pooling", "normalize", "dtype", "tiles"), cases)


@pytest.fixture
def request_of_x(rng):
    return make_request(rng, BATCH, 11, DIM, masked=True)


def pooled_launch(
    request_of_x, states, lengths, pooling="mean", normalize=True, *, params=None, norm=None, x_copy=None
):
    batch, dim = len(states), states.shape[2]
    plan = GpuPlan(request_of_x.heads, device=DEVICE, launch=params)
    plan.set_policy(0, **request_of_x.policy)
    plain = vars(gpu_request(request_of_x, batch))
    x = torch.full((batch, dim), float("nan"), device=DEVICE)
    pooled = {"states": states, "lengths": tensor(np.asarray(lengths, np.int32)), "pooling": pooling}
    brought = GpuRequest(**{**plain, "x": x, **pooled, "normalize": normalize, "norm": norm})
    result = GpuResult(plan, batch, x_copy=x_copy)
    poison(result)
    return DecideLaunch(plan, brought, result)


def make_norm(rng, dim, eps=1e-12):
    scale, shift = (rng.normal(size=dim).astype(np.float32) for _ in range(2))
    return StateNorm(scale=tensor(1 + scale / 4), shift=tensor(shift / 4), eps=eps)


def expected_x(states, lengths, pooling, normalize, norm=None, dtype=torch.float64):
    """As TorchEncoder._embed, in float64."""
    states, rows = states.cpu().to(dtype), len(states)
    if norm is not None:
        scale, shift = norm.scale.cpu().to(dtype), norm.shift.cpu().to(dtype)
        states = torch.nn.functional.layer_norm(states, states.shape[-1:], scale, shift, norm.eps)
    mask = torch.arange(states.shape[1]) < torch.as_tensor(lengths)[:, None]
    if pooling == "mean":
        x = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    else:
        x = states[:, 0] if pooling == "cls" else states[torch.arange(rows), torch.as_tensor(lengths) - 1]
    return (torch.nn.functional.normalize(x, dim=1) if normalize else x).double().numpy()


@every_pair(("mean", True), ("mean", False), ("cls", True), ("last", True))
def test_x_is_pooled_as_the_torch_encoder_does_and_decided_as_if_it_were_given(
    rng, request_of_x, pooling, normalize, dtype, tiles
):
    states = tensor(rng.standard_normal((BATCH, TOKENS, DIM)).astype(np.float32)).to(getattr(torch, dtype))
    run = pooled_launch(request_of_x, states, LENGTHS, pooling, normalize, params=TILES[tiles])
    got = run().numpy()
    x = run.request.x.cpu().numpy()
    np.testing.assert_allclose(x, expected_x(states, LENGTHS, pooling, normalize), rtol=0, atol=1e-6)
    plain = decide_implementations.by_triton(request_of_x.but(x=x), TILES[tiles])
    for part in PARTS:
        assert got[part].tobytes() == getattr(plain, part).tobytes(), part


@every_pair(("mean", True), ("mean", False), ("cls", True), ("last", False))
def test_each_token_passes_a_layer_norm_before_it_is_pooled(rng, request_of_x, pooling, normalize, dtype, tiles):
    states = tensor(rng.normal(0.5, 3, (BATCH, TOKENS, DIM)).astype(np.float32)).to(getattr(torch, dtype))
    norm = make_norm(rng, DIM)
    run = pooled_launch(request_of_x, states, LENGTHS, pooling, normalize, params=TILES[tiles], norm=norm)
    got = run().numpy()
    x = run.request.x.cpu().numpy()
    exact = expected_x(states, LENGTHS, pooling, normalize, norm)
    plain = expected_x(states, LENGTHS, pooling, normalize, norm, torch.float32)
    granted = 2 * np.abs(plain - exact).max() + np.spacing(np.float32(np.abs(exact).max()))
    np.testing.assert_allclose(x, exact, rtol=0, atol=granted)
    given = decide_implementations.by_triton(request_of_x.but(x=x), TILES[tiles])
    for part in PARTS:
        assert got[part].tobytes() == getattr(given, part).tobytes(), part


@pytest.mark.parametrize(("dim", "dtype"), [(1, "float32"), (63, "float16"), (300, "float16"), (300, "float32")])
def test_a_layer_norm_takes_as_many_numbers_as_a_token_has(rng, dim, dtype):
    """300 numbers are two lines of 256, or four of 128 whose last is half empty and one whole."""
    request = make_request(rng, 3, 5, dim, masked=True)
    states = tensor(rng.normal(0.5, 3, (3, 5, dim)).astype(np.float32)).to(getattr(torch, dtype))
    norm = make_norm(rng, dim, eps=1e-5)
    run = pooled_launch(request, states, [5, 1, 3], "mean", False, norm=norm)
    run()
    exact = expected_x(states, [5, 1, 3], "mean", False, norm)
    plain = expected_x(states, [5, 1, 3], "mean", False, norm, torch.float32)
    granted = 2 * np.abs(plain - exact).max() + np.spacing(np.float32(np.abs(exact).max()))
    np.testing.assert_allclose(run.request.x.cpu().numpy(), exact, rtol=0, atol=granted)


@pytest.mark.parametrize("normed", [False, True])
def test_padding_on_the_right_changes_no_bit(rng, request_of_x, normed):
    states = rng.standard_normal((BATCH, TOKENS, DIM)).astype(np.float32)
    longer = np.concatenate([states, np.full((BATCH, 9, DIM), np.nan, np.float32)], axis=1)
    norm = make_norm(rng, DIM) if normed else None
    runs = [pooled_launch(request_of_x, tensor(one), LENGTHS, norm=norm) for one in (states, longer)]
    first, second = (run().numpy() for run in runs)
    assert {part: first[part].tobytes() for part in PARTS} == {part: second[part].tobytes() for part in PARTS}
    assert torch.equal(runs[0].request.x, runs[1].request.x)


@pytest.mark.parametrize("params", [None, SPLIT], ids=["table", "split"])
def test_x_is_written_to_a_second_place_too(rng, request_of_x, params):
    states = tensor(rng.standard_normal((BATCH, TOKENS, DIM)).astype(np.float32))
    copy = torch.full((BATCH, DIM), float("nan"), device=DEVICE)
    run = pooled_launch(request_of_x, states, LENGTHS, params=params, x_copy=copy)
    run()
    assert not copy.isnan().any()
    assert torch.equal(copy, run.request.x)


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_a_length_outside_of_the_row_is_the_nearest_that_lies_in_it(rng, request_of_x, pooling):
    """A row that read on would see the next one's tokens, the last row NaN."""
    block = tensor(rng.standard_normal((BATCH + 1, TOKENS, DIM)).astype(np.float32))
    block[BATCH] = float("nan")
    lengths, nearest = ([TOKENS + 1, 2**31 - 1, 4, -1, 2 * TOKENS], [TOKENS, TOKENS, 4, 0, TOKENS])
    got, exact = (pooled_launch(request_of_x, block[:BATCH], one, pooling) for one in (lengths, nearest))
    got(), exact()
    assert got.request.x.cpu().numpy().tobytes() == exact.request.x.cpu().numpy().tobytes()
    assert got.request.x.isnan().any(dim=1).tolist() == [False, False, False, True, False]


def test_a_row_without_tokens_fails_alone(rng, request_of_x):
    states = tensor(rng.standard_normal((BATCH, TOKENS, DIM)).astype(np.float32))
    got = pooled_launch(request_of_x, states, [11, 0, 4, 8, 5])().numpy()
    assert [STATUS[s] for s in got["status"]] == ["ok", "nonfinite_quality", "ok", "ok", "ok"]
