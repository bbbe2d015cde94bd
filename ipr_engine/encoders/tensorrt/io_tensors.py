"""The inputs and the output of an encoder, as a parsed network and as a compiled engine must have them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ipr_engine.cuda.shapes import Bucket
from ipr_engine.encoders.tensorrt import bindings
from ipr_engine.errors import EngineMismatchError, InvalidInputError

INPUTS = ("input_ids", "attention_mask")
OUTPUT = "embedding"
_INTEGERS: dict[str, np.dtype[Any]] = {"DataType.INT64": np.dtype(np.int64), "DataType.INT32": np.dtype(np.int32)}


def check_network(network: bindings.INetworkDefinition, dim: int, onnx: Path) -> None:
    """Raise InvalidInputError, which names what differs, unless inputs and output are an encoder's by name, rank, type and dim."""
    inputs = {tensor.name: tensor for tensor in map(network.get_input, range(network.num_inputs))}
    outputs = {tensor.name: tensor for tensor in map(network.get_output, range(network.num_outputs))}
    if set(inputs) != set(INPUTS) or set(outputs) != {OUTPUT}:
        raise InvalidInputError(
            f"{onnx}: expected inputs {', '.join(INPUTS)} and output {OUTPUT}, got {', '.join(inputs)} and {', '.join(outputs)}"
        )
    for name, tensor in inputs.items():
        if tuple(tensor.shape) != (-1, -1) or str(tensor.dtype) not in ("DataType.INT64", "DataType.INT32"):
            raise InvalidInputError(
                f"{onnx}: {name}: expected dynamic (batch, tokens) integers, got {_describe(tensor)}"
            )
    out = outputs[OUTPUT]
    if len(tuple(out.shape)) != 2 or tuple(out.shape)[1] != dim or str(out.dtype) != "DataType.FLOAT":
        raise InvalidInputError(f"{onnx}: {OUTPUT}: expected (batch, {dim}) float32, got {_describe(out)}")


def check_engine(engine: bindings.ICudaEngine, buckets: Sequence[Bucket], dim: int, where: str) -> np.dtype[Any]:
    """Return the type of the inputs of an engine whose names, types, output and profiles are the expected ones."""
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    if set(names) != {*INPUTS, OUTPUT}:
        raise EngineMismatchError(
            f"{where}: expected the tensors {', '.join((*INPUTS, OUTPUT))}, got {', '.join(names)}"
        )
    kinds = {name: str(engine.get_tensor_dtype(name)) for name in names}
    integers = {kinds[name] for name in INPUTS}
    width = tuple(engine.get_tensor_shape(OUTPUT))[-1]
    if len(integers) != 1 or not integers <= set(_INTEGERS) or kinds[OUTPUT] != "DataType.FLOAT" or width != dim:
        raise EngineMismatchError(
            f"{where}: expected integer inputs of one type and {dim} float32 values, got {kinds} and {width}"
        )
    built = [
        tuple(tuple(shape) for shape in engine.get_tensor_profile_shape(name, i))
        for i in range(engine.num_optimization_profiles)
        for name in INPUTS
    ]
    if built != [(bucket.shape,) * 3 for bucket in buckets for _ in INPUTS]:
        raise EngineMismatchError(
            f"{where}: expected the buckets {', '.join(map(str, buckets))}, got profiles {sorted(set(built))}"
        )
    return _INTEGERS[integers.pop()]


def _describe(tensor: bindings.ITensor) -> str:
    return f"{tuple(tensor.shape)} {tensor.dtype}"
