"""Wrong input raises InvalidInputError that names the argument; the result object is safe to hold."""

from __future__ import annotations

import gc
import sys

import numpy as np
import pytest

from ipr_engine.decide.contract import DecidePlan, DecidePolicy, DecideResult, Heads, available_isas
from ipr_engine.errors import InvalidInputError
from tests.support.decide_requests import PARTS, floats, make_heads, make_policy, make_request

MODELS, DIM, HIDDEN, RANK = 5, 7, 6, 2


@pytest.fixture
def heads(rng):
    return make_heads(rng, MODELS, DIM, hidden=HIDDEN, rank=RANK, identity=True)


@pytest.fixture
def plan(heads):
    return DecidePlan(heads)


@pytest.fixture
def policy(rng, plan):
    return DecidePolicy(plan, **make_policy(rng, MODELS))


def wrong_arrays(name, good):
    nan = good.copy()
    nan.flat[-1] = np.nan
    yield good.astype(np.float64), "float64"
    yield nan, "nan"
    yield np.asfortranarray(np.stack([good, good]))[0], "got"
    yield good.tolist(), "list"
    yield good[..., None], "got"
    if good.ndim > 1 or name == "len_cap":
        yield good[:-1].copy(), "got"


ARRAYS = ["skip", "bias", "trunk", "identity", "up", "down", "out", "len_skip", "len_bias", "len_cap"]


@pytest.mark.parametrize("name", ARRAYS)
def test_wrong_head_array_is_named(heads, name):
    parts = {**vars(heads)}
    for wrong, message in wrong_arrays(name, parts[name]):
        with pytest.raises(InvalidInputError, match=r"expected .*got") as caught:
            Heads(**{**parts, name: wrong})
        assert message in str(caught.value)
        if np.ndim(wrong) == parts[name].ndim and np.shape(wrong) == parts[name].shape:
            assert str(caught.value).startswith(f"{name}: ")


@pytest.mark.parametrize(
    ("absent", "named"),
    [
        (["out"], "out"),
        (["up"], "up"),
        (["down"], "down"),
        (["len_skip"], "len_skip"),
        (["len_bias"], "len_bias"),
        (["len_skip", "len_bias"], "len_cap"),
        (["skip", "trunk", "up", "down"], "skip"),
        (["bias"], "bias"),
    ],
)
def test_incomplete_heads_are_refused(heads, absent, named):
    with pytest.raises(InvalidInputError, match=f"^{named}: expected"):
        Heads(**{**vars(heads), **dict.fromkeys(absent)})


def test_unknown_activation_is_refused(heads):
    with pytest.raises(InvalidInputError, match="activation: expected 'relu', 'silu' or 'gelu', got 'tanh'"):
        Heads(**{**vars(heads), "activation": "tanh"})


@pytest.mark.parametrize(
    ("tie_rank", "message"),
    [
        (np.array([0, 1, 2, 3, 1], np.int32), "distinct values, got 1 for candidates 1 and 4"),
        (np.arange(5), "int32"),
        (np.arange(4, dtype=np.int32), r"\(5,\)"),
    ],
)
def test_wrong_tie_rank_is_refused(heads, tie_rank, message):
    with pytest.raises(InvalidInputError, match=f"^tie_rank: .*{message}"):
        Heads(**{**vars(heads), "tie_rank": tie_rank})


def test_heads_are_keyword_only_frozen_and_reject_unknown_names(heads):
    with pytest.raises(TypeError):
        Heads(heads.bias)
    with pytest.raises(TypeError):
        Heads(bias=heads.bias, skip=heads.skip, skips=None)
    with pytest.raises(AttributeError):
        heads.bias = None


def test_plan_says_what_it_is(heads):
    plan = DecidePlan(heads, isa="scalar")
    assert (plan.models, plan.dim, plan.hidden, plan.rank) == (MODELS, DIM, HIDDEN, RANK)
    assert (plan.isa, plan.has_tokens) == ("scalar", True)
    assert DecidePlan(heads).isa == available_isas()[-1]


def test_plan_keeps_its_own_copy_of_the_heads(rng, heads, plan, policy):
    x = floats(rng, DIM)
    before = plan.run(x, policy, 1).quality.tobytes()
    for name in ARRAYS:
        getattr(heads, name)[...] = 0
    assert plan.run(x, policy, 1).quality.tobytes() == before


def test_an_unknown_instruction_set_is_refused(heads):
    with pytest.raises(InvalidInputError, match="isa: expected auto, scalar, avx2 or avx512, got sve2"):
        DecidePlan(heads, isa="sve2")


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("alpha_hi", np.nan),
        ("alpha_lo", np.inf),
        ("offset", 1e39),
        ("worth", -1.0),
        ("worth", np.nan),
        ("in_rate", np.full(MODELS, -1, np.float32)),
        ("out_rate", np.full(MODELS, np.inf, np.float32)),
        ("fixed_usd", np.full(MODELS, np.nan, np.float32)),
        ("in_rate", np.ones(MODELS)),
        ("out_rate", np.ones(MODELS + 1, np.float32)),
        ("allowed", np.ones(MODELS, np.uint8)),
        ("allowed", [True] * MODELS),
    ],
)
def test_wrong_policy_is_refused(rng, plan, name, wrong):
    with pytest.raises(InvalidInputError, match=f"^{name}: expected .*got"):
        DecidePolicy(plan, **{**make_policy(rng, MODELS), name: wrong})


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("x", np.zeros((3, DIM + 1), np.float32)),
        ("x", np.zeros((3, DIM))),
        ("x", np.zeros((3, DIM), ">f4")),
        ("x", np.zeros((DIM, 3), np.float32).T),
        ("x", np.zeros((3, 1, DIM), np.float32)),
        ("x", np.float32(0)),
        ("x", [[0.0] * DIM] * 3),
        ("x", None),
        ("billed_tokens", np.zeros(2, np.float32)),
        ("billed_tokens", np.zeros(3)),
        ("billed_tokens", "many"),
        ("billed_tokens", None),
        ("billed_tokens", -1),
        ("billed_tokens", np.float32([1, -1, 1])),
        ("tokens_out", np.zeros((2, MODELS), np.float32)),
        ("tokens_out", np.zeros(MODELS)),
        ("tokens_out", np.full(MODELS, -1, np.float32)),
        ("tokens_out", 3.0),
        ("extra_usd", np.zeros((3, MODELS + 1), np.float32)),
        ("extra_usd", np.zeros((6, MODELS), np.float32)[::2]),
        ("allowed", np.ones((3, MODELS), np.uint8)),
        ("allowed", np.ones((3, MODELS, 1), bool)),
        ("policy", None),
        ("policy", {}),
    ],
)
def test_wrong_request_is_refused(rng, plan, policy, name, wrong):
    good = {"x": floats(rng, 3, DIM), "policy": policy, "billed_tokens": 1}
    with pytest.raises(InvalidInputError, match=f"^{name}: expected .*got"):
        plan.run(**{**good, name: wrong})


def test_policy_of_another_size_is_refused(rng, plan):
    other = DecidePlan(make_heads(rng, MODELS + 1, DIM))
    with pytest.raises(InvalidInputError, match="policy: expected one for 5 models, got one for 6"):
        plan.run(floats(rng, DIM), DecidePolicy(other, **make_policy(rng, MODELS + 1)), 1)


def test_tokens_must_be_given_when_not_predicted(rng):
    plan = DecidePlan(make_heads(rng, MODELS, DIM, tokens=False))
    assert not plan.has_tokens
    with pytest.raises(InvalidInputError, match=r"tokens_out: expected .*got None"):
        plan.run(floats(rng, DIM), DecidePolicy(plan, **make_policy(rng, MODELS)), 1)


def test_run_rejects_unknown_missing_and_repeated_arguments(rng, plan, policy):
    x = floats(rng, DIM)
    for arguments, keywords in [
        ((x, policy), {}),
        ((x, policy, 1), {"tau": 0.5}),
        ((x, policy, 1), {"x": x}),
        ((x, policy, 1, None, None, None, None), {}),
        ((), {"policy": policy, "billed_tokens": 1}),
    ]:
        with pytest.raises(TypeError):
            plan.run(*arguments, **keywords)


@pytest.mark.parametrize("billed", [100, 100.0, np.float32(100), np.int64(100), np.full(1, 100, np.float32)])
def test_every_kind_of_number_is_a_token_count(rng, plan, policy, billed):
    x = floats(rng, DIM)
    assert plan.run(x, policy, billed).cost_usd.tobytes() == plan.run(x, policy, 100).cost_usd.tobytes()


def test_results_are_read_only_views_that_outlive_the_result(rng):
    result = make_request(rng, 3, 11, 63).run()
    views = {part: getattr(result, part) for part in PARTS}
    copies = {part: view.copy() for part, view in views.items()}
    del result
    gc.collect()
    for part in PARTS:
        assert not views[part].flags.writeable
        assert isinstance(views[part].base, DecideResult)
        np.testing.assert_array_equal(views[part], copies[part])


def test_scalar_accessors_equal_the_views(rng):
    result = make_request(rng, 3, 11, 63).run()
    assert len(result) == 3
    for r in range(3):
        for part in ("index", "threshold", "gap", "status", "cause"):
            assert getattr(result, f"{part}_at")(r) == getattr(result, part)[r]
        for m in range(11):
            assert result.quality_at(r, m) == result.quality[r, m]
            assert result.tokens_at(r, m) == result.tokens_out[r, m]
            assert result.cost_at(r, m) == result.cost_usd[r, m]


def test_scalar_accessors_refuse_positions_outside(rng):
    result = make_request(rng, 3, 11, 63).run()
    for position in (3, -1, 2**70):
        with pytest.raises(IndexError):
            result.index_at(position)
    with pytest.raises(IndexError, match="model 11 is out of range: there are 11"):
        result.quality_at(0, 11)
    with pytest.raises(TypeError):
        result.quality_at(0)


def test_results_cannot_be_made_by_hand():
    with pytest.raises(TypeError):
        DecideResult()


def test_a_run_leaks_no_references(rng):
    request = make_request(rng, 1, 11, 63)
    plan = DecidePlan(request.heads)
    policy = DecidePolicy(plan, **request.policy)
    held = [plan, policy, request.x]

    def counts() -> list[int]:
        return [sys.getrefcount(each) for each in held]

    before = counts()
    for _ in range(1000):
        plan.run(request.x, policy, 1.0, tokens_out=None)
    assert counts() == before


def test_a_run_allocates_one_python_object(rng):
    request = make_request(rng, 1, 11, 63)
    plan = DecidePlan(request.heads)
    policy, x, results = DecidePolicy(plan, **request.policy), request.x, [None] * 100
    before = sys.getallocatedblocks()
    for i in range(100):
        results[i] = plan.run(x, policy, 1.0)
    assert sys.getallocatedblocks() - before <= 100 + 3  # the loop and the counts themselves hold a few
