"""A new candidate beside heads with a forest: its row mixes the others' leaves as it mixes their logits; the trees stay."""

from __future__ import annotations

import numpy as np
import pytest

from ipr_engine.bundle.head_rows import of_candidates, with_row
from ipr_engine.training.add.candidate_row import fit_row
from ipr_engine.training.add.frozen_logits import added_by_trees
from ipr_engine.training.add.refresh import refresh
from ipr_engine.training.fitted_heads import HeadRows, fit_heads, predict
from tests.support import skips
from tests.support.training_data import make_world

pytest.importorskip("sklearn", reason=skips.TREES)

SURFACE = 4


@pytest.fixture(scope="module")
def given():
    """Heads with a forest, fitted on four of five candidates on the first half; the last column is the newcomer's."""
    world = make_world("forest rows", rows=1600, dim=17)
    half = slice(0, 800)
    rows = HeadRows(
        world.x[half].astype(np.float32), world.quality[half, :-1], world.tokens[half, :-1], world.keys[half],
        surface_dim=SURFACE,
    )  # fmt: skip
    heads = fit_heads(rows, estimator="forest", options={"trees": 12, "depth": 4, "caps": 8})
    return world, heads, world.x.astype(np.float32).astype(np.float64)


def test_a_row_mixes_leaves_as_it_mixes_logits(given):
    world, heads, x = given
    row = fit_row(
        heads.tensors, heads.activation, x[:300], world.quality[:300, -1], world.tokens[:300, -1], world.keys[:300]
    )
    shares = np.array(row.settings["shares"])  # rounded to 6 digits
    mixed = heads.tensors["tree_leaf"].astype(np.float64) @ shares
    np.testing.assert_allclose(row.tensors["tree_leaf"], mixed, atol=1e-5)
    grown = with_row(heads.tensors, row.tensors)
    for name, part in of_candidates(grown, range(4)).items():
        np.testing.assert_array_equal(part, heads.tensors[name])  # the others are not touched
    predicted, truth = predict(grown, x[800:], heads.activation)[0][:, -1], world.chance[800:, -1]
    constant = np.square(world.quality[:300, -1].mean() - truth).mean()
    assert np.square(predicted - truth).mean() < 0.5 * constant


def test_what_trees_add_is_what_the_definition_adds(given):
    _, heads, x = given
    bare = {name: tensor for name, tensor in heads.tensors.items() if not name.startswith("tree")}
    with_trees, without = (
        np.log(quality / (1 - quality))
        for quality in (
            predict(heads.tensors, x[:50], heads.activation)[0],
            predict(bare, x[:50, : x.shape[1] - SURFACE], heads.activation)[0],
        )
    )
    np.testing.assert_allclose(
        added_by_trees(heads.tensors, x[:50], [0, 2]), (with_trees - without)[:, [0, 2]], atol=1e-9
    )


def test_a_refresh_starts_from_the_logits_with_the_trees_and_leaves_these(given):
    pytest.importorskip("torch", reason=skips.TORCH)
    world, heads, x = given
    row = fit_row(heads.tensors, heads.activation, x[:60], world.quality[:60, -1], None, world.keys[:60]).tensors
    quality_alone = {name: tensor for name, tensor in heads.tensors.items() if not name.startswith("len_")}
    tensors = with_row(quality_alone, row)
    held = refresh(
        tensors, heads.activation, x[:800], world.quality[:800, -1], world.quality[:800, :-1], world.keys[:800],
        consistency=1000.0,
    )  # fmt: skip
    assert not any(name.startswith("tree") for name in held.tensors)
    no_tokens = {"len_skip": np.zeros((5, 13), np.float32), "len_bias": np.zeros(5, np.float32)}
    before, after = (
        predict({**part, **no_tokens}, x, heads.activation)[0] for part in (tensors, {**tensors, **held.tensors})
    )
    assert held.loss_after <= held.loss_before
    assert np.abs(after - before)[:, :-1].mean() < 0.01
    told = np.clip(before[:, -1], 1e-6, 1 - 1e-6)
    y = world.quality[:, -1]
    loss = -(y * np.log(told) + (1 - y) * np.log(1 - told)).mean()
    assert held.loss_before == pytest.approx(loss, rel=0.25)  # of the held out prompts among the first 800
