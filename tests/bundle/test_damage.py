"""Each way a bundle can be wrong raises its own class, and the message names the file, the field and what to do."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save

from ipr_engine.bundle import Bundle
from ipr_engine.errors import (
    BundleError,
    BundleFormatError,
    BundleHashError,
    BundleNotFoundError,
    BundlePathError,
    BundleShapeError,
    BundleValueError,
    BundleVersionError,
    EncoderMismatchError,
    InvalidInputError,
)
from tests.support.bundles import make_bundle

HEADS, TABLE, SUPPORT, PRICES = (
    "heads/static.safetensors",
    "encoders/static/model.safetensors",
    "support.safetensors",
    "prices.json",
)
CONFIG, TOKENIZER = "encoders/static/config.json", "encoders/static/tokenizer.json"
Edit = Callable[[Any], Any]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("original"), hidden=6, rank=2, table_rows=30, table_weights=True)


@pytest.fixture
def copy(original: Path, tmp_path: Path) -> Path:
    """A copy under another name: its own hash is free, everything inside is verified."""
    return Path(shutil.copytree(original, tmp_path / "copy"))


def file_entry(manifest: dict[str, Any], relative: str) -> dict[str, Any]:
    return {
        HEADS: manifest["heads"][0]["weights"],
        PRICES: manifest["prices"],
        SUPPORT: manifest["support"]["weights"],
        TABLE: manifest["encoders"][0]["files"]["table"],
        CONFIG: manifest["encoders"][0]["files"]["config"],
        TOKENIZER: manifest["encoders"][0]["files"]["tokenizer"],
    }[relative]


def edit_manifest(folder: Path, edit: Edit) -> None:
    manifest = json.loads((folder / "bundle.json").read_text())
    edit(manifest)
    (folder / "bundle.json").write_text(json.dumps(manifest))


def replace(folder: Path, relative: str, data: bytes) -> None:
    """Put other bytes in, and state their true size and hash: what is left is a fault of the content."""
    (folder / relative).write_bytes(data)
    stated = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    edit_manifest(folder, lambda manifest: file_entry(manifest, relative).update(stated))


def edit_json(folder: Path, relative: str, edit: Edit) -> None:
    document = json.loads((folder / relative).read_text())
    edit(document)
    replace(folder, relative, json.dumps(document).encode())


def edit_tensors(folder: Path, relative: str, edit: Edit) -> None:
    tensors = load_file(folder / relative)
    edit(tensors)
    replace(folder, relative, save({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}))


def raises(error: type[Exception], path: object, *named: str) -> None:
    with pytest.raises(error) as caught:
        Bundle.load(path)  # type: ignore[arg-type]
    message = str(caught.value)
    assert type(caught.value) is error, message
    for part in (*named, "expected", "got", "; "):
        assert part in message, f"{part!r} is not in {message!r}"


def put(*path: str | int, value: Any) -> Edit:
    def edit(document: Any) -> None:
        for key in path[:-1]:
            document = document[key]
        document[path[-1]] = value

    return edit


def drop(*path: str | int) -> Edit:
    def edit(document: Any) -> None:
        for key in path[:-1]:
            document = document[key]
        del document[path[-1]]

    return edit


def twice(key: str) -> Edit:
    return lambda document: document[key].append(document[key][0])


# -- the path that was given


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


# -- bytes


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


# -- paths


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


# -- the manifest


@pytest.mark.parametrize("version", [0, 8, 999])
def test_an_unknown_schema_version_is_a_version_error_even_with_unknown_keys(copy: Path, version: int) -> None:
    edit_manifest(copy, lambda manifest: manifest.update(schema_version=version, novelty=1))
    raises(BundleVersionError, copy, "bundle.json", "schema_version 1", str(version))


PLACES = [
    (),
    ("candidates", 1),
    ("encoders", 0),
    ("encoders", 0, "files"),
    ("encoders", 0, "files", "table"),
    ("heads", 0),
    ("heads", 0, "weights"),
    ("heads", 0, "rule_constants"),
    ("heads", 0, "fitted_on"),
    ("prices",),
    ("support",),
]


def at(document: Any, place: tuple[str | int, ...]) -> Any:
    for key in place:
        document = document[key]
    return document


def name_of(place: tuple[str | int, ...]) -> str:
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in place).lstrip(".")


@pytest.mark.parametrize("place", PLACES, ids=lambda place: name_of(place) or "top")
def test_an_unknown_key_is_a_format_error(copy: Path, place: tuple[str | int, ...]) -> None:
    edit_manifest(copy, put(*place, "novelty", value=1))
    raises(BundleFormatError, copy, "bundle.json", name_of((*place, "novelty")))


@pytest.mark.parametrize("place", PLACES, ids=lambda place: name_of(place) or "top")
def test_each_missing_key_is_a_format_error(copy: Path, place: tuple[str | int, ...]) -> None:
    complete = (copy / "bundle.json").read_bytes()
    for key in list(at(json.loads(complete), place)):
        (copy / "bundle.json").write_bytes(complete)
        edit_manifest(copy, drop(*place, key))
        raises(BundleFormatError, copy, "bundle.json", name_of((*place, key)), "missing")


@pytest.mark.parametrize("place", PLACES, ids=lambda place: name_of(place) or "top")
@pytest.mark.parametrize("wrong", [[1.5], -1.5j], ids=["list", "object"])
def test_each_value_of_the_wrong_type_is_a_format_error(copy: Path, place: tuple[str | int, ...], wrong: Any) -> None:
    complete = (copy / "bundle.json").read_bytes()
    for key in list(at(json.loads(complete), place)):
        (copy / "bundle.json").write_bytes(complete)
        value = {"surprise": "object"} if isinstance(wrong, complex) else wrong
        if key == "provenance" and isinstance(value, dict):
            continue  # the one place where any object is right
        edit_manifest(copy, put(*place, key, value=value))
        raises(BundleFormatError, copy, "bundle.json", name_of((*place, key)))


@pytest.mark.parametrize(
    ("edit", "error", "named"),
    [
        (put("schema_version", value=True), BundleFormatError, "schema_version"),
        (put("schema_version", value="1"), BundleFormatError, "schema_version"),
        (put("name", value=" "), BundleFormatError, "name"),
        (put("created", value="yesterday"), BundleFormatError, "created"),
        (put("created", value="2026-13-01"), BundleFormatError, "created"),
        (put("created", value="20261124"), BundleFormatError, "created"),
        (put("candidates", value=[]), BundleFormatError, "candidates"),
        (twice("candidates"), BundleFormatError, "candidates[3]"),
        (put("candidates", 0, "name", value=3), BundleFormatError, "candidates[0].name"),
        (put("candidates", 0, "name", value="renamed"), BundleFormatError, "heads[0].candidates[0]"),
        (put("candidates", 0, "context_window", value=0), BundleValueError, "candidates[0].context_window"),
        (put("candidates", 0, "context_window", value=True), BundleFormatError, "candidates[0].context_window"),
        (put("candidates", 0, "context_window", value=8.5), BundleFormatError, "candidates[0].context_window"),
        (put("candidates", 1, "token_ratio", value=0), BundleValueError, "candidates[1].token_ratio"),
        (put("candidates", 1, "token_ratio", value=-1.0), BundleValueError, "candidates[1].token_ratio"),
        (put("candidates", 1, "token_ratio", value=float("nan")), BundleValueError, "candidates[1].token_ratio"),
        (put("candidates", 1, "token_ratio", value=float("inf")), BundleValueError, "candidates[1].token_ratio"),
        (put("candidates", 1, "token_ratio", value=10**400), BundleValueError, "candidates[1].token_ratio"),
        (put("candidates", 1, "latency_ms", value=-1), BundleValueError, "candidates[1].latency_ms"),
        (put("candidates", 2, "features", value=["tools", "tools"]), BundleFormatError, "candidates[2].features[1]"),
        (put("candidates", 2, "features", value="tools"), BundleFormatError, "candidates[2].features"),
        (put("encoders", value=[]), BundleFormatError, "encoders"),
        (twice("encoders"), BundleFormatError, "encoders[1]"),
        (put("encoders", 0, "id", value="a/b"), BundleFormatError, "encoders[0].id"),
        (put("encoders", 0, "kind", value="psychic"), BundleFormatError, "encoders[0].kind"),
        (put("encoders", 0, "pooling", value="max"), BundleFormatError, "encoders[0].pooling"),
        (put("encoders", 0, "dim", value=0), BundleValueError, "encoders[0].dim"),
        (put("encoders", 0, "dim", value=17), BundleShapeError, TABLE),
        (put("encoders", 0, "max_tokens", value=0), BundleValueError, "encoders[0].max_tokens"),
        (put("encoders", 0, "normalize", value=False), BundleValueError, "encoders[0].normalize"),
        (put("heads", value=[]), BundleFormatError, "heads"),
        (twice("heads"), BundleFormatError, "heads[1]"),
        (put("heads", 0, "encoder", value="other"), EncoderMismatchError, "heads[0].encoder"),
        (put("heads", 0, "outputs", value=["quality", "wit"]), BundleFormatError, "heads[0].outputs[1]"),
        (put("heads", 0, "outputs", value=["quality", "quality"]), BundleFormatError, "heads[0].outputs[1]"),
        (put("heads", 0, "outputs", value=["tokens"]), BundleFormatError, "heads[0].outputs"),
        (put("heads", 0, "outputs", value=["quality"]), BundleFormatError, "len_skip"),
        (put("heads", 0, "activation", value="tanh"), BundleFormatError, "heads[0].activation"),
        (put("heads", 0, "candidates", value=["alpha/large"]), BundleShapeError, HEADS),
        (put("heads", 0, "candidates", 1, value="stranger"), BundleFormatError, "heads[0].candidates[1]"),
        (put("heads", 0, "candidates", 1, value="alpha/large"), BundleFormatError, "heads[0].candidates[1]"),
        (put("heads", 0, "rule_constants", "hi", value=float("nan")), BundleValueError, "rule_constants.hi"),
        (put("heads", 0, "rule_constants", "hi", value=1.5), BundleValueError, "rule_constants.hi"),
        (put("heads", 0, "rule_constants", "lo", value=0.9), BundleValueError, "rule_constants.lo"),
        (put("heads", 0, "fitted_on", "prompts", value=-1), BundleValueError, "fitted_on.prompts"),
        (put("heads", 0, "fitted_on", "prompt_ids_sha256", value="0"), BundleFormatError, "prompt_ids_sha256"),
        (put("prices", "bytes", value=-1), BundleValueError, "prices.bytes"),
        (put("prices", "sha256", value="A" * 64), BundleFormatError, "prices.sha256"),
        (put("support", "encoder", value="other"), EncoderMismatchError, "support.encoder"),
        (put("calibrations", value=[{}]), BundleFormatError, "calibrations"),
        (put("extra_files", value=[{"path": "x"}]), BundleFormatError, "extra_files[0].sha256"),
        (put("provenance", value={"loss": [1.0, float("nan")]}), BundleValueError, "provenance.loss[1]"),
    ],
)
def test_each_wrong_value_in_the_manifest_names_its_field(
    copy: Path, edit: Edit, error: type[Exception], named: str
) -> None:
    edit_manifest(copy, edit)
    raises(error, copy, named)


# -- prices


@pytest.mark.parametrize(
    ("edit", "error", "named"),
    [
        (drop("prices", "beta/mid"), BundleFormatError, "prices.beta/mid"),
        (put("prices", "stranger", value={}), BundleFormatError, "prices.stranger"),
        (put("currency", value="EUR"), BundleFormatError, "currency"),
        (put("date", value="today"), BundleFormatError, "date"),
        (put("novelty", value=1), BundleFormatError, "novelty"),
        (drop("prices", "beta/mid", "basis"), BundleFormatError, "prices.beta/mid.basis"),
        (put("prices", "beta/mid", "basis", value=""), BundleFormatError, "prices.beta/mid.basis"),
        *(
            (put("prices", "beta/mid", key, value=value), error, f"prices.beta/mid.{key}")
            for key in ("input_usd_per_1m", "output_usd_per_1m", "fixed_usd")
            for value, error in [
                (-1e-9, BundleValueError),
                (float("nan"), BundleValueError),
                (float("inf"), BundleValueError),
                ("1", BundleFormatError),
                (True, BundleFormatError),
                (None, BundleFormatError),
            ]
        ),
    ],
)
def test_each_wrong_price_names_its_field(copy: Path, edit: Edit, error: type[Exception], named: str) -> None:
    edit_json(copy, PRICES, edit)
    raises(error, copy, PRICES, named)


# -- tensors


def transform(name: str, change: Callable[[np.ndarray], Any]) -> Edit:
    return lambda tensors: tensors.update({name: change(tensors[name])})


def poison(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(tensor: np.ndarray) -> np.ndarray:
        tensor = tensor.copy()
        tensor.flat[-1] = value
        return tensor

    return change


ALL_HEADS = ("skip", "bias", "trunk", "identity", "up", "down", "out", "len_skip", "len_bias", "len_cap")


@pytest.mark.parametrize("name", ALL_HEADS)
@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf])
def test_a_nonfinite_weight_is_a_value_error_that_gives_its_index(copy: Path, name: str, value: float) -> None:
    index = [size - 1 for size in load_file(copy / HEADS)[name].shape]
    edit_tensors(copy, HEADS, transform(name, poison(value)))
    raises(BundleValueError, copy, HEADS, f"{name}{index}", "finite")


@pytest.mark.parametrize("name", ALL_HEADS)
@pytest.mark.parametrize(
    "change",
    [lambda t: t[:-1], lambda t: t[..., :-1], lambda t: t[None], lambda t: t[:0], lambda t: t.reshape(-1)[0]],
    ids=["rows", "columns", "axes", "empty", "scalar"],
)
def test_a_wrong_shape_is_a_shape_error(copy: Path, name: str, change: Edit) -> None:
    edit_tensors(copy, HEADS, transform(name, change))
    raises(BundleShapeError, copy, HEADS, "shape")


@pytest.mark.parametrize("dtype", ["float64", "float16", "int32"])
@pytest.mark.parametrize("name", ["skip", "len_cap"])
def test_a_wrong_dtype_is_a_shape_error(copy: Path, name: str, dtype: str) -> None:
    edit_tensors(copy, HEADS, transform(name, lambda tensor: tensor.astype(dtype)))
    raises(BundleShapeError, copy, HEADS, name, "F32")


def test_a_bfloat16_weight_is_a_shape_error(copy: Path) -> None:
    header = b'{"bias":{"dtype":"BF16","shape":[3],"data_offsets":[0,6]}}'
    replace(copy, HEADS, len(header).to_bytes(8, "little") + header + bytes(6))
    raises(BundleShapeError, copy, HEADS, "bias", "BF16")


@pytest.mark.parametrize(
    ("gone", "named"),
    [
        (("bias",), "bias"),
        (("out",), "skip"),
        (("up",), "up"),
        (("down",), "down"),
        (("len_skip",), "len_skip"),
        (("len_bias",), "len_bias"),
        (("skip", "out", "trunk", "identity", "up", "down"), "skip"),
    ],
)
def test_a_missing_tensor_is_a_format_error(copy: Path, gone: tuple[str, ...], named: str) -> None:
    edit_tensors(copy, HEADS, lambda tensors: [tensors.pop(name) for name in gone])
    if gone == ("out",):
        named = "out"
    raises(BundleFormatError, copy, HEADS, f": {named}", "missing")


@pytest.mark.parametrize("relative", [HEADS, TABLE, SUPPORT])
def test_an_unknown_tensor_is_a_format_error(copy: Path, relative: str) -> None:
    edit_tensors(copy, relative, put("novelty", value=np.zeros(3, np.float32)))
    raises(BundleFormatError, copy, relative, "novelty")


@pytest.mark.parametrize("cap", [0.0, -1.0])
def test_a_length_cap_that_is_not_positive_is_a_value_error(copy: Path, cap: float) -> None:
    edit_tensors(copy, HEADS, transform("len_cap", poison(cap)))
    raises(BundleValueError, copy, HEADS, "len_cap")


@pytest.mark.parametrize(
    ("edit", "error", "named"),
    [
        (drop("embeddings"), BundleFormatError, "embeddings"),
        (transform("embeddings", poison(np.nan)), BundleValueError, "embeddings[29, 15]"),
        (
            transform("embeddings", lambda t: poison(-np.inf)(t.astype(np.float16))),
            BundleValueError,
            "embeddings[29, 15]",
        ),
        (transform("embeddings", lambda t: t.astype(np.float64)), BundleShapeError, "embeddings"),
        (transform("embeddings", lambda t: t[:, :-1]), BundleShapeError, "embeddings"),
        (transform("embeddings", lambda t: t[:0]), BundleShapeError, "embeddings"),
        (transform("embeddings", lambda t: t.ravel()), BundleShapeError, "embeddings"),
        (transform("embeddings", lambda t: t[:-1]), BundleValueError, "mapping"),
        (transform("mapping", lambda t: t.astype(np.float32)), BundleShapeError, "mapping"),
        (transform("mapping", lambda t: t[:-1]), BundleShapeError, "weights"),
        (transform("mapping", lambda t: t - 1), BundleValueError, "mapping"),
        (transform("mapping", lambda t: t[:0]), BundleShapeError, "mapping"),
        (drop("mapping"), BundleShapeError, "weights"),
        (transform("weights", poison(np.nan)), BundleValueError, "weights"),
        (transform("weights", lambda t: t.astype(np.float64)), BundleShapeError, "weights"),
        (transform("weights", lambda t: t[:, None]), BundleShapeError, "weights"),
    ],
)
def test_each_fault_of_the_table_names_the_tensor(copy: Path, edit: Edit, error: type[Exception], named: str) -> None:
    edit_tensors(
        copy, TABLE, lambda tensors: tensors.update(mapping=np.arange(len(tensors["mapping"]), dtype=np.int32) % 30)
    )
    edit_tensors(copy, TABLE, edit)
    raises(error, copy, TABLE, named)


@pytest.mark.parametrize(
    ("edit", "error", "named"),
    [
        (drop("centroids"), BundleFormatError, "centroids"),
        (drop("distances"), BundleFormatError, "distances"),
        (transform("centroids", poison(np.nan)), BundleValueError, "centroids[4, 15]"),
        (transform("centroids", lambda t: t[:, :-1]), BundleShapeError, "centroids"),
        (transform("centroids", lambda t: t[:0]), BundleShapeError, "centroids"),
        (transform("distances", lambda t: t[:-1]), BundleShapeError, "distances"),
        (transform("distances", lambda t: t[::-1]), BundleValueError, "distances"),
        (transform("distances", lambda t: t - 10), BundleValueError, "distances"),
        (transform("distances", poison(np.inf)), BundleValueError, "distances[100]"),
        (transform("distances", lambda t: t.astype(np.float64)), BundleShapeError, "distances"),
    ],
)
def test_each_fault_of_the_support_names_the_tensor(copy: Path, edit: Edit, error: type[Exception], named: str) -> None:
    edit_tensors(copy, SUPPORT, edit)
    raises(error, copy, SUPPORT, named)


@pytest.mark.parametrize("value", ["yes", 1, None])
def test_a_config_whose_normalize_is_no_bool_is_a_format_error(copy: Path, value: object) -> None:
    edit_json(copy, CONFIG, put("normalize", value=value))
    raises(BundleFormatError, copy, CONFIG, "normalize")
