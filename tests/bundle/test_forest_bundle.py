"""A bundle whose heads have a forest: what its file holds, which schema_version, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ipr_engine import Engine
from ipr_engine.bundle import Bundle, BundleParts, with_prices, write_bundle
from ipr_engine.bundle.edit import without_candidate
from ipr_engine.bundle.fitted_entries import heads_sha256
from ipr_engine.bundle.head_rows import FOREST, mean_row, of_candidates, row_of, with_row
from ipr_engine.decide.contract import available_isas
from ipr_engine.errors import BundleFormatError, BundleShapeError, BundleValueError
from tests.support.bundles import bundle_parts, make_bundle, make_candidates, make_prices, make_tensors
from tests.support.damaged_bundles import HEADS, edit_manifest, edit_tensors, raises
from tests.support.decide_requests import bytes_of
from tests.support.two_tier_bundles import join, make_tiers

MODELS, TREES = 4, 6
PROMPTS = ["what is the story", "write code", "prove it", "is it", "why", "explain python to the story of the code"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("forest"), models=MODELS, trees=TREES)


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def version(folder: Path) -> int:
    return int(json.loads((folder / "bundle.json").read_text())["schema_version"])


def test_a_forest_is_read_back_as_it_was_written(folder, tmp_path):
    expected = make_tensors(models=MODELS, dim=16, trees=TREES)
    read = Bundle.load(folder).quality_heads
    assert sorted(read.tensors) == sorted(expected)
    for name, tensor in expected.items():
        assert read.tensors[name].dtype == tensor.dtype
        np.testing.assert_array_equal(read.tensors[name], tensor)
    source = bundle_parts(tmp_path, models=MODELS, trees=TREES)["heads"][0]
    assert heads_sha256(source) == read.sha256


def test_only_bundles_with_a_forest_are_of_version_8(folder, tmp_path):
    assert version(folder) == 8
    assert version(make_bundle(tmp_path / "flat", models=MODELS)) < 8
    assert version(with_prices(folder, make_prices(make_candidates(MODELS), scale=2), root=tmp_path / "dearer")) == 8
    assert version(without_candidate(Bundle.load(folder), "beta/mid", root=tmp_path / "fewer")) == 8


def test_a_forest_in_an_earlier_version_is_refused(copy):
    edit_manifest(copy, lambda manifest: manifest.update(schema_version=7))
    raises(BundleFormatError, copy, HEADS, "tree_column", "schema_version 8")


@pytest.mark.parametrize("isa", available_isas())
def test_it_decides_as_the_default_instruction_set_does_and_as_another_order_of_rows(folder, tmp_path, isa):
    engine = Engine.load(folder, isa=isa)
    assert bytes_of(engine.route_many(PROMPTS, tau=0.3).result) == bytes_of(
        Engine.load(folder).route_many(PROMPTS, tau=0.3).result
    )
    parts = bundle_parts(tmp_path / "sources", models=MODELS, trees=TREES)
    (head,) = parts["heads"]
    turned = [3, 1, 0, 2]
    head = replace(
        head, candidates=[head.candidates[row] for row in turned], tensors=of_candidates(head.tensors, turned)
    )
    other = Engine.load(write_bundle(tmp_path / "bundles", BundleParts(**{**parts, "heads": [head]})), isa=isa)
    assert bytes_of(other.route_many(PROMPTS, tau=0.3).result) == bytes_of(engine.route_many(PROMPTS, tau=0.3).result)
    names = other.bundle.names
    assert other.bundle.heads_key(names) == engine.bundle.heads_key(names)


def test_the_heads_key_of_a_set_depends_on_its_leaves_alone(folder, tmp_path):
    """Other candidates' leaves do not enter, the nodes do: calibrations of a set hold while others come and go."""
    parts = bundle_parts(tmp_path / "sources", models=MODELS, trees=TREES)
    names = [candidate.name for candidate in parts["candidates"]]
    (head,) = parts["heads"]

    def key(root: str, **changed: np.ndarray) -> str:
        heads = [replace(head, tensors={**head.tensors, **changed})]
        made = Bundle.load(write_bundle(tmp_path / root, BundleParts(**{**parts, "heads": heads})))
        return made.heads_key(names[:2])

    leaf, column = head.tensors["tree_leaf"], head.tensors["tree_column"]
    plain = Bundle.load(folder).heads_key(names[:2])
    moved = [leaf.copy(), leaf.copy()]
    moved[0][..., 3] += 1
    moved[1][..., 0] += 1
    assert key("others", tree_leaf=moved[0]) == plain
    assert key("own", tree_leaf=moved[1]) != plain
    assert key("nodes", tree_column=(column + 1) % 16) != plain


def test_two_tiers_carry_a_forest(tmp_path):
    _, second = make_tiers(tmp_path, models=MODELS)
    parts = bundle_parts(tmp_path / "sources", models=MODELS, trees=TREES)
    forest = Bundle.load(write_bundle(tmp_path / "forest", BundleParts(**parts)))
    both = join(tmp_path / "both", (forest, second), gap=0.05)
    for name, tensor in forest.quality_heads.tensors.items():
        np.testing.assert_array_equal(both.quality_heads.tensors[name], tensor)
    engine = Engine(both)
    assert engine.route_many(PROMPTS, tau=0.3, on_error="status").result.index.shape == (len(PROMPTS),)


def test_rows_of_a_forest_are_its_last_axis():
    tensors = make_tensors(models=MODELS, dim=16, trees=TREES, hidden=3)
    row = row_of(tensors, 2)
    assert not {"trunk", "tree_column", "tree_threshold"} & set(row)
    np.testing.assert_array_equal(row["tree_leaf"], tensors["tree_leaf"][:, :, 2])
    grown = with_row(of_candidates(tensors, [0, 1]), row)
    for name, part in of_candidates(tensors, [0, 1, 2]).items():
        np.testing.assert_array_equal(grown[name], part)
    for name, part in mean_row(tensors, [2]).items():
        np.testing.assert_array_equal(part, row[name])
    mean = tensors["tree_leaf"][:, :, :2].astype(np.float64).mean(axis=-1).astype(np.float32)
    np.testing.assert_array_equal(mean_row(tensors, [0, 1])["tree_leaf"], mean)


@pytest.mark.parametrize("name", FOREST)
def test_part_of_a_forest_is_refused(copy, name):
    edit_tensors(copy, HEADS, lambda tensors: tensors.pop(name))
    raises(BundleFormatError, copy, HEADS, f": {name}", "missing")


def changed(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[dict[str, np.ndarray]], None]:
    return lambda tensors: tensors.update({name: change(tensors[name])})


@pytest.mark.parametrize(
    ("edit", "error", "named"),
    [
        (changed("tree_column", lambda t: t.astype(np.float32)), BundleShapeError, "I32"),
        (changed("tree_column", lambda t: t + 16), BundleValueError, "columns of x, 0 to 15"),
        (changed("tree_column", lambda t: t - 16), BundleValueError, "columns of x, 0 to 15"),
        (changed("tree_column", lambda t: t[:-1]), BundleShapeError, "shape"),
        (changed("tree_threshold", lambda t: t * np.nan), BundleValueError, "numbers or infinity"),
        (changed("tree_threshold", lambda t: t[:, :-1]), BundleShapeError, "shape"),
        (changed("tree_leaf", lambda t: t * np.inf), BundleValueError, "finite"),
        (changed("tree_leaf", lambda t: t[:, :, :-1]), BundleShapeError, "shape"),
        (changed("tree_leaf", lambda t: t[:, :4]), BundleShapeError, "2^depth leaves"),
        (changed("tree_leaf", lambda t: np.concatenate([t, t[:, :4]], axis=1)), BundleShapeError, "2^depth leaves"),
    ],
)
def test_each_fault_of_a_forest_names_the_tensor(copy, edit, error, named):
    edit_tensors(copy, HEADS, edit)
    raises(error, copy, HEADS, named)


def test_too_many_trees_are_refused(copy):
    edit_tensors(
        copy, HEADS, lambda tensors: tensors.update({name: np.repeat(tensors[name], 200, axis=0) for name in FOREST})
    )
    raises(BundleShapeError, copy, HEADS, "1 to 1024 trees")
