"""decide against its definition in numpy float64."""

from __future__ import annotations

import numpy as np
import pytest

from ipr_engine.decide.contract import DecidePlan, DecidePolicy, Heads
from tests.support.decide_promises import accuracy
from tests.support.decide_promises.accuracy import RULES
from tests.support.decide_requests import FORMS

SIZES = [(0, 11, 63), (1, 1, 1), (1, 11, 256), (3, 2, 63), (3, 65, 1025), (17, 11, 256), (17, 65, 63), (67, 11, 63)]
requests = pytest.mark.parametrize(
    ("batch", "models", "dim", "form", "rule"),
    [(*size, form, RULES[i % len(RULES)]) for size in SIZES for i, form in enumerate(FORMS)]
    + [(3, 1000, 63, "linear", RULES[0]), (3, 1000, 63, "all", RULES[1])],
    ids=lambda value: value[0] if isinstance(value, tuple) else str(value),
)


@requests
def test_quality_tokens_and_cost_are_within_twice_the_error_of_plain_float32(isa, rng, batch, models, dim, form, rule):
    accuracy.quality_tokens_and_cost_are_within_twice_the_error_of_plain_float32(
        isa, rng, batch, models, dim, form, rule
    )


@requests
def test_choice_is_admissible_near_ties(isa, rng, batch, models, dim, form, rule):
    accuracy.choice_is_admissible_near_ties(isa, rng, batch, models, dim, form, rule)


@requests
def test_decision_equals_reference_when_margins_exceed_error(isa, rng, batch, models, dim, form, rule):
    accuracy.decision_equals_reference_when_margins_exceed_error(isa, rng, batch, models, dim, form, rule)


def test_exp_is_within_an_ulp_and_right_at_the_ends(isa, rng):
    """tokens = exp(x) when len_skip is 1, len_bias 0 and nothing caps it."""
    one, zero = np.ones(1, np.float32), np.zeros(1, np.float32)
    plan = DecidePlan(Heads(bias=zero, skip=zero[:, None], len_skip=one[:, None], len_bias=zero), isa)
    policy = DecidePolicy(plan, 1, 0, 0, 0, in_rate=zero, out_rate=zero, fixed_usd=zero, allowed=np.ones(1, bool))
    ends = np.float32([0, -0.0, 88.7228, 88.72284, -87.33, -103.9, -104.1, 1e30, -1e30, np.inf, -np.inf, np.nan])
    sweep = np.float32(np.concatenate([rng.uniform(-105, 90, 200_000), rng.normal(0, 1e-3, 1000), ends]))
    got = plan.run(sweep[:, None], policy, 1).tokens_out[:, 0]
    with np.errstate(over="ignore"):
        exact = np.exp(sweep.astype(np.float64))
        rounded = exact.astype(np.float32)
    tiny = np.finfo(np.float32).tiny
    normal, subnormal = np.isfinite(rounded) & (rounded >= tiny), rounded < tiny
    assert np.max(np.abs(got[normal] - exact[normal]) / np.spacing(rounded[normal])) <= 1.0
    assert np.max(np.abs(got[subnormal] - exact[subnormal])) <= np.finfo(np.float32).smallest_subnormal
    np.testing.assert_array_equal(np.isposinf(got), np.isposinf(rounded))
    np.testing.assert_array_equal(np.isnan(got), np.isnan(sweep))
    assert got[sweep == 0].tolist() == [1.0, 1.0]
