"""Promises of decide that hold bit for bit: across instruction sets, batches, orders, scales and threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from ipr_engine.decide.contract import available_isas
from tests.support.decide_promises import symmetry
from tests.support.decide_requests import FORMS, bytes_of, make_request, row_bytes

SIZES = [(0, 11, 63), (1, 1, 1), (1, 11, 256), (3, 2, 1025), (17, 65, 63), (70, 11, 256), (3, 1000, 63)]
sizes = pytest.mark.parametrize(("batch", "models", "dim"), SIZES)
forms = pytest.mark.parametrize("form", FORMS)


@pytest.mark.skipif(len(available_isas()) == 1, reason="one instruction set on this machine")
@sizes
@forms
def test_instruction_sets_agree_in_every_bit(rng, batch, models, dim, form):
    request = make_request(rng, batch, models, dim, form, masked=True, worth=0.001)
    expected, *others = (bytes_of(request.run(isa)) for isa in available_isas())
    for got in others:
        assert got == expected


@pytest.mark.skipif(len(available_isas()) == 1, reason="one instruction set on this machine")
@forms
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf, 1e38, -1e38, 1e-42])
def test_instruction_sets_agree_in_every_bit_on_extreme_embeddings(rng, form, poison):
    request = make_request(rng, 17, 19, 63, form)
    request.x[rng.random(request.x.shape) < 0.05] = poison
    expected, *others = (bytes_of(request.run(isa)) for isa in available_isas())
    for got in others:
        assert got == expected


@sizes
@forms
def test_row_of_a_batch_equals_that_row_alone(isa, rng, batch, models, dim, form):
    request = make_request(rng, batch, models, dim, form, masked=True)
    whole = request.run(isa)
    for r in range(batch):
        one = slice(r, r + 1)
        tokens = None if request.tokens_out is None else request.tokens_out[one]
        alone = request.but(
            x=request.x[r], billed_tokens=float(request.billed_tokens[r]), tokens_out=tokens,
            extra_usd=request.extra_usd[one], allowed=request.allowed[one],
        )  # fmt: skip
        assert bytes_of(alone.run(isa)) == row_bytes(whole, r)


@forms
def test_permuting_candidates_permutes_the_answer(isa, rng, form):
    symmetry.permuting_candidates_permutes_the_answer(isa, rng, form)


@pytest.mark.parametrize("scale", [2.0**-10, 2.0, 2.0**20])
def test_scaling_prices_and_worth_by_a_power_of_two_changes_no_choice(isa, rng, scale):
    symmetry.scaling_prices_and_worth_by_a_power_of_two_changes_no_choice(isa, rng, scale)


@forms
def test_a_candidate_that_is_never_allowed_changes_nothing(isa, rng, form):
    symmetry.a_candidate_that_is_never_allowed_changes_nothing(isa, rng, form)


def test_eight_threads_on_one_plan_get_the_same_bytes(isa, rng):
    small, large = (make_request(rng, batch, 11, 256, "trunk_adapters", masked=True) for batch in (3, 150))
    expected = [bytes_of(small.run(isa)), bytes_of(large.run(isa))]

    def work(_: int) -> bool:
        return all([bytes_of(small.run(isa)), bytes_of(large.run(isa))] == expected for _ in range(10))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


def test_every_element_of_a_result_is_written(isa, rng):
    """A block that held other numbers before gives the same answer."""
    request = make_request(rng, 17, 11, 63)
    expected = bytes_of(request.run(isa))
    for poison in (np.nan, 1e30):
        request.but(x=np.full_like(request.x, poison)).run(isa)  # freed at once: the next result takes its memory
        assert bytes_of(request.run(isa)) == expected
