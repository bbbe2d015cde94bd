"""This file reads an encoder's files: whole, as JSON, or as mapped tensors; errors name the file."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ipr_engine.errors import BundleFormatError, BundleNotFoundError

_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1", "BOOL": "|b1",
}  # fmt: skip
_LARGEST_HEADER = 100_000_000  # the format's own limit


def read_bytes(path: str | Path) -> bytes:
    """Return the bytes of a file; BundleNotFoundError if there is none."""
    try:
        return Path(path).read_bytes()
    except FileNotFoundError as error:
        raise BundleNotFoundError(f"{path}: no such file") from error


def parse_json(path: str | Path, data: bytes) -> Any:
    """Return the value of a JSON file's bytes; path is for the message of BundleFormatError."""
    try:
        return json.loads(data)
    except ValueError as error:
        raise BundleFormatError(f"{path}: not JSON in UTF-8: {error}") from error


def map_tensors(path: str | Path) -> dict[str, NDArray[Any]]:
    """Map a safetensors file: no copy, a page is read when a row of it is.

    The arrays are read-only, hold the mapping alive, and need the file to stay as it is.

    Raises:
        BundleNotFoundError: there is no such file.
        BundleFormatError: it is not a whole, well-formed safetensors file of numpy dtypes.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        raw = np.memmap(path, dtype=np.uint8, mode="r") if size else np.empty(0, np.uint8)
    except FileNotFoundError as error:
        raise BundleNotFoundError(f"{path}: no such file") from error
    header, start = _header(path, raw)
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__":
            tensors[name] = _tensor(path, name, entry, raw[start:])
    return tensors


def _header(path: Path, raw: NDArray[np.uint8]) -> tuple[dict[str, Any], int]:
    """Return the header, and the first byte behind it: 8 bytes of its length, then JSON, then the tensors."""
    length = int.from_bytes(raw[:8].tobytes(), "little") if raw.size >= 8 else _LARGEST_HEADER + 1
    if length > min(raw.size - 8, _LARGEST_HEADER):
        raise BundleFormatError(f"{path}: expected a safetensors file; its header does not fit in {raw.size} bytes")
    try:
        header = json.loads(raw[8 : 8 + length].tobytes())
    except ValueError as error:
        raise BundleFormatError(f"{path}: the safetensors header is not JSON: {error}") from error
    if not isinstance(header, dict):
        raise BundleFormatError(f"{path}: the safetensors header is not an object")
    return header, 8 + length


def _tensor(path: Path, name: str, entry: Any, data: NDArray[np.uint8]) -> NDArray[Any]:
    """View one entry of the header in the bytes behind it."""
    try:
        dtype = np.dtype(_DTYPES[entry["dtype"]])
        shape = tuple(entry["shape"])
        begin, end = entry["data_offsets"]
        whole = all(type(number) is int and number >= 0 for number in (*shape, begin, end))
        if not whole or end - begin != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"shape {shape} of {dtype} does not fill bytes {begin} to {end}")
    except (KeyError, TypeError, ValueError) as error:
        raise BundleFormatError(f"{path}: tensor {name!r}: bad or unknown entry {entry!r}: {error!r}") from error
    if end > data.size:
        raise BundleFormatError(f"{path}: tensor {name!r} ends at byte {end} of {data.size}; is the file truncated?")
    tensor = data[begin:end]
    # A copy only where the writer did not align the tensor.
    aligned = tensor if tensor.size == 0 or tensor.ctypes.data % dtype.itemsize == 0 else tensor.copy()
    return np.asarray(aligned).view(dtype).reshape(shape)
