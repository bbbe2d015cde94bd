"""The tensorrt tier runs an exported encoder that TensorRT or TensorRT-RTX compiled for one GPU."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ipr_engine._extras import need
from ipr_engine.cuda.block import Block, Fields
from ipr_engine.cuda.buckets import DEFAULT_BATCHES, Bucket, PromptReader
from ipr_engine.cuda.driver import Device
from ipr_engine.cuda.graphs import CudaGraphs, Graphs, Work
from ipr_engine.cuda.lost_device import PURPOSE
from ipr_engine.encoders.load_options import LoadOptions
from ipr_engine.encoders.manifest import Export, read_export
from ipr_engine.encoders.tensorrt.api import load_api
from ipr_engine.encoders.tensorrt.engine_checks import require_cosines
from ipr_engine.encoders.tensorrt.engine_file import EngineFile, read_engine
from ipr_engine.encoders.tensorrt.engine_order import WORKSPACE_BYTES, EngineOrder, device_slug
from ipr_engine.encoders.tensorrt.runtime import EngineRuntime
from ipr_engine.encoders.transformer import TransformerEncoder

CACHE = Path("~/.cache/ipr_engine/tensorrt")


class TensorRtEncoder(TransformerEncoder):
    """A `TensorRtEncoder` runs a frozen transformer through TensorRT; `from_export` builds or finds the engine.

    Every row goes through a bucket of fixed shape, alone or with others; which bucket, and with whom, changes its last bits.
    The engine has answered a fixed sample in every bucket with a cosine of at least 0.9999 to the float32 model.

    Attributes:
        runtime: buckets, stream, and `enqueue` for CUDA graphs.
        precision: the type the matrix multiplications compute in. engine: the file it came from.
        origin: "file", "cached", "built", or "rebuilt: " and why the cached one was not taken.
        cosine: the smallest of the gate.
    """

    tier = "tensorrt"

    def __init__(self, order: EngineOrder, engine: EngineFile, device: Device, *, path: Path, origin: str) -> None:
        """Load an engine that was made for an order.

        Args:
            path, origin: where the engine came from, as the attributes say.
        """
        export, text = order.export, order.text
        batch = max(bucket.batch for bucket in order.buckets)
        super().__init__(export.spec, max_tokens=text.max_tokens, batch=batch, tokenizer=text.tokenizer)
        self.dim, self.precision, self.engine, self.origin = export.dim, order.key.precision, path, origin
        self.runtime = EngineRuntime(
            order.api,
            device,
            engine.plan,
            buckets=order.buckets,
            dim=export.dim,
            pad_id=export.spec.pad_id,
            where=str(path),
            kernels=path.with_suffix(f".{device_slug(device)}.kernels") if order.api.portable else None,
        )
        try:
            self.cosine = _gate(self.runtime, engine, str(path))
        except BaseException:
            self.runtime.close()
            raise
        if origin != "file":  # a file given by name stays as it is, and so does its folder
            self.runtime.save_kernels()

    @classmethod
    def from_export(
        cls,
        folder: str | Path,
        *,
        device: str = "cuda",
        max_tokens: int | None = None,
        precision: str = "float16",
        batches: Sequence[int] = DEFAULT_BATCHES,
        cache: str | Path = CACHE,
        flavour: str = "auto",
        workspace_bytes: int = WORKSPACE_BYTES,
    ) -> TensorRtEncoder:
        """Load an export (encoders/export/): with the cached engine made for exactly this, or one built now (minutes).

        Args:
            device: "cuda" or "cuda:N".
            max_tokens: None is the export's own; its powers of two from 16 up are the buckets' lengths.
            precision: "float16", "bfloat16" or "float32".
            batches: of the buckets, ascending or not; each with every length.
            cache: the folder of engines and timings. flavour: see `load_api`.
            workspace_bytes: what the builder may use of the GPU.
        Raises:
            InvalidInputError: an argument is outside of the above, or the graph is no encoder.
            BackendUnavailableError: TensorRT, the driver or the GPU is missing, or fails.
            EngineMismatchError: the engine does not give the model's embeddings.
            OutOfDeviceMemoryError: names the bucket.
            BundleError: what `read_export` raises: a file of the export does not match its manifest, say.
        """
        export = folder if isinstance(folder, Export) else read_export(folder)
        api = load_api(flavour)
        gpu = Device(device)
        with gpu.closed_on_error():
            order = EngineOrder(export, api, gpu, max_tokens, precision, batches, workspace_bytes)
            engine, path, origin = order.find_or_build(Path(cache).expanduser())
            return cls(order, engine, gpu, path=path, origin=origin)

    @classmethod
    def from_engine(
        cls,
        path: str | Path,
        folder: str | Path,
        *,
        device: str = "cuda",
        max_tokens: int | None = None,
        precision: str = "float16",
        batches: Sequence[int] = DEFAULT_BATCHES,
        flavour: str = "auto",
        workspace_bytes: int = WORKSPACE_BYTES,
    ) -> TensorRtEncoder:
        """Load one engine file of an export and nothing else: never builds. Arguments as `from_export`.

        Raises:
            EngineMismatchError: the file is missing, damaged, or was built for another model, TensorRT, GPU or shape; each
                difference is named with both sides.
        """
        export = read_export(folder)
        api = load_api(flavour)
        gpu = Device(device)
        with gpu.closed_on_error():
            order = EngineOrder(export, api, gpu, max_tokens, precision, batches, workspace_bytes)
            return cls(order, read_engine(Path(path), order.key), gpu, path=Path(path), origin="file")

    @classmethod
    def open_export(
        cls, export: Export, options: LoadOptions, *, max_tokens: int | None, dtype: str | None
    ) -> TensorRtEncoder:
        """Load an export as the registry asks for it; of the options, device and batches apply."""
        batches = DEFAULT_BATCHES if options.batches is None else options.batches
        return cls.from_export(export.folder, max_tokens=max_tokens, device=options.device, batches=batches)

    @property
    def summary(self) -> str:
        """Tier, dimensions, precision, TensorRT, GPU, buckets, where the engine came from."""
        buckets = self.runtime.buckets
        return (
            f"tensorrt {self.dim}-d {self.precision} by {self.runtime.api} on {self.runtime.device.name}, {len(buckets)} buckets "
            f"to {buckets[-1]}, engine {self.origin.partition(':')[0]}, {self.tokenizer.kind} tokenizer"
        )

    def on_stream(self, device: str) -> TensorRtStream:
        """Return this encoder as one that enqueues in torch's current stream of `device`."""
        return TensorRtStream(self, self.runtime, device)

    def close(self) -> None:
        """Give the GPU's memory back; the encoder does no further work."""
        self.runtime.close()

    def _groups(self, rows: list[int], lengths: list[int]) -> list[list[int]]:
        """Return all rows at once: the runtime sorts them into buckets, and waits for the GPU once."""
        return [rows] if rows else []

    def _embed(self, ids: list[NDArray[np.int64]]) -> NDArray[np.float32]:
        """Return (rows, dim) embeddings of sequences of 1 to max_tokens ids, longest first."""
        return self.runtime.embed(ids)


class TensorRtStream:
    """A `TensorRtStream` is a StreamEncoder for another's recording: its contexts enqueue in torch's current stream.

    Attributes: those of StreamEncoder (cuda/buckets.py).
    """

    def __init__(self, encoder: PromptReader, runtime: EngineRuntime, device: str) -> None:
        self._runtime = runtime
        # All contexts share scratch memory: `embed` and the recordings of this encoder must not run at the same time.
        self.graphs: Graphs = CudaGraphs(device, lock=runtime.lock)
        self.buckets, self.dim = tuple(runtime.buckets), encoder.dim
        self.pooling, self.normalize, self.read = encoder.pooling, encoder.normalize, encoder.read
        self.max_tokens, self.pad_id = encoder.max_tokens, encoder.pad_id
        self.wordpiece, self.special_ids = encoder.wordpiece, encoder.special_ids
        self._index = {bucket: i for i, bucket in enumerate(self.buckets)}

    @property
    def copies_in(self) -> bool:
        return False

    def fields(self, bucket: Bucket) -> Fields:
        """Return ids and mask (batch, tokens), of the engine's integer type."""
        return dict.fromkeys(("ids", "mask"), (bucket.shape, str(self._runtime.integer)))

    def bind(self, bucket: Bucket, inputs: Block, x: Any) -> Work:
        """Return what runs the bucket's context on the pass, in torch's current stream."""
        ids, mask = inputs.device["ids"], inputs.device["mask"]
        current_stream = need("torch", PURPOSE, "gpu").cuda.current_stream

        def work() -> None:
            self._runtime.enqueue(
                self._index[bucket],
                current_stream(ids.device).cuda_stream,
                input_ids=ids.data_ptr(),
                attention_mask=mask.data_ptr(),
                embedding=x.data_ptr(),
            )

        return work


def prepare_engine(
    folder: str | Path,
    *,
    device: str = "cuda",
    max_tokens: int | None = None,
    precision: str = "float16",
    batches: Sequence[int] = DEFAULT_BATCHES,
    cache: str | Path = CACHE,
    flavour: str = "auto",
    workspace_bytes: int = WORKSPACE_BYTES,
) -> Path:
    """Put the engine that `TensorRtEncoder.from_export` would build into the cache, and return its file. Arguments as there.

    With TensorRT-RTX no GPU is needed; the embeddings are compared when the engine is loaded.
    """
    api = load_api(flavour)
    gpu = None if api.portable else Device(device)
    with contextlib.ExitStack() as stack:
        if gpu is not None:
            stack.callback(gpu.close)
        order = EngineOrder(read_export(folder), api, gpu, max_tokens, precision, batches, workspace_bytes)
        return order.find_or_build(Path(cache).expanduser())[1]


def _gate(runtime: EngineRuntime, engine: EngineFile, where: str) -> float:
    """Return the smallest cosine with the reference, each bucket full of rows of the sample that fit it, the longest first."""
    worst = 1.0
    lengths = np.array([len(row) for row in engine.sample])
    for bucket in runtime.buckets:
        fitting = np.flatnonzero(lengths <= bucket.tokens)
        longest = fitting[np.argmax(lengths[fitting])]
        # a full bucket: the longest row, then the fitting ones over and over
        rows = np.append(longest, np.resize(fitting, bucket.batch - 1)) if bucket.batch > 1 else np.array([longest])
        rows = rows[np.argsort(-lengths[rows], kind="stable")]
        x = runtime.embed([engine.sample[row] for row in rows])
        worst = min(worst, require_cosines(x, engine.reference[rows], f"{where}, bucket {bucket}"))
    return worst
