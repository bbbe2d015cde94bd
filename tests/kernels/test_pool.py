"""Pooling fused into decide's launch: what ipr_engine.encoders.torch makes of the same states."""

from __future__ import annotations

import numpy as np
import pytest

from ipr_engine.decide.contract import STATUS
from ipr_engine.kernels.plan import GpuPlan, GpuRequest, GpuResult
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


@pytest.fixture
def request_of_x(rng):
    return make_request(rng, BATCH, 11, DIM, masked=True)


def pooled_launch(request_of_x, states, lengths, pooling="mean", normalize=True, params=None):
    plan = GpuPlan(request_of_x.heads, device=DEVICE, launch=params)
    plan.set_policy(0, **request_of_x.policy)
    plain = vars(gpu_request(request_of_x, BATCH))
    x = torch.full((BATCH, DIM), float("nan"), device=DEVICE)
    pooled = {
        "states": states,
        "lengths": tensor(np.asarray(lengths, np.int32)),
        "pooling": pooling,
        "normalize": normalize,
    }
    brought = GpuRequest(**{**plain, "x": x, **pooled})
    result = GpuResult(plan, BATCH)
    poison(result)
    return DecideLaunch(plan, brought, result)


def expected_x(states, lengths, pooling, normalize):
    """As TorchEncoder._embed, in float64."""
    states = states.cpu().double()
    mask = torch.arange(states.shape[1]) < torch.as_tensor(lengths)[:, None]
    if pooling == "mean":
        x = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    else:
        x = states[:, 0] if pooling == "cls" else states[torch.arange(BATCH), torch.as_tensor(lengths) - 1]
    return (torch.nn.functional.normalize(x, dim=1) if normalize else x).numpy()


@pytest.mark.parametrize("params", [None, SPLIT], ids=["table", "split"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize(("pooling", "normalize"), [("mean", True), ("mean", False), ("cls", True), ("last", True)])
def test_x_is_pooled_as_the_torch_encoder_does_and_decided_as_if_it_were_given(
    rng, request_of_x, params, dtype, pooling, normalize
):
    states = tensor(rng.standard_normal((BATCH, TOKENS, DIM)).astype(np.float32)).to(getattr(torch, dtype))
    run = pooled_launch(request_of_x, states, LENGTHS, pooling, normalize, params)
    got = run().numpy()
    x = run.request.x.cpu().numpy()
    np.testing.assert_allclose(x, expected_x(states, LENGTHS, pooling, normalize), rtol=0, atol=1e-6)
    plain = decide_implementations.by_triton(request_of_x.but(x=x), params)
    for part in PARTS:
        assert got[part].tobytes() == getattr(plain, part).tobytes(), part


def test_padding_on_the_right_changes_no_bit(rng, request_of_x):
    states = rng.standard_normal((BATCH, TOKENS, DIM)).astype(np.float32)
    longer = np.concatenate([states, np.full((BATCH, 9, DIM), np.nan, np.float32)], axis=1)
    runs = [pooled_launch(request_of_x, tensor(one), LENGTHS) for one in (states, longer)]
    first, second = (run().numpy() for run in runs)
    assert {part: first[part].tobytes() for part in PARTS} == {part: second[part].tobytes() for part in PARTS}
    assert torch.equal(runs[0].request.x, runs[1].request.x)


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
