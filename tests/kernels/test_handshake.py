"""The two ends of a launch: what it waits for, and that the host is told once, after the last program; where answers may lie.

The interpreter runs one program after another, so order among them is shown in the compiled text (test_compiled_text.py) and on a
device (test_device.py).
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from ipr_engine.errors import InvalidInputError
from ipr_engine.kernels.plan import GpuResult, result_layout
from ipr_engine.kernels.run import DecideLaunch
from ipr_engine.kernels.variant import takes_pdl
from tests.support import decide_implementations  # before anything that imports triton
from tests.support.decide_implementations import DEVICE, LAUNCHES, launch, poison
from tests.support.decide_requests import PARTS, make_request

torch = decide_implementations.torch


def word(value):
    return torch.full((1,), value, dtype=torch.int32, device=DEVICE)


def told_launch(request, batch, params=None, **given):
    """A launch that stores 7 in `done`, which holds -1."""
    plain = launch(request, params)
    result = GpuResult(plain.plan, batch, done=word(-1), **given)
    poison(result)
    return plain, DecideLaunch(plain.plan, replace(plain.request, sequence=word(7)), result)


def bits(result):
    return {part: array.tobytes() for part, array in result.numpy().items() if part in PARTS}


@pytest.mark.parametrize("tiles", LAUNCHES)
@pytest.mark.parametrize("batch", [1, 9])
def test_each_launch_tells_its_number_and_counts_anew(rng, tiles, batch):
    plain, told = told_launch(make_request(rng, batch, 19, 63, masked=True), batch, LAUNCHES[tiles])
    expected = bits(plain())
    for number in (7, 8, -(2**31)):
        told.request.sequence.fill_(number)
        poison(told.result)
        assert bits(told()) == expected
        assert told.result.done.item() == number
        assert not told.result.arrivals.any()


def test_answers_lie_in_the_block_that_is_given(rng):
    request = make_request(rng, 3, 11, 63, masked=True)
    _, size = result_layout(3, 11)
    block = torch.zeros(size, dtype=torch.uint8, device=DEVICE)
    plain, told = told_launch(request, 3, block=block)
    assert told.result.block is block
    assert bits(told()) == bits(plain())


def test_a_launch_that_waits_for_earlier_kernels_gives_the_same_bits(rng):
    request = make_request(rng, 3, 11, 63, masked=True)
    plain = launch(request)
    if plain.plan.arch is not None and not takes_pdl(plain.plan.arch):
        pytest.skip("this device has no programmatic dependent launch")
    waits = DecideLaunch(plain.plan, plain.request, GpuResult(plain.plan, 3), pdl=True)
    assert waits.variant.pdl
    assert bits(waits()) == bits(plain())


def test_programmatic_dependent_launch_is_refused_before_sm_90(rng):
    plain = launch(make_request(rng, 3, 11, 63))
    plain.plan.arch = "sm_86"
    with pytest.raises(InvalidInputError, match="pdl: expected False on sm_86"):
        DecideLaunch(plain.plan, plain.request, plain.result, pdl=True)


def test_a_number_and_its_place_go_together(rng):
    plain, told = told_launch(make_request(rng, 3, 11, 63), 3)
    for request, result in ((told.request, plain.result), (plain.request, told.result)):
        with pytest.raises(InvalidInputError, match="sequence: expected one where the result has `done`"):
            DecideLaunch(plain.plan, request, result)


@pytest.mark.parametrize(
    ("name", "wrong", "told"),
    [
        ("block", torch.zeros(7, dtype=torch.uint8), r"shape \(\d+,\), got \(7,\)"),
        ("done", torch.zeros(2, dtype=torch.int32), r"shape \(1,\), got \(2,\)"),
        ("done", torch.zeros(1, dtype=torch.int64), "torch.int32, got torch.int64"),
        (
            "done",
            torch.zeros(1, dtype=torch.int32, device="meta"),
            r"on \w+, as the plan or in pinned memory, got one on meta",
        ),
        ("x_copy", torch.zeros(3, 62), r"shape \(3, 63\), got \(3, 62\)"),
    ],
)
def test_a_place_that_does_not_fit_is_named(rng, name, wrong, told):
    plan = launch(make_request(rng, 3, 11, 63)).plan
    with pytest.raises(InvalidInputError, match=f"^{name}: expected .*{told}"):
        GpuResult(plan, 3, **{name: wrong})


def test_an_empty_batch_would_never_tell(rng):
    with pytest.raises(InvalidInputError, match=r"^batch: expected at least one row where the host is told"):
        told_launch(make_request(rng, 0, 11, 63), 0)


def test_a_second_place_for_an_x_that_is_given_is_refused(rng):
    plain = launch(make_request(rng, 3, 11, 63))
    result = GpuResult(plain.plan, 3, x_copy=torch.zeros(3, 63, device=DEVICE))
    with pytest.raises(InvalidInputError, match=r"^x_copy: expected None without states"):
        DecideLaunch(plain.plan, plain.request, result)
