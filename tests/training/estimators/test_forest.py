"""The estimator "forest": trees decide as scikit-learn's do, the exported head is the score, and the surface is trees' alone."""

from __future__ import annotations

import numpy as np
import pytest

from ipr_engine.decide.contract import Heads
from ipr_engine.decide.reference import leaf_of_tree, predict_logit
from ipr_engine.errors import InvalidInputError
from ipr_engine.measures.resampling import grouped_folds
from ipr_engine.training.estimators import by_name, forest
from ipr_engine.training.estimators.by_name import fit_scores
from ipr_engine.training.estimators.scores import FoldedRows
from ipr_engine.training.fitted_heads import HeadRows, fit_heads, predict
from tests.support import skips
from tests.support.seeds import seeded
from tests.support.training_data import make_world

sklearn = pytest.importorskip("sklearn", reason=skips.TREES)
from sklearn.ensemble import ExtraTreesRegressor  # noqa: E402

SURFACE = 6
FEW = {"trees": 9, "depth": 4, "caps": 8}


def make_surface(name, *, rows=900, dim=20, models=4):
    """Return x (rows, dim), surface (rows, SURFACE) in [0, 1], the chance, quality 0/1: which candidate is good the surface alone tells."""
    rng = seeded("surface", name)
    x = rng.standard_normal((rows, dim)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    surface = rng.random((rows, SURFACE)).astype(np.float32)
    kind = (surface[:, 1] > 0.4).astype(int) + 2 * (surface[:, 4] > 0.6)
    chance = np.array([[0.9, 0.1, 0.5, 0.2], [0.2, 0.8, 0.5, 0.3], [0.1, 0.3, 0.9, 0.4], [0.5, 0.5, 0.2, 0.95]])[kind]
    return x, surface, chance, (rng.random((rows, models)) < chance[:, :models]).astype(float)


def keys(rows):
    return [f"question {n}" for n in range(rows)]


def folded(x, quality, surface=None, **more):
    return FoldedRows(x, quality, grouped_folds(keys(len(x)), 5, 0), surface=surface, **more)


@pytest.mark.parametrize(("depth", "leaf"), [(1, 1), (5, 3), (9, 1)])
def test_a_heap_decides_as_the_tree_of_scikit_learn(request, depth, leaf):
    rng = seeded(request.node.name)
    z = rng.standard_normal((700, 5)).astype(np.float32)
    z[:, 3] = np.round(z[:, 3])  # many rows of one value
    grown = ExtraTreesRegressor(7, max_depth=depth, min_samples_leaf=leaf, random_state=3).fit(z, rng.random((700, 2)))
    for tree in (estimator.tree_ for estimator in grown.estimators_):
        column, threshold = forest.heap_of(tree, depth + 1)  # deeper than it is: what ends early goes left
        split = tree.children_left >= 0
        edges = tree.threshold[split].astype(np.float32)
        probes = z.repeat(2, axis=0)[: 4 * len(edges)].copy()
        for n, (at, edge) in enumerate(zip(tree.feature[split], edges, strict=True)):
            for step, value in enumerate((np.nextafter(edge, -np.inf), edge, np.nextafter(edge, np.inf))):
                if 4 * n + step < len(probes):
                    probes[4 * n + step, at] = value
        for rows in (z, probes.astype(np.float32)):
            ours = leaf_of_tree(column[None], threshold[None], rows)[:, 0]
            theirs = tree.apply(rows)
            np.testing.assert_array_equal(forest.leaves_of(tree, depth + 1)[ours], theirs)


@pytest.mark.parametrize("surface", [True, False])
def test_the_exported_head_is_the_score_that_was_fitted(request, surface):
    x, features, _, quality = make_surface(request.node.name, dim=70)
    scores = fit_scores("forest", folded(x, quality, features if surface else None), options=FEW)
    tensors = {
        name: np.ascontiguousarray(value, np.int32 if name == "tree_column" else np.float32)
        for name, value in scores.tensors.items()
    }
    whole = np.concatenate([x, features], axis=1) if surface else x
    heads = Heads(**tensors, activation=scores.activation, dim=whole.shape[1])
    got = predict_logit(heads, whole)
    caps = {name: value for name, value in tensors.items() if not name.startswith("tree")}
    without = predict_logit(Heads(**caps, activation=scores.activation), x)
    added = got - without
    assert np.abs(added).max() > 0.1
    assert tensors["tree_leaf"].shape == (9, 2**4, 4)
    assert (tensors["tree_column"] < forest.LEAD).any() or surface
    assert not ((tensors["tree_column"] >= forest.LEAD) & (tensors["tree_column"] < 70)).any()
    assert (tensors["tree_column"] >= 70).any() == surface
    if surface:  # the embedding tells nothing here; what was held out is predicted much as the whole fit predicts it
        assert np.corrcoef(got.ravel(), scores.out_of_fold.ravel())[0, 1] > 0.8


def test_what_the_surface_tells_is_learnt(request):
    x, surface, chance, quality = make_surface(request.node.name, rows=1500)
    whole, tokens = np.concatenate([x, surface], axis=1), np.ones((1500, 4))
    wrong = {}
    for estimator in ("caps", "forest"):
        rows = HeadRows(whole[:1000], quality[:1000], tokens[:1000], keys(1000), surface_dim=SURFACE)
        heads = fit_heads(rows, estimator=estimator)
        wrong[estimator] = np.square(predict(heads.tensors, whole[1000:], heads.activation)[0] - chance[1000:]).mean()
        out_of_fold = np.square(heads.out_of_fold_quality - chance[:1000]).mean()
        assert out_of_fold == pytest.approx(wrong[estimator], rel=0.35)
    assert wrong["forest"] < 0.5 * wrong["caps"]


@pytest.mark.parametrize("estimator", ["plain", "advantage_shared", "caps"])
def test_other_estimators_do_not_look_at_the_surface(request, estimator):
    x, surface, _, quality = make_surface(request.node.name, rows=300)
    tokens = np.ones((300, 4))
    beside = HeadRows(np.concatenate([x, surface], axis=1), quality, tokens, keys(300), surface_dim=SURFACE)
    alone, wide = (fit_heads(rows, estimator=estimator) for rows in (HeadRows(x, quality, tokens, keys(300)), beside))
    for name, tensor in alone.tensors.items():
        if name in ("skip", "trunk", "len_skip"):
            np.testing.assert_array_equal(wide.tensors[name][..., :20], tensor)
            assert wide.tensors[name].shape[-1] == 20 + SURFACE
            assert not wide.tensors[name][..., 20:].any()
        else:
            np.testing.assert_array_equal(wide.tensors[name], tensor)


def test_same_seed_same_bytes_and_another_seed_others(request):
    x, surface, _, quality = make_surface(request.node.name, rows=300)
    one, same, other = (fit_scores("forest", folded(x, quality, surface), options=FEW, seed=seed) for seed in (4, 4, 5))
    for name, tensor in one.tensors.items():
        assert tensor.tobytes() == same.tensors[name].tobytes()
    assert one.out_of_fold.tobytes() == same.out_of_fold.tobytes()
    assert one.tensors["tree_threshold"].tobytes() != other.tensors["tree_threshold"].tobytes()


def test_leaves_hold_what_was_judged_in_them(request):
    """A leaf's value is that of its judged rows at the mean of all; what fills gaps in the table moves splits alone."""
    rng = seeded(request.node.name)
    z = rng.random((400, 3)).astype(np.float32)
    quality = (rng.random((400, 2)) < 0.3).astype(float)
    quality[rng.random((400, 2)) < 0.4] = np.nan
    filled = np.where(np.isnan(quality), rng.random((400, 2)), quality)
    trees = forest.grow(z, filled, quality, forest.ForestOptions(trees=3, depth=3), seed=0)
    base = np.nanmean(quality, axis=0)
    np.testing.assert_allclose(trees.base, np.log(base / (1 - base)))
    leaves = leaf_of_tree(trees.column, trees.threshold, z)
    for tree in range(3):
        for leaf in set(leaves[:, tree]):
            inside = quality[leaves[:, tree] == leaf]
            known = ~np.isnan(inside)
            p = (np.where(known, inside, 0).sum(axis=0) + 4 * base) / (known.sum(axis=0) + 4)
            np.testing.assert_allclose(trees.leaf[tree, leaf], np.log(p / (1 - p)) - trees.base)


def test_a_source_of_another_level_is_taken_at_the_level_of_home(request):
    x, surface, chance, quality = make_surface(request.node.name, rows=1200)
    source = (np.arange(1200) >= 600).astype(np.int64)
    quality[600:] *= seeded("harder", 1).random((600, 4)) < 0.6
    level, filled = forest.at_level_of_home(quality, np.full_like(quality, 0.5), source)
    np.testing.assert_array_equal(level[:600], quality[:600])
    assert np.abs(level[600:].mean(axis=0) - quality[:600].mean(axis=0)).max() < 0.1
    assert (filled == level).all()
    rows = HeadRows(
        np.concatenate([x, surface], axis=1), quality, np.ones((1200, 4)), keys(1200), source, surface_dim=SURFACE
    )
    heads = fit_heads(rows, estimator="forest", options=FEW)
    assert (
        heads.tensors["trunk"].shape[1] == heads.tensors["len_skip"].shape[1] == 20
    )  # no intercept of a source is left
    assert heads.tensors["tree_column"].max() < 26
    predicted, _ = predict(heads.tensors, rows.x[:600], heads.activation)
    assert np.abs(predicted.mean(axis=0) - chance[:600].mean(axis=0)).max() < 0.06


def test_a_handful_of_rows_at_home_tells_no_level():
    quality = np.full((60, 2), 0.9)
    source = np.repeat([0, 1], 30)
    quality[:30, 0], quality[1:30, 1], quality[0, 1] = 0.5, np.nan, 0.0
    level, _ = forest.at_level_of_home(quality, np.full_like(quality, 0.5), source)
    np.testing.assert_allclose(level[30:], [[0.5, 0.9]] * 30)


@pytest.mark.filterwarnings("error")
def test_one_candidate_alone_is_fitted_without_a_warning(request):
    x, surface, _, quality = make_surface(request.node.name, rows=200)
    heads = fit_heads(
        HeadRows(np.concatenate([x, surface], 1), quality[:, :1], np.ones((200, 1)), keys(200), surface_dim=SURFACE),
        estimator="forest",
        options=FEW,
    )
    assert heads.tensors["tree_leaf"].shape[2] == 1
    assert heads.tensors["tree_leaf"].any()


def test_trees_are_grown_on_at_most_so_many_rows(request, monkeypatch):
    x, surface, _, quality = make_surface(request.node.name, rows=400)
    monkeypatch.setattr(forest, "MOST_ROWS", 100)
    monkeypatch.setattr(forest, "BLOCK", 37)
    grown = []
    grow = forest.grow
    monkeypatch.setattr(forest, "grow", lambda z, *rest, **more: grown.append(len(z)) or grow(z, *rest, **more))
    scores = fit_scores("forest", folded(x, quality, surface), options=FEW)
    assert set(grown) == {100}
    assert scores.settings["trees_grown_on"] == 100
    assert np.isfinite(scores.out_of_fold).all()


def test_a_candidate_that_few_prompts_are_judged_on_has_finite_leaves(request):
    x, surface, _, quality = make_surface(request.node.name, rows=200)
    quality[20:, 2] = np.nan
    heads = fit_heads(
        HeadRows(np.concatenate([x, surface], 1), quality, np.ones((200, 4)), keys(200), surface_dim=SURFACE),
        estimator="forest",
        options=FEW,
    )
    assert all(np.isfinite(heads.tensors[name]).all() for name in heads.tensors if name != "tree_threshold")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"trees": 0}, "^trees: "),
        ({"trees": 1025}, "^trees: "),
        ({"depth": 11}, "^depth: "),
        ({"depth": 2.0}, "^depth: "),
        ({"leaf": 0}, "^leaf: "),
        ({"caps": 0}, "^caps, "),
        ({"forms": 3}, "^forms: expected a list of some of plain, "),
        ({"forms": "plain"}, "^forms: expected a list of some of plain, .*got 'plain'"),
        ({"forms": []}, "^forms: "),
        ({"forms": ["plain", "other"]}, "^forms: .*'other'"),
        ({"branches": 3}, "^options: expected some of trees, depth, leaf, caps"),
    ],
)
def test_options_that_mean_nothing_are_refused(options, named):
    world = make_world("forest refused", rows=60)
    with pytest.raises(InvalidInputError, match=named):
        fit_scores("forest", folded(world.x, world.quality), options=options)


def test_auto_leaves_the_forest_out_where_its_package_is_missing_and_says_so(monkeypatch):
    told = []
    assert by_name.comparable(told.append) == by_name.CLOSED_FORM
    monkeypatch.setattr(by_name, "trees_missing", lambda: "it needs scikit-learn: pip install it")
    assert by_name.comparable(told.append) == tuple(name for name in by_name.CLOSED_FORM if name != "forest")
    assert told == ["forest is not compared: it needs scikit-learn: pip install it"]


def test_trees_split_on_the_leading_columns_of_both_means(request):
    x, features, _, quality = make_surface(request.node.name, dim=160)
    scores = fit_scores("forest", folded(x, quality, features, head_dim=80), options=FEW)
    half = forest.LEAD // 2
    leading = {*range(half), *range(80, 80 + half)}
    columns = set(scores.tensors["tree_column"].ravel().tolist())
    assert columns <= leading | {160 + n for n in range(SURFACE)}
    assert any(80 <= column < 160 for column in columns)
    alone = fit_scores("forest", folded(x, quality, head_dim=80), options=FEW)
    assert set(alone.tensors["tree_column"].ravel().tolist()) <= leading
