"""A forest in the heads: which leaf a row comes to, in which order leaves are added, and what is refused."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from ipr_engine.decide.contract import STATUS, DecidePlan, DecidePolicy, Heads
from ipr_engine.decide.reference import leaf_of_tree
from ipr_engine.errors import InvalidInputError
from tests.support.decide_requests import floats, make_heads, make_policy

MODELS, DIM, TREES, DEPTH = 5, 7, 9, 3
ARRAYS = ("tree_column", "tree_threshold", "tree_leaf")


@pytest.fixture
def heads(rng):
    return make_heads(rng, MODELS, DIM, trees=TREES, depth=DEPTH)


def logit_of(heads, x, isa):
    """Return the logits, (batch, models), up to the rounding of a sigmoid and back."""
    plan = DecidePlan(heads, isa)
    models = len(heads.bias)
    given = None if plan.has_tokens else np.ones(models, np.float32)
    policy = DecidePolicy(plan, **make_policy(np.random.default_rng(0), models))
    quality = plan.run(np.ascontiguousarray(x), policy, 1, tokens_out=given).quality.astype(np.float64)
    return np.log(quality / (1 - quality))


def leaves_of(heads, x):
    return leaf_of_tree(heads.tree_column, heads.tree_threshold, x)


def one_tree(threshold, column=(0, 1, 2), *, models=1, dim=3):
    """Return heads of one tree of depth 2 whose leaves hold 1, 2, 3 and 4, and nothing else."""
    zeros = np.zeros(models, np.float32)
    leaf = np.repeat(np.float32([1, 2, 3, 4])[:, None], models, axis=1)
    return Heads(
        bias=zeros, skip=np.zeros((models, dim), np.float32), tree_leaf=leaf[None],
        tree_column=np.int32([column]), tree_threshold=np.float32([threshold]),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("x", "leaf"),
    [
        ([0, 0, 0], 1),
        ([0, 1, 0], 2),
        ([1, 0, 0], 3),
        ([1, 0, 1], 4),
        ([0.5, 0.5, 9], 1),  # a threshold itself goes left
        ([np.nextafter(np.float32(0.5), np.float32(1)), 9, 0.5], 3),
        ([-np.inf, np.inf, 0], 2),
    ],
)
@pytest.mark.parametrize("models", [1, 16, 17])
def test_a_row_comes_to_its_leaf(isa, x, leaf, models):
    got = logit_of(one_tree([0.5, 0.5, 0.5], models=models), np.float32([x]), isa)
    if np.isfinite(x).all():
        np.testing.assert_allclose(got, np.full((1, models), leaf), rtol=1e-5)
    assert leaves_of(one_tree([0.5, 0.5, 0.5]), np.float32([x])).tolist() == [[leaf - 1]]


def test_an_infinite_threshold_is_always_left(isa):
    heads = one_tree([np.inf, np.inf, 0.5])
    np.testing.assert_allclose(logit_of(heads, np.float32([[9, 9, 9]]), isa), [[1]], rtol=1e-5)


def test_a_nan_goes_left_and_its_row_has_a_status(isa):
    heads = one_tree([0.5, 0.5, 0.5])
    assert leaves_of(heads, np.float32([[np.nan, np.nan, 9]])).tolist() == [[0]]
    plan = DecidePlan(heads, isa)
    policy = DecidePolicy(plan, **make_policy(np.random.default_rng(0), 1))
    result = plan.run(np.float32([[np.nan] * 3]), policy, 1, tokens_out=np.ones(1, np.float32))
    assert STATUS[result.status_at(0)] == "nonfinite_quality"  # of the products with x


def test_leaves_are_added_in_the_order_of_the_trees(isa):
    """1e8 + 1 - 1e8 is 0 in float32, 1e8 - 1e8 + 1 is 1: the order shows in the sum."""
    for order in itertools.permutations([1e8, 1.0, -1e8]):
        leaf = np.repeat(np.float32(order)[:, None, None], 2, axis=1)
        heads = Heads(
            bias=np.zeros(1, np.float32), skip=np.zeros((1, 1), np.float32), tree_leaf=leaf,
            tree_column=np.zeros((3, 1), np.int32), tree_threshold=np.zeros((3, 1), np.float32),
        )  # fmt: skip
        expected = np.float32(np.float32(np.float32(order[0]) + np.float32(order[1])) + np.float32(order[2]))
        np.testing.assert_allclose(logit_of(heads, np.zeros((1, 1), np.float32), isa), [[expected]], atol=1e-6)


@pytest.mark.parametrize(("trees", "depth"), [(1, 1), (7, 10), (8, 2), (17, 3), (9, 4), (30, 8), (3, 9), (1024, 1)])
def test_a_forest_of_any_size_adds_what_the_definition_says(isa, rng, trees, depth):
    heads = make_heads(rng, 19, 23, trees=trees, depth=depth, tokens=False)
    flat = Heads(**{**vars(heads), **dict.fromkeys(ARRAYS)})
    x = floats(rng, 5, 23)
    leaf = leaves_of(heads, x)
    added = heads.tree_leaf[np.arange(trees), leaf].astype(np.float64).sum(axis=1)  # (batch, trees, models) -> sum
    got = logit_of(heads, x, isa) - logit_of(flat, x, isa)
    np.testing.assert_allclose(got, added, atol=2e-4)


def test_leaves_that_overflow_are_a_status_of_their_row(isa):
    huge = np.full((2, 2, 1), 3e38, np.float32)
    heads = Heads(
        bias=np.zeros(1, np.float32), skip=np.zeros((1, 1), np.float32), tree_leaf=huge,
        tree_column=np.zeros((2, 1), np.int32), tree_threshold=np.zeros((2, 1), np.float32),
    )  # fmt: skip
    plan = DecidePlan(heads, isa)
    policy = DecidePolicy(plan, **make_policy(np.random.default_rng(0), 1))
    result = plan.run(np.zeros((1, 1), np.float32), policy, 1, tokens_out=np.ones(1, np.float32))
    assert STATUS[result.status_at(0)] == "nonfinite_quality"


def test_plan_says_its_trees_and_keeps_its_own_copy(rng, heads):
    plan, policy = DecidePlan(heads), DecidePolicy(DecidePlan(heads), **make_policy(rng, MODELS))
    assert (plan.trees, plan.depth) == (TREES, DEPTH)
    assert (DecidePlan(make_heads(rng, MODELS, DIM)).trees, DecidePlan(make_heads(rng, MODELS, DIM)).depth) == (0, 0)
    x = floats(rng, DIM)
    before = plan.run(x, policy, 1).quality.tobytes()
    for name in ARRAYS:
        getattr(heads, name)[...] = 0
    assert plan.run(x, policy, 1).quality.tobytes() == before


@pytest.mark.parametrize("absent", ARRAYS)
def test_part_of_a_forest_is_refused(heads, absent):
    with pytest.raises(InvalidInputError, match=f"^{absent}: expected an array, since tree_column.*got None"):
        Heads(**{**vars(heads), absent: None})


def test_a_forest_alone_is_refused(heads):
    with pytest.raises(InvalidInputError, match=r"^skip: expected .*quality must depend on x"):
        Heads(**{**vars(heads), "skip": None})


@pytest.mark.parametrize("dim", [2**64, -(2**64), True, 7.0])
def test_a_dim_that_is_no_count_of_columns_is_refused(heads, dim):
    with pytest.raises(InvalidInputError, match=r"^dim: expected"):
        Heads(**{**vars(heads), "dim": dim})


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("tree_column", lambda a: a.astype(np.int64), "int64"),
        ("tree_column", lambda a: np.where(a == a.max(), DIM, a).astype(np.int32), r"values in \[0, 7\), got 7"),
        ("tree_column", lambda a: a - DIM, r"values in \[0, 7\), got -"),
        ("tree_column", lambda a: a[:-1].copy(), "got"),
        ("tree_threshold", lambda a: a.astype(np.float64), "float64"),
        ("tree_threshold", lambda a: np.full_like(a, np.nan), "non-NaN values, got nan at flat position 0"),
        ("tree_threshold", lambda a: a[:, :-1].copy(), r"\(9, 7\)"),
        ("tree_threshold", lambda a: a[:-1].copy(), r"\(9, 7\)"),
        ("tree_leaf", lambda a: np.full_like(a, np.inf), "finite values, got inf"),
        ("tree_leaf", lambda a: a[:, :, :-1].copy(), r"\(9, 8, 5\)"),
        ("tree_leaf", lambda a: a[:, :5].copy(), "2\\^depth.*got 5 leaves"),
        ("tree_leaf", lambda a: a[0], "got"),
    ],
)
def test_a_wrong_forest_is_refused(heads, name, change, message):
    with pytest.raises(InvalidInputError, match=message):
        Heads(**{**vars(heads), name: change(getattr(heads, name))})


@pytest.mark.parametrize(
    ("trees", "depth", "message"),
    [(1025, 1, "expected 1 to 1024 trees, got 1025"), (1, 11, "got depth 11"), (0, 2, "1024 trees, got 0")],
)
def test_too_large_or_empty_a_forest_is_refused(rng, trees, depth, message):
    nodes = np.zeros((trees, 2**depth - 1), np.float32)
    parts = {"tree_column": nodes.astype(np.int32), "tree_threshold": nodes}
    linear = vars(make_heads(rng, MODELS, DIM))
    with pytest.raises(InvalidInputError, match=message):
        Heads(**{**linear, **parts, "tree_leaf": np.zeros((trees, 2**depth, MODELS), np.float32)})
