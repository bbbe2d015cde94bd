from __future__ import annotations

import numpy as np
import pytest
from training_data import make_world

from ipr_engine.training.evaluate import brier
from ipr_engine.training.forms import compare_forms, winner
from ipr_engine.training.heads import fit_heads, predict
from ipr_engine.training.ridge import FORMS


@pytest.mark.parametrize("form", FORMS)
def test_heads_predict_better_than_the_mean_on_fresh_rows(request, form):
    world = make_world(request.node.name, rows=3000)
    heads = fit_heads(world.x[:2000], world.quality[:2000], world.tokens[:2000], world.keys[:2000], form=form)
    quality, _ = predict(heads.tensors, world.x[2000:])
    best_possible = brier(world.chance[2000:], world.quality[2000:])
    of_the_mean = world.quality[2000:].var(axis=0)
    assert (brier(quality, world.quality[2000:]) < (best_possible + of_the_mean) / 2).all()


def test_heads_are_calibrated_on_fresh_rows(request):
    world = make_world(request.node.name, rows=12000)
    heads = fit_heads(world.x[:4000], world.quality[:4000], world.tokens[:4000], world.keys[:4000], form="plain")
    quality, _ = predict(heads.tensors, world.x[4000:])
    # three standard errors of a mean over 4000 fitting rows with variance at most 1/4
    assert np.abs(quality.mean(axis=0) - world.quality[4000:].mean(axis=0)).max() < 3 * np.sqrt(
        0.25 / 4000 + 0.25 / 8000
    )


def test_tensors_have_the_bundles_names_shapes_and_dtype(request):
    world = make_world(request.node.name, rows=200)
    heads = fit_heads(world.x, world.quality, world.tokens, world.keys, form="advantage_shared")
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
    heads = fit_heads(world.x, world.quality, world.tokens, world.keys, form="advantage_each")
    predicted = heads.out_of_fold_quality
    assert heads.rule_constants["hi"] == pytest.approx(predicted.max(axis=1).mean())
    assert heads.rule_constants["lo"] == pytest.approx(predicted.min(axis=1).mean())


def test_copies_of_a_row_are_never_scored_by_their_twin(request):
    world = make_world(request.node.name, rows=300, twins=60)
    heads = fit_heads(world.x, world.quality, world.tokens, world.keys, form="plain")
    np.testing.assert_array_equal(heads.folds[:60], heads.folds[-60:])


@pytest.mark.parametrize("form", FORMS)
def test_same_input_same_bytes(request, form):
    world = make_world(request.node.name, rows=200)
    one, two = (fit_heads(world.x, world.quality, world.tokens, world.keys, form=form, seed=4) for _ in range(2))
    assert {name: value.tobytes() for name, value in one.tensors.items()} == {
        name: value.tobytes() for name, value in two.tensors.items()
    }
    assert one.settings == two.settings


def test_winner_is_the_form_of_greatest_area_on_the_same_folds(request):
    world = make_world(request.node.name, rows=250)
    rate = np.geomspace(1e-5, 1e-6, 5)
    cost = world.tokens * rate
    scores = compare_forms(
        world.x, world.quality, world.tokens, cost, np.zeros_like(cost), rate, world.keys, repeats=2, folds=3
    )
    assert [score.form for score in scores] == list(FORMS)
    assert winner(scores) == max(scores, key=lambda score: sum(score.area_tau)).form
