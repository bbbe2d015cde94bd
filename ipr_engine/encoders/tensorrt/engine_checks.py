"""This file checks an engine: its tensors, and its answers on a fixed sample.

check_network, check_engine    inputs and output of a parsed network, and of a compiled engine
make_sample, embed_reference   rows of ids, and their float32 embeddings by ONNX Runtime on the CPU
require_cosines                the gate: an engine whose embeddings differ is refused
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ipr_engine.cuda.buckets import Bucket
from ipr_engine.encoders.cpu_runs import import_onnxruntime
from ipr_engine.encoders.tensorrt import bindings
from ipr_engine.errors import EngineMismatchError, InvalidInputError

INPUTS = ("input_ids", "attention_mask")
OUTPUT = "embedding"
_INTEGERS: dict[str, np.dtype[Any]] = {"DataType.INT64": np.dtype(np.int64), "DataType.INT32": np.dtype(np.int32)}


def check_network(network: bindings.INetworkDefinition, dim: int, onnx: Path) -> None:
    """Refuse a network whose inputs and output are not an encoder's by name, rank, type and dim; InvalidInputError names the difference."""
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
    """Return the type of an engine's inputs, int64 or int32.

    Raises:
        EngineMismatchError: its names, types, output or profiles are not those of an encoder with these buckets.
    """
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
    # a profile's smallest, best and largest shape are one
    if built != [(bucket.shape,) * 3 for bucket in buckets for _ in INPUTS]:
        raise EngineMismatchError(
            f"{where}: expected the buckets {', '.join(map(str, buckets))}, got profiles {sorted(set(built))}"
        )
    return _INTEGERS[integers.pop()]


def _describe(tensor: bindings.ITensor) -> str:
    return f"{tuple(tensor.shape)} {tensor.dtype}"


MIN_COSINE = 0.9999
_TEXTS = (
    "Why?",
    "Write a Python function that returns the n-th Fibonacci number without recursion.",
    "A train leaves at 7:42 and arrives at 11:05. How long does the journey take? Explain each step.",
    "Übersetze ins Englische: „Morgen fahren wir ans Meer, wenn das Wetter hält.“",
    "Summarise the following contract clause in one sentence: the lessee shall keep the premises in good repair.",
    "<html><body>{{ user.name }}</body></html> SELECT * FROM t WHERE x = 'y'; -- why is this slow?",
)


def make_sample(
    ids_of: Callable[[Sequence[str]], list[NDArray[np.int64]]], buckets: Sequence[Bucket]
) -> list[NDArray[np.int64]]:
    """Make rows of ids that exercise every bucket: each text as it is, and one that nearly fills each length.

    Args:
        ids_of: the encoder's own way from texts to ids, cut at its max_tokens.
    """
    lengths = sorted({bucket.tokens for bucket in buckets})
    rows = [*ids_of(_TEXTS), *ids_of([" ".join(_TEXTS) * (1 + size // 64) for size in lengths])]
    rows += [row[:size] for row, size in zip(rows[len(_TEXTS) :], lengths, strict=True)]
    unique = {row.tobytes(): row for row in rows if len(row)}  # short texts fill several lengths alike
    rows = [row for row in unique.values() if len(row) <= lengths[-1]]
    if not any(len(row) <= lengths[0] for row in rows):
        raise InvalidInputError(f"buckets: expected the shortest to hold a text of one word, got {lengths[0]} tokens")
    return rows


def embed_reference(onnx: Path, sample: Sequence[NDArray[np.int64]]) -> NDArray[np.float32]:
    """Return the float32 model's embeddings (rows, dim), each row alone and without padding.

    Raises:
        InvalidInputError: the graph does not load, or is no encoder with these inputs and output.
    """
    ort = import_onnxruntime("an engine's reference embeddings", "tensorrt")
    errors = (RuntimeError, ValueError, ort.capi.onnxruntime_pybind11_state.Fail)
    try:
        session = ort.InferenceSession(str(onnx), providers=["CPUExecutionProvider"])
        rows = [
            session.run(
                ["embedding"], {"input_ids": ids[None], "attention_mask": np.ones((1, len(ids)), dtype=np.int64)}
            )
            for ids in sample
        ]
    except errors as error:
        raise InvalidInputError(f"{onnx}: ONNX Runtime cannot run it as an encoder: {error}") from error
    return np.concatenate([row[0] for row in rows]).astype(np.float32)


def require_cosines(
    x: NDArray[np.float32], reference: NDArray[np.float32], where: str, min_cosine: float = MIN_COSINE
) -> float:
    """Return the smallest cosine between rows of x and the reference.

    Raises:
        EngineMismatchError: it is below min_cosine, or a value is not finite.
    """
    a, b = x.astype(np.float64), reference.astype(np.float64)  # (rows, dim)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosines = (a * b).sum(axis=1) / norms
    worst = int(np.argmin(np.nan_to_num(cosines, nan=-2.0)))  # NaN is worse than any cosine
    if not cosines[worst] >= min_cosine:
        raise EngineMismatchError(
            f"{where}: expected a cosine of at least {min_cosine} with the float32 model, got {cosines[worst]:.6f} at row "
            f"{worst} of the sample; the engine is refused: use tier='torch', or TensorRtEncoder with precision='float32', or report "
            "the model"
        )
    return float(cosines[worst])
