"""safetensors files are mapped, not copied, and anything malformed is refused."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
from safetensors.numpy import save_file

from ipr_engine.encoders.model_files import map_tensors
from ipr_engine.errors import BundleFormatError, BundleNotFoundError

DTYPES = [np.float64, np.float32, np.float16, np.int64, np.int32, np.int16, np.int8, np.uint8, np.bool_]


def is_mapped(array: np.ndarray) -> bool:
    while array is not None and not isinstance(array, np.memmap):
        array = getattr(array, "base", None)
    return array is not None


def test_tensors_equal_what_safetensors_wrote(tmp_path):
    tensors = {np.dtype(kind).name: np.arange(-6, 6).reshape(3, 4).astype(kind) for kind in DTYPES}
    tensors |= {"scalar": np.array(7.0), "empty": np.zeros((0, 5), np.float32), "odd": np.arange(3, dtype=np.int8)}
    save_file(tensors, tmp_path / "t.safetensors", metadata={"a": "b"})
    mapped = map_tensors(tmp_path / "t.safetensors")
    assert mapped.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert mapped[name].dtype == tensor.dtype
        np.testing.assert_array_equal(mapped[name], tensor)


def test_tensors_are_read_only_views_of_the_file(tmp_path):
    save_file({"embeddings": np.ones((100, 8), np.float32)}, tmp_path / "t.safetensors")
    table = map_tensors(tmp_path / "t.safetensors")["embeddings"]
    assert is_mapped(table)
    assert not table.flags.writeable


def raw(header: object, data: bytes = b"\0" * 16, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(dtype: object = "F32", shape: object = (4,), offsets: object = (0, 16)) -> dict[str, object]:
    return {"t": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


def test_a_tensor_that_the_writer_did_not_align_is_still_right(tmp_path):
    path = tmp_path / "t.safetensors"
    for pad in range(8):
        text = json.dumps(entry()).encode() + b" " * pad
        path.write_bytes(raw(text, np.arange(4, dtype="<f4").tobytes()))
        tensor = map_tensors(path)["t"]
        assert tensor.flags.aligned
        assert tensor.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 7,
        raw(entry(), length=1 << 62),
        raw(entry(), length=10_000),
        raw(b"{"),
        raw(b"\xff\xff"),
        raw([]),
        raw({"t": 1}),
        raw({"t": {}}),
        raw(entry(dtype="F8")),
        raw(entry(dtype=[])),
        raw(entry(shape=(5,))),
        raw(entry(shape=(-4,))),
        raw(entry(shape=(2.0, 2))),
        raw(entry(shape=None)),
        raw(entry(offsets=(0, 16, 32))),
        raw(entry(offsets=(-16, 0))),
        raw(entry(offsets=(16, 0))),
        raw(entry(offsets=(8, 24))),
        raw(entry(), data=b"\0" * 15),
    ],
)
def test_a_malformed_file_is_refused_by_name(tmp_path, content):
    path = tmp_path / "broken.safetensors"
    path.write_bytes(content)
    with pytest.raises(BundleFormatError, match=r"broken\.safetensors"):
        map_tensors(path)


def test_a_missing_file_is_not_found(tmp_path):
    with pytest.raises(BundleNotFoundError, match="no such file"):
        map_tensors(tmp_path / "none.safetensors")
