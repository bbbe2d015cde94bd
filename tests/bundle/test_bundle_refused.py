"""What would not load is not written, and the error names it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ipr_engine.bundle import (
    Bundle,
    BundleParts,
    EncoderSource,
    write_bundle,
)
from ipr_engine.errors import (
    BundleError,
    BundleFormatError,
    BundleNotFoundError,
    BundleShapeError,
    BundleValueError,
    EncoderMismatchError,
    InvalidInputError,
)
from tests.support.bundles import bundle_parts, make_bundle
from tests.support.folders import files_of


@pytest.mark.parametrize(
    "name", ["../x", "/x", "a/../../x", "", ".", "bundle.json", "CURRENT", "prices.json", "a\\b", "./x"]
)
def test_an_extra_file_outside_or_on_a_taken_path_is_refused_before_anything_is_written(
    tmp_path: Path, name: str
) -> None:
    with pytest.raises(InvalidInputError, match="expected a path inside the bundle"):
        make_bundle(tmp_path, overrides={"extra_files": {name: b"x"}})
    assert not (tmp_path / "bundles").exists()


@pytest.mark.parametrize("name", ["../x", "a b", "a/b", "x\n"])
def test_an_id_that_is_no_file_name_is_refused(tmp_path: Path, name: str) -> None:
    parts = bundle_parts(tmp_path / "sources")
    parts["heads"] = [replace(parts["heads"][0], id=name)]
    with pytest.raises((InvalidInputError, BundleFormatError)):
        write_bundle(tmp_path / "bundles", BundleParts(**parts))
    assert files_of(tmp_path / "bundles") == {}


@pytest.mark.parametrize(
    ("change", "error", "named"),
    [
        ({"encoder": "other"}, EncoderMismatchError, r"heads\[0\]\.encoder"),
        ({"activation": "tanh"}, BundleFormatError, r"heads\[0\]\.activation"),
        ({"candidates": ["alpha/large"]}, BundleShapeError, "skip"),
        ({"tensors": {}}, BundleFormatError, "bias"),
        ({"tensors": {"bias": np.zeros(3)}}, BundleShapeError, "bias.*float32.*float64"),
        ({"tensors": {"bias": [0.0, 0.0, 0.0]}}, BundleShapeError, "bias.*list"),
        ({"tensors": {"bias": np.full(3, np.nan, np.float32)}}, BundleValueError, "bias"),
    ],
)
def test_heads_that_would_not_load_are_not_written(
    tmp_path: Path, change: dict[str, Any], error: type[Exception], named: str
) -> None:
    parts = bundle_parts(tmp_path / "sources")
    old = write_bundle(tmp_path / "bundles", BundleParts(**parts))
    before = files_of(old.parent)
    parts["heads"] = [replace(parts["heads"][0], **change)]
    with pytest.raises(error, match=named):
        write_bundle(tmp_path / "bundles", BundleParts(**parts))
    assert files_of(old.parent) == before
    assert sorted(path.name for path in old.parent.iterdir()) == sorted(["CURRENT", old.name])


@pytest.mark.parametrize(
    ("overrides", "error", "named"),
    [
        ({"candidates": []}, BundleFormatError, "candidates"),
        ({"created": "today"}, BundleFormatError, "created"),
        ({"provenance": {"path": Path("x")}}, InvalidInputError, r"bundle\.json"),
        ({"provenance": {"loss": float("nan")}}, BundleValueError, r"provenance\.loss"),
        ({"name": "\ud800"}, InvalidInputError, r"bundle\.json"),
        ({"extra_files": {"card": Path("none")}}, BundleNotFoundError, "none"),
    ],
)
def test_arguments_that_would_not_load_are_not_written(
    tmp_path: Path, overrides: dict[str, Any], error: type[Exception], named: str
) -> None:
    with pytest.raises(error, match=named):
        make_bundle(tmp_path, overrides=overrides)
    root = tmp_path / "bundles"
    assert not root.exists() or list(root.iterdir()) == []


def test_numpy_numbers_are_written_as_numbers(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path, overrides={"provenance": {"loss": np.float32(0.5), "steps": np.int64(3)}})
    assert dict(Bundle.load(folder).provenance) == {"loss": 0.5, "steps": 3}


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_missing_or_garbled_encoder_source_is_named(tmp_path: Path, name: str) -> None:
    parts = bundle_parts(tmp_path / "sources")
    (tmp_path / "sources" / "encoder" / name).write_text("garbage")
    with pytest.raises(BundleFormatError, match=name):
        write_bundle(tmp_path / "bundles", BundleParts(**parts))
    (tmp_path / "sources" / "encoder" / name).unlink()
    with pytest.raises(BundleNotFoundError, match=name):
        write_bundle(tmp_path / "bundles", BundleParts(**parts))
    assert not (tmp_path / "bundles").exists()


def test_two_encoders_of_one_id_are_refused(tmp_path: Path) -> None:
    parts = bundle_parts(tmp_path / "sources")
    with pytest.raises(InvalidInputError, match="static"):
        write_bundle(tmp_path / "bundles", BundleParts(**parts | {"encoders": parts["encoders"] * 2}))


def test_two_encoders_with_heads_each_share_one_table_on_disk(tmp_path: Path) -> None:
    parts = bundle_parts(tmp_path / "sources")
    short = EncoderSource.in_folder(tmp_path / "sources" / "encoder", id="short", max_tokens=32)
    parts["encoders"] = [*parts["encoders"], short]
    parts["heads"] = [*parts["heads"], replace(parts["heads"][0], id="short", encoder="short")]
    bundle = Bundle.load(write_bundle(tmp_path / "bundles", BundleParts(**parts)))
    assert [head.encoder for head in bundle.heads] == ["static", "short"]
    assert bundle.encoders[0].identity != bundle.encoders[1].identity
    assert bundle.encoders[0].files["table"].samefile(bundle.encoders[1].files["table"])


def test_a_bundle_folder_is_no_root(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path)
    parts = bundle_parts(tmp_path / "sources")
    for root in (folder, folder / "bundle.json"):
        with pytest.raises(InvalidInputError, match="root"):
            write_bundle(root, BundleParts(**parts))


def test_a_damaged_folder_in_the_way_is_named(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path)
    (folder / "prices.json").write_text("{}")
    with pytest.raises(BundleError, match=f"delete {folder}"):
        make_bundle(tmp_path)


def test_hashes_under_a_key_are_of_schema_version_5_and_name_it(tmp_path):
    parts = bundle_parts(tmp_path / "sources", models=3)
    hashes = {name: np.arange(3, dtype=np.uint64) for name in ("texts", "questions")}
    [head] = parts["heads"]
    for key, version in ((None, 2), ("0123456789abcdef", 5)):
        keyed = replace(head, prompt_hashes=hashes, fitted_on=replace(head.fitted_on, hash_key=key))
        folder = write_bundle(tmp_path / "root", BundleParts(**{**parts, "heads": [keyed]}))
        manifest = json.loads((folder / "bundle.json").read_text())
        assert manifest["schema_version"] == version
        assert ("hash_key" in manifest["heads"][0]["fitted_on"]) == (key is not None)
        assert Bundle.load(folder).quality_heads.fitted_on.hash_key == key
    lying = replace(head, fitted_on=replace(head.fitted_on, hash_key="0123456789abcdef"))
    with pytest.raises(BundleFormatError, match="hash_key: expected no key where prompt_hashes is null"):
        write_bundle(tmp_path / "root", BundleParts(**{**parts, "heads": [lying]}))
