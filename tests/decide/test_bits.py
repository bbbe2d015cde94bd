"""Promises of decide that hold bit for bit: across instruction sets, batches, orders, scales and threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from ipr_engine.decide.contract import Heads, available_isas
from tests.support.decide_requests import FORMS, PARTS, bytes_of, make_request, row_bytes

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
    models = 37
    request = make_request(rng, 17, models, 63, form, masked=True, worth=0.001)
    heads = request.heads
    order = rng.permutation(models)
    per_model = {
        name: np.ascontiguousarray(value[order])
        for name, value in vars(heads).items()
        if name not in ("trunk", "activation") and value is not None
    }
    permuted = request.but(
        heads=Heads(**{**vars(heads), **per_model, "tie_rank": order.astype(np.int32)}),
        policy={k: v[order] if isinstance(v, np.ndarray) else v for k, v in request.policy.items()},
        tokens_out=None if request.tokens_out is None else np.ascontiguousarray(request.tokens_out[:, order]),
        extra_usd=np.ascontiguousarray(request.extra_usd[:, order]),
        allowed=np.ascontiguousarray(request.allowed[:, order]),
    )
    before, after = request.run(isa), permuted.run(isa)
    np.testing.assert_array_equal(before.index, order[after.index])
    for part in ("quality", "tokens_out", "cost_usd"):
        np.testing.assert_array_equal(getattr(before, part)[:, order], getattr(after, part))
    for part in ("threshold", "gap", "status", "cause"):
        np.testing.assert_array_equal(getattr(before, part), getattr(after, part))


@pytest.mark.parametrize("scale", [2.0**-10, 2.0, 2.0**20])
def test_scaling_prices_and_worth_by_a_power_of_two_changes_no_choice(isa, rng, scale):
    request = make_request(rng, 17, 19, 63, masked=True, worth=0.001)
    policy = request.policy
    prices = {name: policy[name] * np.float32(scale) for name in ("in_rate", "out_rate", "fixed_usd")}
    scaled = request.with_policy(**prices, worth=policy["worth"] * scale).but(
        extra_usd=request.extra_usd * np.float32(scale)
    )
    before, after = bytes_of(request.run(isa)), bytes_of(scaled.run(isa))
    for part in set(PARTS) - {"cost_usd"}:
        assert after[part] == before[part]


@forms
def test_a_candidate_that_is_never_allowed_changes_nothing(isa, rng, form):
    request = make_request(rng, 17, 19, 63, form, worth=0.001)
    everyone = np.ones(19, bool)
    banned = int(rng.integers(19))
    others = np.delete(np.arange(19), banned)
    fewer = request.with_policy(allowed=everyone & (np.arange(19) != banned)).run(isa)

    heads = request.heads
    kept = {
        name: np.ascontiguousarray(value[others])
        for name, value in vars(heads).items()
        if name not in ("trunk", "activation") and value is not None
    }
    without = request.but(
        heads=Heads(**{**vars(heads), **kept}),
        policy={k: v[others] if isinstance(v, np.ndarray) else v for k, v in request.policy.items()},
        tokens_out=None if request.tokens_out is None else np.ascontiguousarray(request.tokens_out[:, others]),
    ).run(isa)
    np.testing.assert_array_equal(fewer.index, others[without.index])
    for part in ("threshold", "gap", "status", "cause"):
        np.testing.assert_array_equal(getattr(fewer, part), getattr(without, part))
    np.testing.assert_array_equal(fewer.quality[:, others], without.quality)


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
