"""Heads fitted on copies of prompts written otherwise: what copies are, that they weigh no more, and that decisions heed edits less."""

import json
from dataclasses import replace

import numpy as np
import pytest

from ipr_engine import Engine
from ipr_engine.bundle import Bundle
from ipr_engine.cli import main
from ipr_engine.data import load_outcomes
from ipr_engine.data.prompt_edits import EDITS, written_otherwise
from ipr_engine.errors import InvalidInputError
from ipr_engine.training.estimators import forest
from ipr_engine.training.estimators.forest import ForestOptions, grow
from ipr_engine.training.fitted_heads import FitRows, HeadRows, fit_heads, predict
from ipr_engine.training.train_options import FitOptions
from tests.support import skips
from tests.support.evaluation_data import evaluate_engine
from tests.support.training_data import make_world, write_source

for module in ("pyarrow", "sklearn", "threadpoolctl"):
    pytest.importorskip(module, reason=skips.TRAIN)

MODELS = ["large", "middle", "small"]
PROMPTS = ["write a story about python", "what is the code", "prove it", "explain how to write and why"]


def rows_of(*seed, otherwise=(), surface_dim=0, rows=300):
    world = make_world(*seed, rows=rows, dim=7, models=3)
    return HeadRows(
        world.x, world.quality, world.tokens, world.keys, surface_dim=surface_dim, otherwise=tuple(otherwise)
    )


def test_copies_are_the_same_for_one_seed_and_say_nothing_that_fits_are_judged_by():
    prompts = [f"{PROMPTS[i % 4]} {i} with some words behind it" for i in range(200)]
    copies = written_otherwise(prompts, 2, seed=3)
    assert copies == written_otherwise(prompts, 2, seed=3)
    assert copies != written_otherwise(prompts, 2, seed=4)
    assert [len(copy) for copy in copies] == [200, 200]
    said = EDITS["politeness"]("|").split("|")
    assert not any(part.strip() in text for copy in copies for text in copy for part in said)
    assert np.mean([text != prompt for text, prompt in zip(copies[0], prompts, strict=True)]) > 0.5
    assert written_otherwise(prompts, 0, seed=3) == []


def test_rows_and_their_copies_are_taken_cut_and_unrolled_together(request):
    x = make_world(request.node.name, rows=300, dim=7).x
    rows = rows_of(request.node.name, otherwise=[x + 1, x + 2], surface_dim=2)
    part = rows.take(np.arange(300) < 100)
    assert [one.shape for one in (part.x, *part.otherwise)] == [(100, 7)] * 3
    bare = part.without_surface()
    assert [one.shape for one in (bare.x, *bare.otherwise)] == [(100, 5)] * 3
    whole = part.unrolled()
    assert (whole.copies, len(whole.keys), whole.otherwise) == (3, 300, ())
    np.testing.assert_array_equal(whole.x[100:200], part.otherwise[0])
    np.testing.assert_array_equal(whole.quality[200:], part.quality)
    assert bare.unrolled().surface_dim == 0
    assert rows_of(request.node.name).unrolled().copies == 1


@pytest.mark.parametrize("estimator", ["plain", "advantage_shared"])
def test_copies_that_are_the_prompts_change_no_ridge(request, estimator):
    plain = rows_of(request.node.name, rows=400)
    one, two = (
        fit_heads(rows, estimator=estimator)
        for rows in (plain, rows_of(request.node.name, rows=400, otherwise=[plain.x]))
    )
    assert two.out_of_fold_quality.shape == two.out_of_fold_tokens.shape == (400, 3)
    np.testing.assert_array_equal(one.folds, two.folds)
    assert np.abs(one.out_of_fold_quality - two.out_of_fold_quality).max() < 0.06  # a penalty is one of a grid


@pytest.mark.parametrize("estimator", ["plain", "caps"])
def test_copies_add_no_evidence_to_the_maps_of_sparse_candidates(request, estimator):
    plain = rows_of(request.node.name, rows=400)
    out = np.random.default_rng(0).random(plain.quality.shape) < 0.6
    plain.quality[out & ~out.all(axis=1, keepdims=True)] = np.nan  # so their maps are held near one of all
    apart = []
    for rows in (plain, replace(plain, otherwise=(plain.x,) * 3)):
        slope = fit_heads(rows, estimator=estimator).settings["platt_slope"]
        apart.append(np.ptp(slope) / np.mean(slope))
    assert apart[1] == pytest.approx(apart[0], rel=0.2)  # a penalty is one of a grid


def test_copies_that_are_the_prompts_change_no_tree(request):
    z = rows_of(request.node.name).x.astype(np.float32)
    quality = rows_of(request.node.name).quality
    one = grow(z, quality, quality, ForestOptions(trees=4), seed=0)
    two = grow(np.tile(z, (3, 1)), *[np.tile(quality, (3, 1))] * 2, ForestOptions(trees=4), seed=0, copies=3)
    np.testing.assert_array_equal(one.column, two.column)
    np.testing.assert_allclose(one.leaf, two.leaf, atol=1e-6)


def test_trees_are_grown_on_whole_prompts_where_these_are_too_many(request, monkeypatch):
    plain, grown = rows_of(request.node.name, rows=400), []
    for copies in (1, 3):
        monkeypatch.setattr(forest, "MOST_ROWS", 100 * copies)
        rows = rows_of(request.node.name, rows=400, otherwise=[plain.x] * (copies - 1))
        grown.append(fit_heads(rows, estimator="forest", options={"trees": 4}).tensors)
    for name in ("tree_column", "tree_threshold"):
        np.testing.assert_array_equal(grown[0][name], grown[1][name])


def test_heads_heed_less_what_the_copies_have_and_outcomes_do_not_depend_on(request):
    plain = rows_of(request.node.name)
    shift = np.random.default_rng(1).standard_normal(7)
    shifted = plain.x + shift / np.linalg.norm(shift)
    moved = []
    for rows in (plain, rows_of(request.node.name, otherwise=[shifted])):
        tensors = fit_heads(rows, estimator="plain").tensors
        moved.append(np.abs(predict(tensors, shifted)[0] - predict(tensors, plain.x)[0]).mean())
    assert moved[1] < 0.5 * moved[0]


def test_copies_share_the_fold_of_their_prompt(request):
    x = make_world(request.node.name, rows=300, dim=7).x
    folds = FitRows(rows_of(request.node.name, otherwise=[x]), 5, 0).fold_of_row
    np.testing.assert_array_equal(folds[:300], folds[300:])


@pytest.mark.parametrize("augment", [-1, 9, 1.0, True])
def test_a_number_of_copies_out_of_range_is_refused(augment):
    with pytest.raises(InvalidInputError, match="augment: expected an int from 0 to 8"):
        FitOptions(augment=augment)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("augment")
    write_source(folder / "made", MODELS, PROMPTS, rows_per_split=120)
    one = {"family": "f", "provider": "p", "input_usd_per_1m": 1.0}
    rows = [{**one, "name": name, "output_usd_per_1m": 3.0 - at} for at, name in enumerate(MODELS)]
    (folder / "candidates.json").write_text(json.dumps({"date": "2026-01-01", "candidates": rows}))
    return folder


@pytest.fixture(scope="module")
def bundles(work):
    """Return the bundle roots by how many copies they were fitted on; the surface features are read by the forest."""
    made = {}
    for copies in (0, 2):
        out = work / f"bundles{copies}"
        arguments = ["train", "--outcomes", work / "made", "--candidates", work / "candidates.json", "--out", out]
        arguments += ["--encoder", "default", "--encoder", "surface", "--estimator", "forest", "--option", "trees=5"]
        arguments += ["--augment", copies, "--allow-constant", "--no-standing", "--created", "2026-01-01"]
        assert main([str(argument) for argument in arguments]) == 0
        made[copies] = out
    return made


def test_the_bundle_says_on_how_many_copies_it_was_fitted(bundles):
    found = {copies: Engine.load(root).bundle.provenance for copies, root in bundles.items()}
    assert found[2]["augment"] == 2
    assert "augment" not in found[0]
    assert found[2]["settings"]["leaf"] == found[0]["settings"]["leaf"] == 8


def test_a_recipe_judged_by_folds_is_fitted_on_as_many_copies(work, bundles):
    told = []
    figures = evaluate_engine(
        Engine.load(bundles[2]), load_outcomes(work / "made"), cross_fit=True, draws=3, progress=told.append
    ).figures
    assert "augment 2" in figures["about"]["judged"]
    assert any("2 copies of every prompt" in line for line in told)
    assert Bundle.load(bundles[2]).provenance["augment"] == 2
