"""The row of a new candidate: what it learns from few prompts, and that it is a row of the packed form."""

from __future__ import annotations

import numpy as np
import pytest

from ipr_engine.errors import InvalidInputError
from ipr_engine.measures.resampling import grouped_folds
from ipr_engine.training.add.candidate_row import combine, fit_row
from ipr_engine.training.fitted_heads import HeadRows, fit_heads, predict
from tests.support.seeds import seeded
from tests.support.training_data import make_world


def heads_and_world(seed, estimator="plain", rows=2400):
    """Heads of all candidates but the last, fitted on the first half; the world's other rows are fresh."""
    world = make_world(seed, rows=rows)
    half = rows // 2
    heads = fit_heads(
        HeadRows(world.x[:half], world.quality[:half, :-1], world.tokens[:half, :-1], world.keys[:half]),
        estimator=estimator,
    )
    return heads, world, half


def with_row(tensors, row):
    return {
        name: tensor if name == "trunk" else np.concatenate([tensor, row[name][None]])
        for name, tensor in tensors.items()
    }


def network_tensors(models, dim, hidden, rank, *, skip=True, trunk=True):
    rng = seeded("network", models, dim, hidden, rank)
    shapes = {"bias": (models,), "identity": (models, hidden), "out": (models, hidden)}
    shapes |= {"up": (models, hidden, rank), "down": (models, rank, dim)} if rank else {}
    shapes |= {"skip": (models, dim)} if skip else {}
    shapes |= {"trunk": (hidden, dim)} if trunk else {}
    shapes |= {"len_skip": (models, dim), "len_bias": (models,)}
    tensors = {name: (0.4 * rng.standard_normal(shape)).astype(np.float32) for name, shape in shapes.items()}
    return {**tensors, "out": 3 * tensors["out"]}


@pytest.mark.parametrize("estimator", ["plain", "caps"])
def test_fifty_prompts_beat_the_constant_and_a_thousand_come_near_the_truth(request, estimator):
    heads, world, half = heads_and_world(request.node.name, estimator)
    y, truth = world.quality[:, -1], world.chance[half:, -1]
    errors = {}
    for n in (50, 1000):
        row = fit_row(heads.tensors, heads.activation, world.x[:n], y[:n], world.tokens[:n, -1], world.keys[:n]).tensors
        predicted = predict(with_row(heads.tensors, row), world.x[half:], heads.activation)[0][:, -1]
        errors[n] = np.square(predicted - truth).mean()
    constant = np.square(y[:1000].mean() - truth).mean()
    assert errors[50] < 0.6 * constant
    assert errors[1000] < 0.25 * constant


@pytest.mark.parametrize("estimator", ["plain", "caps"])
def test_the_others_are_not_touched(request, estimator):
    heads, world, _ = heads_and_world(request.node.name, estimator, rows=400)
    before = {name: tensor.copy() for name, tensor in heads.tensors.items()}
    row = fit_row(
        heads.tensors, heads.activation, world.x, world.quality[:, -1], world.tokens[:, -1], world.keys
    ).tensors
    assert {name: part.shape for name, part in row.items()} == {
        name: tensor.shape[1:] for name, tensor in before.items() if name != "trunk"
    }
    assert all(part.dtype == np.float32 for part in row.values())
    for name, tensor in before.items():
        np.testing.assert_array_equal(heads.tensors[name], tensor)


def test_the_sum_of_shares_and_own_weights_is_the_fitted_line(request):
    rng = seeded(request.node.name)
    features, others = rng.standard_normal((90, 6)), rng.standard_normal((90, 4))
    y = others @ [0.3, 0.3, 0.3, 0.3] + 0.2 * features[:, 0] + 0.1 * rng.standard_normal(90)
    folds = grouped_folds([str(i) for i in range(90)], 5, 0)
    fit = combine(features, others, y, folds, logistic=False)
    predicted = features @ fit.own + others @ fit.shares + fit.bias
    assert np.square(predicted - y).mean() < np.square(fit.out_of_fold - y).mean() < 0.1 * y.var()
    np.testing.assert_allclose(fit.shares, 0.3, atol=0.15)


def test_tokens_follow_the_new_candidates_own(request):
    heads, world, half = heads_and_world(request.node.name)
    tokens = 10 * world.tokens[:, -1]
    tokens[7] = np.nan
    row = fit_row(heads.tensors, "relu", world.x[:400], world.quality[:400, -1], tokens[:400], world.keys[:400]).tensors
    predicted = predict(with_row(heads.tensors, row), world.x[half:])[1][:, -1]
    assert predicted.mean() == pytest.approx(tokens[half:].mean(), rel=0.15)
    assert np.corrcoef(np.log(predicted), np.log(tokens[half:]))[0, 1] > 0.5


def test_without_tokens_the_row_has_none(request):
    heads, world, _ = heads_and_world(request.node.name, rows=200)
    row = fit_row(heads.tensors, "relu", world.x, world.quality[:, -1], None, world.keys)
    assert set(row.tensors) == {"skip", "bias"}


@pytest.mark.parametrize(
    ("rank", "form"), [(0, {}), (0, {"skip": False}), (2, {}), (2, {"skip": False}), (2, {"trunk": False})]
)
def test_where_hidden_layers_differ_the_row_borrows_the_most_telling_one(rank, form):
    tensors = network_tensors(4, 11, 6, rank, **form)
    rng = seeded("rows", str(form), rank)
    x = rng.standard_normal((1500, 11))
    chance = predict(tensors, x, "gelu")[0][:, 2]  # it behaves as candidate 2
    y = (rng.random(1500) < chance).astype(float)
    fit = fit_row(tensors, "gelu", x[:500], y[:500], None, [str(i) for i in range(500)])
    assert fit.host == 2
    np.testing.assert_array_equal(fit.tensors["identity"], tensors["identity"][2])
    lengths = {name: tensors[name][0] for name in ("len_skip", "len_bias")}
    predicted = predict(with_row(tensors, {**fit.tensors, **lengths}), x[500:], "gelu")[0][:, -1]
    assert np.square(predicted - chance[500:]).mean() < 0.2 * chance.var()


def test_same_input_same_bytes(request):
    heads, world, _ = heads_and_world(request.node.name, rows=200)
    one, two = (
        fit_row(heads.tensors, "relu", world.x, world.quality[:, -1], world.tokens[:, -1], world.keys) for _ in "12"
    )
    assert {n: t.tobytes() for n, t in one.tensors.items()} == {n: t.tobytes() for n, t in two.tensors.items()}


def test_a_candidate_that_is_always_right_gets_a_high_constant(request):
    heads, world, _ = heads_and_world(request.node.name, rows=200)
    row = fit_row(heads.tensors, "relu", world.x, np.ones(200), None, world.keys)
    assert row.out_of_fold_quality.mean() > 0.98


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"quality": np.array([0.5, np.nan] * 100)}, "quality in"),
        ({"quality": np.full(200, 1.5)}, "quality in"),
        ({"quality": np.ones(199)}, "equal rows"),
        ({"tokens": np.full(200, -1.0)}, "counts >= 0"),
        ({"x": np.full((200, 13), np.inf)}, "finite x"),
    ],
)
def test_bad_rows_are_named(request, change, message):
    heads, world, _ = heads_and_world(request.node.name, rows=200)
    given = {"x": world.x, "quality": world.quality[:, -1], "tokens": world.tokens[:, -1], "keys": world.keys} | change
    with pytest.raises(InvalidInputError, match=message):
        fit_row(heads.tensors, "relu", **given)
