"""This file turns tensors with a few words about them into safetensors bytes, the same ones each time, and reads those words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

_METADATA = "__metadata__"


def tensor_file(tensors: Mapping[str, npt.NDArray[Any]], metadata: Mapping[str, str]) -> bytes:
    """Return safetensors bytes; equal arguments give equal bytes, so that a name by their hash is one name.

    The library orders the tensors, by dtype and name, but writes the metadata in an order of chance.
    """
    from safetensors.numpy import save

    data = save(dict(tensors), metadata=dict(metadata))
    end = _end_of_header(data)
    header = json.loads(data[8:end])
    header[_METADATA] = dict(sorted(header[_METADATA].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text = text.ljust(-(-len(text) // 8) * 8)  # tensors begin at a multiple of 8
    return len(text).to_bytes(8, "little") + text + data[end:]


def metadata_of(data: bytes) -> dict[str, str]:
    """Return the metadata of safetensors bytes; a ValueError or KeyError where there are none."""
    metadata: dict[str, str] = json.loads(data[8 : _end_of_header(data)])[_METADATA]
    return metadata


def _end_of_header(data: bytes) -> int:
    """Safetensors: 8 bytes of the header's length, then the header as JSON, padded with spaces."""
    return 8 + int.from_bytes(data[:8], "little")
