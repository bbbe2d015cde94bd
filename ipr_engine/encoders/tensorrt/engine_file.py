"""An engine file holds the plan that TensorRT compiled, what it was compiled for, and what it must answer on a fixed sample.

A safetensors file: `plan` uint8; `sample` (rows, tokens) int32 padded with -1; `reference` (rows, dim) float32; and as metadata
the key (JSON) and the sha256 of the plan. It is written whole or not at all, and read back only if its key is the wanted one.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ipr_engine._tensor_files import tensor_file
from ipr_engine.bundle.fields import canonical_json
from ipr_engine.cuda.buckets import Bucket
from ipr_engine.errors import EngineMismatchError, InvalidInputError

RECIPE = 1  # raised when the code converts, builds or checks the same model in another way: older engines are refused
_REBUILD = "build it again here, or leave the cache to do it"


@dataclass(frozen=True, kw_only=True)
class EngineKey:
    """An `EngineKey` holds everything an engine depends on: two engines of equal keys are interchangeable.

    Attributes:
        model: sha256 of the float32 model.onnx, and of its weights where they lie beside it.
        tensorrt: flavour and version. gpu: `str(Device)`, with compute capability and driver; "any" for a portable plan.
        precision: the type the matrix multiplications compute in.
        buckets: "batch x tokens" of each profile, in order.
        pad_id, max_tokens, tokenizer: of the encoder; they shape the sample.
        workspace_bytes: the most that the builder might use.
    """

    model: str
    tensorrt: str
    gpu: str
    precision: str
    buckets: tuple[str, ...]
    pad_id: int
    max_tokens: int
    tokenizer: str
    workspace_bytes: int

    def document(self) -> dict[str, Any]:
        """Return the key as JSON's values, with the recipe."""
        return {"recipe": RECIPE, **vars(self), "buckets": list(self.buckets)}

    @property
    def file_name(self) -> str:
        """The file name of an engine of this key; another key has another name."""
        digest = hashlib.sha256(canonical_json(self.document(), compact=True)).hexdigest()
        return f"{self.model[:12]}-{self.precision}-{digest[:20]}.engine"


@dataclass(frozen=True, kw_only=True, eq=False)
class EngineFile:
    """An `EngineFile` holds the content of an engine file.

    Attributes:
        key: the document of its EngineKey. plan: TensorRT's serialized engine.
        sample: ids of each row, (1..max_tokens,) int64. reference: (rows, dim) float32, the float32 model's embeddings of them.
    """

    key: Mapping[str, Any]
    plan: bytes
    sample: list[NDArray[np.int64]]
    reference: NDArray[np.float32]


def write_engine(path: Path, engine: EngineFile) -> None:
    """Write an engine file; a reader sees the old file or the new one."""
    longest = max(len(row) for row in engine.sample)
    sample = np.full((len(engine.sample), longest), -1, dtype=np.int32)
    for row, ids in enumerate(engine.sample):
        sample[row, : len(ids)] = ids
    tensors: dict[str, NDArray[Any]] = {
        "plan": np.frombuffer(engine.plan, dtype=np.uint8),
        "sample": sample,
        "reference": engine.reference,
    }
    metadata = {"key": json.dumps(engine.key, sort_keys=True), "sha256": _digest(engine.plan, sample, engine.reference)}
    write_to_cache(path, tensor_file(tensors, metadata))


def read_engine(path: Path, wanted: EngineKey) -> EngineFile:
    """Read the engine of one key.

    Raises:
        EngineMismatchError: no such file, a damaged one, or one of another key: every difference is named with both sides.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            key = json.loads(metadata.get("key", "null"))
            if not isinstance(key, dict):
                raise EngineMismatchError(
                    f"{path}: expected an engine file of ipr_engine, got another safetensors file"
                )
            _require_key(path, key, wanted)  # before the plan is read: it may be hundreds of megabytes
            plan, sample, reference = (file.get_tensor(name) for name in ("plan", "sample", "reference"))
    except FileNotFoundError as error:
        raise EngineMismatchError(f"{path}: no such engine; {_REBUILD}") from error
    except (SafetensorError, ValueError, OSError) as error:
        raise EngineMismatchError(f"{path}: damaged or no engine file: {error}; {_REBUILD}") from error
    data = plan.tobytes()
    if metadata.get("sha256") != _digest(data, sample, reference):
        raise EngineMismatchError(f"{path}: damaged: its sha256 is not the one it states; {_REBUILD}")
    rows = [row[row >= 0].astype(np.int64) for row in sample]  # -1 is padding
    return EngineFile(key=key, plan=data, sample=rows, reference=reference)


def write_to_cache(path: Path, data: bytes) -> None:
    """Write a file that only this user reads, whole or not at all; its folder is made. InvalidInputError where that cannot be."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise InvalidInputError(f"cache: {path.parent} cannot be written: {error}") from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def bucket_names(buckets: tuple[Bucket, ...]) -> tuple[str, ...]:
    """Return the buckets as a key states them, "8 x 64" say."""
    return tuple(map(str, buckets))


def _require_key(path: Path, key: dict[str, Any], wanted: EngineKey) -> None:
    here = wanted.document()
    differences = [
        f"{name}: the engine has {key.get(name)!r}, here it is {here.get(name)!r}"
        for name in sorted({*key, *here})
        if key.get(name) != here.get(name)
    ]
    if differences:
        raise EngineMismatchError(f"{path} was built for something else: {'; '.join(differences)}; {_REBUILD}")


def _digest(plan: bytes, sample: NDArray[Any], reference: NDArray[Any]) -> str:
    digest = hashlib.sha256(plan)
    digest.update(np.ascontiguousarray(sample).tobytes())
    digest.update(np.ascontiguousarray(reference).tobytes())
    return digest.hexdigest()
