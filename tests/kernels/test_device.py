"""What only a GPU can show: a captured graph replays, the host sees what it is told of, a cubin gives the same bits."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from ipr_engine.errors import InvalidInputError
from ipr_engine.kernels.cubin import CubinKernel
from ipr_engine.kernels.plan import GpuResult, result_layout
from ipr_engine.kernels.run import DecideLaunch
from tests.support import (
    decide_implementations,  # before anything that imports triton
    skips,
)
from tests.support.cubin_builds import run_build
from tests.support.decide_implementations import launch, poison
from tests.support.decide_requests import PARTS, make_request

pytestmark = pytest.mark.skipif(not decide_implementations.ON_DEVICE, reason=f"{skips.HARDWARE} a CUDA GPU")
torch = decide_implementations.torch


def bytes_of(result):
    torch.cuda.synchronize()
    return {part: array.tobytes() for part, array in result.numpy().items() if part in PARTS}


@pytest.mark.parametrize("models", [11, 1000])
def test_a_captured_graph_replays_what_its_buffers_hold(rng, models):
    request = make_request(rng, 5, models, 384, "trunk_adapters", masked=True)
    run = launch(request)
    expected = bytes_of(run())
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    for _ in range(3):
        poison(run.result)
        graph.replay()
        assert bytes_of(run.result) == expected
    other = make_request(rng, 5, models, 384, rule="max", tau=0.1, worth=0.01)
    run.plan.set_policy(0, **other.policy)
    poison(run.result)
    graph.replay()
    assert bytes_of(run.result) == bytes_of(launch(request.but(policy=other.policy))())


def pinned(count, dtype):
    return torch.zeros(count, dtype=dtype, pin_memory=True)


@pytest.mark.parametrize("batch", [1, 5])
def test_a_host_that_sees_the_number_sees_every_answer(rng, batch):
    """Nothing is copied and no event waited for: the launch writes into the host's memory, and the host looks at one word."""
    run = launch(make_request(rng, batch, 11, 384, masked=True))
    expected = bytes_of(run())
    block, done, number = (
        pinned(size, dtype)
        for size, dtype in ((result_layout(batch, 11)[1], torch.uint8), (1, torch.int32), (1, torch.int32))
    )
    result = GpuResult(run.plan, batch, block=block, done=done)
    told = DecideLaunch(run.plan, replace(run.request, sequence=number), result)
    told()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        told()
    for turn in range(1, 200):
        block.fill_(255)
        number[0] = turn
        graph.replay()
        until = time.monotonic() + 10
        while done.item() != turn:
            assert time.monotonic() < until
        assert {part: array.tobytes() for part, array in result.numpy().items() if part in PARTS} == expected
    torch.cuda.synchronize()
    assert not result.arrivals.any()


def test_answers_that_the_launch_reads_back_stay_on_the_device(rng):
    run = launch(make_request(rng, 5, 1000, 384))
    with pytest.raises(InvalidInputError, match=r"block: expected one on cuda.*copy the answers from there"):
        GpuResult(run.plan, 5, block=pinned(result_layout(5, 1000)[1], torch.uint8))


@pytest.mark.parametrize("models", [11, 1000])
def test_a_cubin_gives_the_bits_of_the_kernel_that_triton_compiles(rng, tmp_path, models):
    run = launch(make_request(rng, 5, models, 384, masked=True))
    expected = bytes_of(run())
    major, minor = torch.cuda.get_device_capability()
    done = run_build(
        "--arch", f"sm_{major}{minor}", "--out", tmp_path, "--models", models, "--dim", 384, "--extra", "--row-mask"
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    kernel = CubinKernel.find(tmp_path, run.variant, run.plan.launch)
    poison(run.result)
    assert bytes_of(DecideLaunch(run.plan, run.request, run.result, kernel=kernel)()) == expected
    graph = torch.cuda.CUDAGraph()
    again = DecideLaunch(run.plan, run.request, run.result, kernel=kernel)
    with torch.cuda.graph(graph):
        again()
    poison(run.result)
    graph.replay()
    assert bytes_of(run.result) == expected
