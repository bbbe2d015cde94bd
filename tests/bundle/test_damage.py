"""Each way a bundle's place and bytes can be wrong raises its own class; the message names the file and what to do."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from ipr_engine.bundle import Bundle
from ipr_engine.errors import (
    BundleError,
    BundleFormatError,
    BundleHashError,
    BundleNotFoundError,
    BundlePathError,
    InvalidInputError,
)
from tests.support.damaged_bundles import (
    CONFIG,
    HEADS,
    PRICES,
    SUPPORT,
    TABLE,
    TOKENIZER,
    Edit,
    edit_manifest,
    file_entry,
    put,
    raises,
    replace,
)


@pytest.mark.parametrize("path", [None, 3, b"bytes", "", "nul\0byte", ["a"]])
def test_what_is_no_path_is_an_invalid_input(path: object) -> None:
    raises(InvalidInputError, path, "path")


def test_a_path_that_does_not_exist_is_not_found(tmp_path: Path) -> None:
    raises(BundleNotFoundError, tmp_path / "none", "none")


def test_a_file_is_not_a_bundle(copy: Path) -> None:
    raises(BundleNotFoundError, copy / "bundle.json", "bundle.json", "a file")


def test_an_empty_folder_is_not_found(tmp_path: Path) -> None:
    raises(BundleNotFoundError, tmp_path, str(tmp_path), "bundle.json", "CURRENT")


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"garbage", b"\xff" * 64, b"A" * 64, b"0" * 65, b"0" * 64 + b"\n\n", b"../x"]
)
def test_garbage_in_current_is_a_format_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "CURRENT").write_bytes(content)
    raises(BundleFormatError, tmp_path, "CURRENT", "64 lower-case hex digits")


def test_a_folder_as_current_is_a_format_error(tmp_path: Path) -> None:
    (tmp_path / "CURRENT").mkdir()
    raises(BundleFormatError, tmp_path, "CURRENT")


def test_current_naming_a_missing_folder_is_not_found(tmp_path: Path) -> None:
    (tmp_path / "CURRENT").write_text("0" * 64 + "\n")
    raises(BundleNotFoundError, tmp_path, "CURRENT", "0" * 64)


def test_a_changed_manifest_in_a_folder_named_by_hash_is_a_hash_error(original: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(original, tmp_path / original.name))
    Bundle.load(folder)
    edit_manifest(folder, put("name", value="other"))
    raises(BundleHashError, folder, "bundle.json", original.name)


def test_a_folder_under_the_hash_of_another_bundle_is_a_hash_error(original: Path, tmp_path: Path) -> None:
    raises(BundleHashError, shutil.copytree(original, tmp_path / ("0" * 64)), "bundle.json", "0" * 64)


@pytest.mark.parametrize("relative", [HEADS, TABLE, SUPPORT, PRICES, CONFIG, TOKENIZER])
def test_one_flipped_bit_in_any_file_is_a_hash_error(copy: Path, relative: str) -> None:
    data = bytearray((copy / relative).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / relative).write_bytes(data)
    raises(BundleHashError, copy, relative, "sha256")


@pytest.mark.parametrize("relative", [HEADS, TABLE, SUPPORT, PRICES, CONFIG, TOKENIZER])
@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"\0", lambda data: b""])
def test_a_wrong_size_is_a_hash_error_that_says_both_sizes(copy: Path, relative: str, change: Edit) -> None:
    data = (copy / relative).read_bytes()
    (copy / relative).write_bytes(change(data))
    raises(BundleHashError, copy, relative, f"{len(data)} bytes", f"{len(change(data))} bytes")


@pytest.mark.parametrize("relative", ["bundle.json", HEADS, TABLE, SUPPORT, PRICES, CONFIG, TOKENIZER])
def test_a_missing_file_is_not_found(copy: Path, relative: str) -> None:
    (copy / relative).unlink()
    raises(BundleNotFoundError, copy, "bundle.json" if relative == "bundle.json" else relative)


@pytest.mark.parametrize("relative", ["bundle.json", HEADS, TABLE])
def test_a_folder_or_pipe_in_place_of_a_file_is_a_format_error(copy: Path, relative: str) -> None:
    (copy / relative).unlink()
    (copy / relative).mkdir()
    raises(BundleFormatError, copy, relative, "regular file")
    (copy / relative).rmdir()
    os.mkfifo(copy / relative)
    raises(BundleFormatError, copy, relative, "regular file")


@pytest.mark.parametrize("keep", [0, 1, 100, -3])
def test_a_truncated_manifest_is_a_format_error(copy: Path, keep: int) -> None:
    data = (copy / "bundle.json").read_bytes()
    (copy / "bundle.json").write_bytes(data[:keep])
    raises(BundleFormatError, copy, "bundle.json", "JSON")


@pytest.mark.parametrize("data", [b"[1]", b"3", b"null", b"\xff\xfe{}", b"[" * 100_000, b'{"name": 1, "name": 2}'])
def test_a_manifest_that_is_no_plain_json_object_is_a_format_error(copy: Path, data: bytes) -> None:
    (copy / "bundle.json").write_bytes(data)
    raises(BundleFormatError, copy, "bundle.json")


@pytest.mark.parametrize("relative", [HEADS, TABLE, SUPPORT])
@pytest.mark.parametrize(
    "change", [lambda d: d[:-1], lambda d: d[:20], lambda d: b"", lambda d: b"\xff" * 99, lambda d: d + b"\0"]
)
def test_a_garbled_safetensors_file_with_a_true_hash_is_a_format_error(copy: Path, relative: str, change: Edit) -> None:
    replace(copy, relative, change((copy / relative).read_bytes()))
    raises(BundleFormatError, copy, relative, "safetensors")


@pytest.mark.parametrize("relative", [PRICES, CONFIG])
def test_a_garbled_json_file_with_a_true_hash_is_a_format_error(copy: Path, relative: str) -> None:
    replace(copy, relative, (copy / relative).read_bytes()[:-5])
    raises(BundleFormatError, copy, relative, "JSON")


@pytest.mark.parametrize(
    "path", ["../outside", "heads/../../outside", "/etc/hostname", "heads/../prices.json", "./prices.json"]
)
@pytest.mark.parametrize("relative", [HEADS, TABLE, PRICES])
def test_a_path_that_is_not_plain_and_relative_is_a_path_error(copy: Path, relative: str, path: str) -> None:
    edit_manifest(copy, lambda manifest: file_entry(manifest, relative).update(path=path))
    raises(BundlePathError, copy, "bundle.json", ".path", path)


@pytest.mark.parametrize("relative", [HEADS, TABLE, PRICES])
def test_a_link_that_leaves_the_folder_is_a_path_error(copy: Path, tmp_path: Path, relative: str) -> None:
    shutil.move(copy / relative, tmp_path / "outside")
    (copy / relative).symlink_to(tmp_path / "outside")
    raises(BundlePathError, copy, relative, "outside")


def test_a_linked_folder_that_leaves_is_a_path_error(copy: Path, tmp_path: Path) -> None:
    shutil.move(copy / "heads", tmp_path / "outside")
    (copy / "heads").symlink_to(tmp_path / "outside")
    raises(BundlePathError, copy, HEADS)


def test_a_link_in_a_circle_is_a_bundle_error(copy: Path) -> None:
    (copy / PRICES).unlink()
    (copy / PRICES).symlink_to(copy / PRICES)
    with pytest.raises(BundleError, match=PRICES):
        Bundle.load(copy)


def test_a_link_inside_the_folder_is_followed(copy: Path) -> None:
    (copy / PRICES).rename(copy / "other.json")
    (copy / PRICES).symlink_to("other.json")
    assert Bundle.load(copy).prices.currency == "USD"
