from __future__ import annotations

import numpy as np
import pytest

from ipr_engine.training.estimators.by_name import CLOSED_FORM
from ipr_engine.training.fitted_heads import HeadRows, fit_heads, predict
from ipr_engine.training.selection import PromptCosts, compare_estimators, winner
from tests.support import skips
from tests.support.training_data import make_world


@pytest.fixture(params=CLOSED_FORM)
def estimator(request):
    if request.param == "forest":
        pytest.importorskip("sklearn", reason=skips.TREES)
    return request.param


def test_heads_predict_better_than_the_mean_on_fresh_rows(request, estimator):
    world = make_world(request.node.name, rows=3000)
    heads = fit_heads(
        HeadRows(world.x[:2000], world.quality[:2000], world.tokens[:2000], world.keys[:2000]), estimator=estimator
    )
    quality, _ = predict(heads.tensors, world.x[2000:], heads.activation)
    best_possible = error(world.chance[2000:], world.quality[2000:])
    of_the_mean = world.quality[2000:].var(axis=0)
    assert (error(quality, world.quality[2000:]) < (best_possible + of_the_mean) / 2).all()


def test_heads_are_calibrated_on_fresh_rows(request):
    world = make_world(request.node.name, rows=12000)
    heads = fit_heads(
        HeadRows(world.x[:4000], world.quality[:4000], world.tokens[:4000], world.keys[:4000]), estimator="plain"
    )
    quality, _ = predict(heads.tensors, world.x[4000:])
    # three standard errors of a mean over 4000 fitting rows with variance at most 1/4
    assert np.abs(quality.mean(axis=0) - world.quality[4000:].mean(axis=0)).max() < 3 * np.sqrt(
        0.25 / 4000 + 0.25 / 8000
    )


def test_tensors_have_the_bundles_names_shapes_and_dtype(request):
    world = make_world(request.node.name, rows=200)
    heads = fit_heads(HeadRows(world.x, world.quality, world.tokens, world.keys), estimator="advantage_shared")
    assert {name: tensor.shape for name, tensor in heads.tensors.items()} == {
        "skip": (5, 13),
        "bias": (5,),
        "len_skip": (5, 13),
        "len_bias": (5,),
        "len_cap": (5,),
    }
    assert {tensor.dtype for tensor in heads.tensors.values()} == {np.dtype(np.float32)}


def test_rule_constants_are_mean_row_extremes_out_of_fold(request):
    world = make_world(request.node.name)
    heads = fit_heads(HeadRows(world.x, world.quality, world.tokens, world.keys), estimator="advantage_each")
    predicted = heads.out_of_fold_quality
    assert heads.rule_constants["hi"] == pytest.approx(predicted.max(axis=1).mean())
    assert heads.rule_constants["lo"] == pytest.approx(predicted.min(axis=1).mean())


def test_copies_of_a_row_are_never_scored_by_their_twin(request):
    world = make_world(request.node.name, rows=300, twins=60)
    heads = fit_heads(HeadRows(world.x, world.quality, world.tokens, world.keys), estimator="plain")
    np.testing.assert_array_equal(heads.folds[:60], heads.folds[-60:])


def test_same_input_same_bytes(request, estimator):
    world = make_world(request.node.name, rows=200)
    one, two = (
        fit_heads(HeadRows(world.x, world.quality, world.tokens, world.keys), estimator=estimator, seed=4)
        for _ in range(2)
    )
    assert {name: value.tobytes() for name, value in one.tensors.items()} == {
        name: value.tobytes() for name, value in two.tensors.items()
    }
    assert one.settings == two.settings


def test_winner_is_the_estimator_of_greatest_area_on_the_same_folds(request):
    world = make_world(request.node.name, rows=250)
    rate = np.geomspace(1e-5, 1e-6, 5)
    cost = world.tokens * rate
    given = HeadRows(world.x, world.quality, world.tokens, world.keys), PromptCosts(cost, np.zeros_like(cost), rate)
    scores = compare_estimators(*given, estimators=("plain", "advantage_each", "caps"), repeats=2, folds=3)
    assert [score.estimator for score in scores] == ["plain", "advantage_each", "caps"]
    areas = {score.estimator: np.mean([*score.area_worth, *score.area_minmax]) for score in scores}
    assert winner(scores) == max(areas, key=areas.__getitem__)


def test_the_brier_score_chooses_where_no_row_is_complete(request):
    world = make_world(request.node.name, rows=200)
    quality = world.quality.copy()
    quality[np.arange(200), np.arange(200) % 5] = np.nan
    rate = np.ones(5)
    costs = PromptCosts(world.tokens, np.zeros_like(quality), rate)
    given = HeadRows(world.x, quality, world.tokens, world.keys), costs
    scores = compare_estimators(*given, estimators=("plain", "advantage_shared"), repeats=1, folds=3)
    assert np.isnan([score.area for score in scores]).all()
    assert winner(scores) == min(scores, key=lambda score: score.brier[0]).estimator
    assert [score.cost for score in scores] == [(pytest.approx(np.nan, nan_ok=True),)] * 2


def test_a_cost_at_equal_quality_stands_beside_each_area_and_a_degenerate_axis_is_named(request):
    world = make_world(request.node.name, rows=200)
    rate = np.geomspace(1e-5, 1e-6, 5)
    rows = HeadRows(world.x, world.quality, world.tokens, world.keys)
    costs = PromptCosts(world.tokens * rate, np.zeros_like(world.tokens), rate)
    told = []
    some = {"estimators": ("plain", "caps"), "repeats": 1, "folds": 3, "progress": told.append}
    scores = compare_estimators(rows, costs, **some)
    assert all(0 < score.cost[0] <= 1 for score in scores)
    assert any("plain: area 0." in line and ", cost at 98% 0." in line for line in told)
    cheap_first = PromptCosts(costs.realised[:, ::-1], costs.of_input, rate[::-1])
    scores = compare_estimators(rows, cheap_first, names=list("vwxyz"), **some)
    assert np.isnan([score.area for score in scores]).all()
    assert not any("nan" in line for line in told)
    assert (
        "the area is undefined, so the Brier score chooses: v is the cheapest and the best single candidate" in told[-1]
    )


def test_what_stands_where_nothing_was_judged_has_no_part(request, estimator):
    world = make_world(request.node.name, rows=240)
    rng = np.random.default_rng(3)
    open_cells = rng.random(world.quality.shape) < 0.3
    quality, tokens = (np.where(open_cells, np.nan, table) for table in (world.quality, world.tokens))
    sparse = fit_heads(HeadRows(world.x, quality, tokens, world.keys), estimator=estimator)
    assert np.isfinite(sparse.out_of_fold_quality).all()
    assert all(np.isfinite(tensor).all() for name, tensor in sparse.tensors.items() if name != "tree_threshold")
    # as many judged cells as possible carry what the full table carries: predictions stay close to the truth
    quality_hat, _ = predict(sparse.tensors, world.x, sparse.activation)
    assert (error(quality_hat, world.chance) < world.chance.var(axis=0)).all()


def test_a_source_of_another_level_does_not_shift_the_heads(request):
    world = make_world(request.node.name, rows=3000)
    easy = 1 / (1 + np.exp(-(np.log(world.chance / (1 - world.chance)) + 2.0)))
    rng = np.random.default_rng(5)
    quality = (rng.random(easy.shape) < np.where(np.arange(3000)[:, None] < 1500, world.chance, easy)).astype(float)
    source = (np.arange(3000) >= 1500).astype(np.int64)
    given = (world.x, quality, world.tokens, world.keys)
    mixed = fit_heads(HeadRows(*given, source=source), estimator="advantage_shared")
    pooled = fit_heads(HeadRows(*given), estimator="advantage_shared")
    assert mixed.tensors["skip"].shape == (5, 13)
    level = world.chance[:1500].mean()
    (of_mixed, _), (of_pooled, _) = (predict(heads.tensors, world.x[:1500]) for heads in (mixed, pooled))
    assert abs(of_mixed.mean() - level) < 0.02 < abs(of_pooled.mean() - level)


def test_caps_see_regions_that_no_linear_head_sees(request):
    rng = np.random.default_rng(11)
    centres = rng.standard_normal((6, 24))
    region = rng.integers(6, size=3000)
    x = centres[region] + 0.3 * rng.standard_normal((3000, 24))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    better = np.array([0, 1, 1, 0, 1, 0])[region]  # which of two candidates is better, by region
    chance = np.stack([0.2 + 0.6 * better, 0.8 - 0.6 * better], axis=1)
    # a second kind of prompt inside each region undoes what a direction could tell
    x = np.concatenate([x, -x])
    quality = (rng.random((6000, 2)) < np.concatenate([chance, chance])).astype(float)
    order = rng.permutation(6000)
    x, quality = x[order], quality[order]
    keys, tokens = [str(i) for i in range(4000)], np.ones((4000, 2))
    wrong = {}
    for estimator in ("plain", "caps"):
        heads = fit_heads(HeadRows(x[:4000], quality[:4000], tokens, keys), estimator=estimator)
        wrong[estimator] = error(predict(heads.tensors, x[4000:], heads.activation)[0], quality[4000:]).mean()
    assert wrong["caps"] < 0.85 * wrong["plain"]


def error(predicted: np.ndarray, quality: np.ndarray) -> np.ndarray:
    """Mean squared error per candidate."""
    return np.square(predicted - quality).mean(axis=0)
