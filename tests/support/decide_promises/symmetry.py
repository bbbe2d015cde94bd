"""These changes of a request change no choice of decide, whatever computes it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tests.support.decide_requests import PARTS, Rng, bytes_of, make_request, of_candidates


def permuting_candidates_permutes_the_answer(isa: str, rng: Rng, form: str) -> None:
    models = 37
    request = make_request(rng, 17, models, 63, form, masked=True, worth=0.001)
    order = rng.permutation(models)
    permuted = request.but(
        heads=replace(of_candidates(request.heads, order), tie_rank=order.astype(np.int32)),
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


def scaling_prices_and_worth_by_a_power_of_two_changes_no_choice(isa: str, rng: Rng, scale: float) -> None:
    request = make_request(rng, 17, 19, 63, masked=True, worth=0.001)
    policy = request.policy
    prices = {name: policy[name] * np.float32(scale) for name in ("in_rate", "out_rate", "fixed_usd")}
    scaled = request.with_policy(**prices, worth=policy["worth"] * scale).but(
        extra_usd=request.extra_usd * np.float32(scale)
    )
    before, after = bytes_of(request.run(isa)), bytes_of(scaled.run(isa))
    for part in set(PARTS) - {"cost_usd"}:
        assert after[part] == before[part]


def a_candidate_that_is_never_allowed_changes_nothing(isa: str, rng: Rng, form: str) -> None:
    request = make_request(rng, 17, 19, 63, form, worth=0.001)
    everyone = np.ones(19, bool)
    banned = int(rng.integers(19))
    others = np.delete(np.arange(19), banned)
    fewer = request.with_policy(allowed=everyone & (np.arange(19) != banned)).run(isa)

    without = request.but(
        heads=of_candidates(request.heads, others),
        policy={k: v[others] if isinstance(v, np.ndarray) else v for k, v in request.policy.items()},
        tokens_out=None if request.tokens_out is None else np.ascontiguousarray(request.tokens_out[:, others]),
    ).run(isa)
    np.testing.assert_array_equal(fewer.index, others[without.index])
    for part in ("threshold", "gap", "status", "cause"):
        np.testing.assert_array_equal(getattr(fewer, part), getattr(without, part))
    np.testing.assert_array_equal(fewer.quality[:, others], without.quality)
