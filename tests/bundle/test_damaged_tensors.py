"""Each wrong array of heads, table and support raises its own class, and the message names the tensor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from ipr_engine.errors import (
    BundleFormatError,
    BundleShapeError,
    BundleValueError,
)
from tests.support.damaged_bundles import (
    CONFIG,
    HEADS,
    SUPPORT,
    TABLE,
    Edit,
    drop,
    edit_json,
    edit_tensors,
    put,
    raises,
    replace,
)


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
