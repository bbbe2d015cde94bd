"""Path rows in a bundle: read as written, refused where wrong, and carried through every edit of the bundle."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save

import ipr_engine
from ipr_engine import Engine
from ipr_engine.bundle import (
    Bundle,
    BundleParts,
    Candidate,
    Price,
    heads_sha256,
    with_calibrations,
    with_extra_files,
    with_prices,
    write_bundle,
)
from ipr_engine.bundle.edit import NewCandidate, Refit, with_candidate, without_candidate
from ipr_engine.errors import (
    BundleError,
    BundleFormatError,
    BundleHashError,
    BundleShapeError,
    BundleValueError,
    PathMismatchError,
)
from tests.support.bundles import bundle_parts, make_bundle, make_candidates, make_prices
from tests.support.path_rows import assert_equal_rows, make_path_bundle, make_path_rows, with_path_rows

PATH = "path.safetensors"
NEW = Candidate(name="beta/new", family="beta", provider="test")
PRICE = Price(input_usd_per_1m=1.0, output_usd_per_1m=2.0, basis="made up")


def manifest_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "bundle.json").read_text())


def new_rows(bundle: Bundle) -> dict[str, np.ndarray]:
    return {name: np.full(t.shape[1:], 0.25, np.float32) for name, t in bundle.quality_heads.tensors.items()}


@pytest.mark.parametrize("rows", [1, 7, 4096])
@pytest.mark.parametrize("models", [1, 3, 11])
def test_path_rows_are_read_as_they_were_written(tmp_path: Path, rows: int, models: int) -> None:
    parts = with_path_rows(bundle_parts(tmp_path / "sources", models=models), rows=rows)
    folder = write_bundle(tmp_path / "bundles", BundleParts(**parts))
    bundle = Bundle.load(folder)
    assert manifest_of(folder)["schema_version"] == 5
    assert_equal_rows(bundle.path_rows, parts["path_rows"])
    assert bundle.path_rows.heads == (bundle.quality_heads.sha256,)
    assert not bundle.path_rows.tokens_out.flags.writeable


def test_path_rows_of_eleven_candidates_are_at_most_243_kb(tmp_path: Path) -> None:
    folder = make_path_bundle(tmp_path, models=11, rows=4096).path
    assert (folder / PATH).stat().st_size <= 243_000


def test_a_bundle_without_path_rows_is_not_written_as_version_5(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path)
    assert manifest_of(folder)["schema_version"] == 1
    assert "path_rows" not in manifest_of(folder)
    assert Bundle.load(folder).path_rows is None


def test_a_version_5_without_path_rows_loads(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(make_path_bundle(tmp_path).path, tmp_path / "copy"))
    (folder / "bundle.json").write_text(json.dumps({**manifest_of(folder), "path_rows": None}))
    assert Bundle.load(folder).path_rows is None


def test_the_key_is_refused_in_earlier_versions_and_required_in_version_5(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(make_path_bundle(tmp_path).path, tmp_path / "copy"))
    manifest = manifest_of(folder)
    (folder / "bundle.json").write_text(json.dumps({**manifest, "schema_version": 4}))
    with pytest.raises(BundleFormatError, match="path_rows"):
        Bundle.load(folder)
    del manifest["path_rows"]
    (folder / "bundle.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleFormatError, match="path_rows: expected this key"):
        Bundle.load(folder)


def test_the_file_holds_arrays_and_nothing_else(tmp_path: Path) -> None:
    file = make_path_bundle(tmp_path).path / PATH
    assert sorted(load_file(file)) == ["billed_tokens", "outcome", "quality", "tokens_out"]
    header = json.loads(file.read_bytes()[8 : 8 + int.from_bytes(file.read_bytes()[:8], "little")])
    assert "__metadata__" not in header


def test_long_answers_are_held_and_are_no_infinity(tmp_path: Path) -> None:
    parts = bundle_parts(tmp_path / "sources")
    rows = make_path_rows([c.name for c in parts["candidates"]])
    long = replace(rows, tokens_out=np.full_like(rows.tokens_out, 131_072.0))
    bundle = Bundle.load(write_bundle(tmp_path / "bundles", BundleParts(**with_path_rows(parts, long))))
    assert (bundle.path_rows.tokens_out == 131_072.0).all()


def test_the_default_bundle_has_rows_of_every_candidate() -> None:
    bundle = Bundle.load(Path(ipr_engine.__file__).parent / "default_bundle")
    rows = bundle.path_rows
    assert rows.candidates == bundle.names
    assert len(rows.quality) == bundle.quality_heads.fitted_on.prompts
    realised, predicted = rows.realised(), rows.quality.astype(np.float64)
    np.testing.assert_allclose(np.nanmean(realised, axis=0), predicted.mean(axis=0), atol=0.01)  # calibrated


# -- what is wrong


def edited(folder: Path, edit: Callable[[dict[str, np.ndarray]], Any]) -> None:
    """Put other arrays in, and state their true size and hash: what is left is a fault of the content."""
    arrays = dict(load_file(folder / PATH))
    edit(arrays)
    data = save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
    (folder / PATH).write_bytes(data)
    manifest = manifest_of(folder)
    manifest["path_rows"]["arrays"].update(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))
    (folder / "bundle.json").write_text(json.dumps(manifest))


def put(name: str, value: float) -> Callable[[dict[str, np.ndarray]], Any]:
    def edit(arrays: dict[str, np.ndarray]) -> None:
        array = arrays[name].copy()
        array.reshape(-1)[3] = value
        arrays[name] = array

    return edit


def each(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[dict[str, np.ndarray]], Any]:
    return lambda arrays: arrays.update({name: change(array) for name, array in arrays.items()})


WRONG = [
    (put("quality", np.nan), BundleValueError, ("quality[1, 0]", "finite")),
    (put("quality", np.inf), BundleValueError, ("quality[1, 0]", "finite")),
    (put("quality", 1.001), BundleValueError, ("quality", "<= 1")),
    (put("quality", -0.25), BundleValueError, ("quality", ">= 0")),
    (put("tokens_out", np.inf), BundleValueError, ("tokens_out[1, 0]", "finite")),
    (put("tokens_out", -1), BundleValueError, ("tokens_out", ">= 0")),
    (lambda a: a.update(quality=a["quality"].astype(np.float32)), BundleShapeError, ("quality", "dtype F16", "F32")),
    (lambda a: a.update(outcome=a["outcome"].astype(np.float16)), BundleShapeError, ("outcome", "dtype U8")),
    (lambda a: a.update(outcome=a["outcome"][:-1]), BundleShapeError, ("outcome", "rows")),
    (lambda a: a.update(tokens_out=a["tokens_out"][:, :-1]), BundleShapeError, ("tokens_out", "models")),
    (lambda a: a.update(billed_tokens=a["billed_tokens"][:, None]), BundleShapeError, ("billed_tokens", "rows")),
    (lambda a: a.update(quality=a["quality"].ravel()), BundleShapeError, ("quality",)),
    (each(lambda a: a[:0]), BundleShapeError, ("quality", "1 to 4096 rows", "0 rows")),
    (each(lambda a: np.repeat(a, 1400, axis=0)), BundleShapeError, ("quality", "1 to 4096 rows", "4200 rows")),
    (lambda a: a.pop("outcome"), BundleShapeError, ("outcome", "this tensor")),
    (lambda a: a.update(again_quality=a["quality"]), BundleShapeError, ("again_quality", "no such tensor")),
    (lambda a: a.update(prompt_ids=a["outcome"]), BundleFormatError, ("prompt_ids", "unknown tensor")),
]


@pytest.mark.parametrize(("edit", "error", "named"), WRONG)
def test_each_fault_of_the_arrays_names_the_array(
    tmp_path: Path, edit: Callable[..., Any], error: type[BundleError], named: tuple[str, ...]
) -> None:
    folder = Path(shutil.copytree(make_path_bundle(tmp_path, rows=3).path, tmp_path / "copy"))
    edited(folder, edit)
    with pytest.raises(error) as caught:
        Bundle.load(folder)
    assert type(caught.value) is error
    for part in (PATH, *named, "expected", "got", "; "):
        assert part in str(caught.value)


ENTRIES = [
    ({"heads": ["0" * 64]}, PathMismatchError, ("path_rows.heads", "heads that decide", "ipr train")),
    ({"heads": []}, BundleFormatError, ("path_rows.heads",)),
    ({"heads": ["short"]}, BundleFormatError, ("path_rows.heads[0]",)),
    ({"candidates": []}, BundleFormatError, ("path_rows.candidates",)),
    ({"candidates": ["nobody"]}, BundleFormatError, ("path_rows.candidates[0]", "nobody")),
    ({"candidates": ["beta/mid", "alpha/large", "gamma/small"]}, BundleFormatError, ("path_rows.candidates", "order")),
    ({"candidates": ["alpha/large"] * 2}, BundleFormatError, ("path_rows.candidates", "twice|second time")),
    ({"candidates": ["alpha/large", "beta/mid"]}, BundleShapeError, ("quality", "models")),
    ({"prompts": []}, BundleFormatError, ("path_rows.prompts", "unknown key")),
]


@pytest.mark.parametrize(("change", "error", "named"), ENTRIES)
def test_each_fault_of_the_entry_names_the_field(
    tmp_path: Path, change: dict[str, Any], error: type[BundleError], named: tuple[str, ...]
) -> None:
    folder = Path(shutil.copytree(make_path_bundle(tmp_path).path, tmp_path / "copy"))
    manifest = manifest_of(folder)
    manifest["path_rows"].update(change)
    (folder / "bundle.json").write_text(json.dumps(manifest))
    with pytest.raises(error) as caught:
        Bundle.load(folder)
    assert type(caught.value) is error
    assert all(any(word in str(caught.value) for word in part.split("|")) for part in named), str(caught.value)


def test_a_damaged_file_is_a_hash_error(tmp_path: Path) -> None:
    folder = make_path_bundle(tmp_path).path
    data = bytearray((folder / PATH).read_bytes())
    data[-1] ^= 1
    (folder / PATH).write_bytes(data)
    with pytest.raises(BundleHashError, match=PATH):
        Bundle.load(folder)


def test_path_rows_of_other_heads_are_refused_and_nothing_is_left_behind(tmp_path: Path) -> None:
    parts = with_path_rows(bundle_parts(tmp_path / "sources"))
    other = bundle_parts(tmp_path / "others", seed=1)["heads"]
    with pytest.raises(PathMismatchError, match="path_rows"):
        write_bundle(tmp_path / "bundles", BundleParts(**{**parts, "heads": other}))
    assert not list((tmp_path / "bundles").iterdir())


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda r: replace(r, quality=r.quality.astype(np.float64)), BundleShapeError),
        (lambda r: replace(r, tokens_out=r.tokens_out.astype(np.float64)), BundleShapeError),
        (lambda r: replace(r, outcome=r.outcome / 254), BundleShapeError),
        (lambda r: replace(r, tokens_out=r.tokens_out + np.float32(1e7)), BundleValueError),
        (lambda r: replace(r, quality=r.quality + np.float16(1)), BundleValueError),
        (lambda r: replace(r, candidates=r.candidates[:-1]), BundleShapeError),
    ],
)
def test_arrays_that_cannot_be_kept_are_refused_by_name(tmp_path: Path, change: Any, error: type[BundleError]) -> None:
    parts = with_path_rows(bundle_parts(tmp_path / "sources"))
    with pytest.raises(error, match="path"):
        write_bundle(tmp_path / "bundles", BundleParts(**{**parts, "path_rows": change(parts["path_rows"])}))


# -- carried


def test_new_prices_extra_files_and_calibrations_leave_the_path_rows(tmp_path: Path) -> None:
    bundle = make_path_bundle(tmp_path)
    made = [
        with_prices(bundle, make_prices(make_candidates(3), scale=2.0)),
        with_extra_files(bundle, {"MODEL_CARD.md": b"a card"}),
        with_calibrations(bundle, []),
    ]
    for folder in made:
        after = Bundle.load(folder)
        assert after.path_rows.heads == (after.quality_heads.sha256,)
        assert_equal_rows(after.path_rows, bundle.path_rows)
        assert (folder / PATH).stat().st_ino == (bundle.path / PATH).stat().st_ino  # shared


@pytest.mark.parametrize("gone", [0, 1, 2])
def test_a_candidate_removed_takes_its_column_along(tmp_path: Path, gone: int) -> None:
    bundle = make_path_bundle(tmp_path)
    left = [name for name in bundle.names if name != bundle.names[gone]]
    after = Bundle.load(without_candidate(bundle, bundle.names[gone]))
    assert after.path_rows.heads == (after.quality_heads.sha256,) != bundle.path_rows.heads
    assert_equal_rows(after.path_rows, bundle.path_rows.of(left))


def test_a_candidate_added_has_no_column_and_the_others_keep_theirs(tmp_path: Path) -> None:
    bundle = make_path_bundle(tmp_path)
    grown = Bundle.load(
        with_candidate(bundle, NewCandidate(candidate=NEW, price=PRICE, rows=new_rows(bundle), note={}))
    )
    assert_equal_rows(grown.path_rows, bundle.path_rows)
    assert grown.path_rows.heads == (grown.quality_heads.sha256,)
    assert grown.path_rows.without_rows(grown.names) == ("beta/new",)
    back = Bundle.load(without_candidate(grown, "beta/new"))
    assert back.path_rows.without_rows(back.names) == ()
    assert back.path_rows.heads == bundle.path_rows.heads


def test_the_last_candidate_with_a_column_takes_the_rows_along(tmp_path: Path) -> None:
    bundle = make_path_bundle(tmp_path, models=1)
    grown = Bundle.load(
        with_candidate(bundle, NewCandidate(candidate=NEW, price=PRICE, rows=new_rows(bundle), note={}))
    )
    left = without_candidate(grown, bundle.names[0])
    assert Bundle.load(left).path_rows is None
    assert manifest_of(left)["path_rows"] is None
    assert not (left / PATH).exists()


def test_rows_given_with_a_candidate_replace_the_old_ones(tmp_path: Path) -> None:
    bundle = make_path_bundle(tmp_path)
    rows = make_path_rows((*bundle.names, NEW.name), rows=9, seed=5)
    grown = Bundle.load(
        with_candidate(
            bundle, NewCandidate(candidate=NEW, price=PRICE, rows=new_rows(bundle), note={}), Refit(path_rows=rows)
        )
    )
    assert_equal_rows(grown.path_rows, rows)


def test_heads_that_changed_keep_no_rows(tmp_path: Path) -> None:
    bundle = make_path_bundle(tmp_path)
    moved = {name: tensor + np.float32(0.5) for name, tensor in bundle.quality_heads.tensors.items()}
    folder = with_candidate(
        bundle, NewCandidate(candidate=NEW, price=PRICE, rows=new_rows(bundle), note={}), Refit(tensors=moved)
    )
    assert Bundle.load(folder).path_rows is None


def test_an_edit_of_a_bundle_without_rows_adds_none(tmp_path: Path) -> None:
    bundle = Bundle.load(make_bundle(tmp_path))
    for folder in (
        with_candidate(bundle, NewCandidate(candidate=NEW, price=PRICE, rows=new_rows(bundle), note={})),
        without_candidate(bundle, "beta/mid"),
    ):
        assert Bundle.load(folder).path_rows is None
        assert manifest_of(folder)["schema_version"] == 1


def test_decisions_by_the_old_rules_do_not_read_the_rows(tmp_path: Path) -> None:
    parts = bundle_parts(tmp_path / "sources")
    with_rows = Engine.load(write_bundle(tmp_path / "with", BundleParts(**with_path_rows(parts))))
    without = Engine.load(write_bundle(tmp_path / "without", BundleParts(**parts)))
    a, b = (engine.route("write python code", tau=0.3, rule="minmax") for engine in (with_rows, without))
    assert a.model == b.model
    assert a.qualities.tobytes() == b.qualities.tobytes()


def test_the_hash_of_heads_is_that_of_their_file(tmp_path: Path) -> None:
    parts = bundle_parts(tmp_path / "sources", hidden=6, rank=2)
    bundle = Bundle.load(write_bundle(tmp_path / "bundles", BundleParts(**parts)))
    assert heads_sha256(parts["heads"][0]) == bundle.quality_heads.sha256
