"""The torch tier on a GPU records its model once per (batch, tokens) bucket, and replays that.

The CUDA part has run on one H200 (docs/gpu.md); without a GPU tests run the same bookkeeping with the work run eagerly on the CPU.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ipr_engine._extras import need
from ipr_engine._profiling import span
from ipr_engine.cuda import EMULATED
from ipr_engine.cuda.buckets import Bucket, Pass, Passes, fill_rows, make_buckets
from ipr_engine.cuda.graphs import Graphs, Recording, open_graphs
from ipr_engine.encoders.load_options import LoadOptions
from ipr_engine.encoders.manifest import Export
from ipr_engine.encoders.torch import PURPOSE, TorchEncoder, pool
from ipr_engine.encoders.transformer import TransformerEncoder

BATCHES = (1, 2, 4, 8, 16, 32, 64)


class TorchGraphEncoder(TransformerEncoder):
    """A `TorchGraphEncoder` runs a transformer under CUDA graphs; `from_folder` and `from_export` build it.

    Every row goes through a bucket of fixed shape, alone or with others; which bucket, and with whom, changes its last bits.
    Safe to share between threads, which take turns.

    Attributes:
        device, dtype: the place and type of the transformer's arithmetic, as of TorchEncoder.
        graphs: record the work. buckets: the shapes, ascending.
    """

    def __init__(self, eager: TorchEncoder, *, graphs: Graphs | None = None, batches: Sequence[int] = BATCHES) -> None:
        """Take a loaded model; `record`, or the first call that encodes, records its buckets.

        Args:
            eager: on the device of `graphs`.
            graphs: None opens the device of `eager`.
            batches: of the buckets; each with every length 16, 32, 64 ... below max_tokens, and max_tokens.
        Raises:
            BackendUnavailableError: the device is missing.
        """
        named = eager.dtype if eager.dtype == "bfloat16" else None
        super().__init__(
            eager.spec, max_tokens=eager.max_tokens, batch=max(batches), dtype=named, tokenizer=eager.tokenizer
        )
        self.eager, self.dim, self.device, self.dtype = eager, eager.dim, eager.device, eager.dtype
        self.graphs = open_graphs(eager.device) if graphs is None else graphs
        self.buckets = make_buckets(self.max_tokens, batches)
        self._passes: Passes[_Slot] | None = None
        self._planning = threading.Lock()

    @classmethod
    def from_folder(
        cls,
        folder: str | Path,
        *,
        device: str = "cuda",
        batches: Sequence[int] = BATCHES,
        memory_bytes: int | None = None,
        **arguments: Any,
    ) -> TorchGraphEncoder:
        """Load a folder, as `TorchEncoder.from_folder` does, on "cuda", "cuda:N" or "emulated" (the CPU, nothing captured: for tests).

        Args:
            memory_bytes: the most of the device's memory for workspaces, buffers and graphs; None is no bound.
        """
        graphs = open_graphs(device, memory_bytes=memory_bytes)
        eager = TorchEncoder.from_folder(folder, device=graphs.device, **arguments)
        return cls(eager, graphs=graphs, batches=batches)

    @classmethod
    def from_export(
        cls,
        folder: str | Path,
        *,
        device: str = "cuda",
        batches: Sequence[int] = BATCHES,
        memory_bytes: int | None = None,
        **arguments: Any,
    ) -> TorchGraphEncoder:
        """Load an export, as `TorchEncoder.from_export` does, on the devices of `from_folder`; float16 unless `dtype` says another."""
        graphs = open_graphs(device, memory_bytes=memory_bytes)
        eager = TorchEncoder.from_export(folder, device=graphs.device, **arguments)
        return cls(eager, graphs=graphs, batches=batches)

    @classmethod
    def open_export(
        cls, export: Export, options: LoadOptions, *, max_tokens: int | None, dtype: str | None
    ) -> TorchGraphEncoder:
        """Load an export as the registry asks for it; of the options, device and batches apply."""
        batches = BATCHES if options.batches is None else options.batches
        return cls.from_export(
            export.folder, max_tokens=max_tokens, device=options.device, dtype=dtype, batches=batches
        )

    @classmethod
    def open_folder(cls, folder: Path, options: LoadOptions, **arguments: Any) -> TorchGraphEncoder:
        """Load a transformers folder as the registry asks for it: `from_folder` on the options' device, with their batches."""
        batches = BATCHES if options.batches is None else options.batches
        return cls.from_folder(folder, device=options.device, batches=batches, **arguments)

    @property
    def summary(self) -> str:
        """Tier, dimensions, type and place of the arithmetic, buckets, tokenizer."""
        where = EMULATED if self.graphs.device == "cpu" else self.graphs.device
        return (
            f"torch {self.dim}-d {self.dtype} on {where}, {self.graphs.kind} of {len(self.buckets)} buckets to "
            f"{self.buckets[-1]}, {self.tokenizer.kind} tokenizer"
        )

    @property
    def integer(self) -> str:
        """The type of the ids and the mask that `enqueue` reads."""
        return "int64"

    def on_stream(self, device: str) -> TorchGraphEncoder:
        """Return this encoder: it is a StateEncoder as it stands, on the device it was loaded on."""
        return self

    def states(self, ids: Any, mask: Any) -> Any:
        """Enqueue the transformer: (batch, tokens) ids and mask on the device -> (batch, tokens, dim) last hidden state; never waits."""
        return self.eager.states(ids, mask)

    def enqueue(self, bucket: Bucket, ids: Any, mask: Any, x: Any) -> None:
        """Embed a bucket into x (batch, dim) float32, all on the device, in the current stream; this never waits."""
        x.copy_(pool(self.states(ids, mask).float(), mask, self.pooling, self.normalize))

    def record(self) -> None:
        """Record every bucket, unless that is done.

        An engine that decides on the GPU records encoder and decision together and needs none of these until `encode`.

        Raises:
            OutOfDeviceMemoryError: names the bucket and the memory.
            BackendUnavailableError: the model cannot be captured.
        """
        self._recorded()

    def _recorded(self) -> Passes[_Slot]:
        """Return the recordings, made at the first call."""
        with self._planning:
            if self._passes is None:
                self._passes = Passes(self.graphs, self.buckets, self._slot)
            return self._passes

    def _slot(self, graphs: Graphs, bucket: Bucket) -> _Slot:
        return _Slot(self, graphs, bucket)

    def _groups(self, rows: list[int], lengths: list[int]) -> list[list[int]]:
        """Return all rows at once: they are sorted into buckets, and waited for once."""
        return [rows] if rows else []

    def _embed(self, ids: list[NDArray[np.int64]]) -> NDArray[np.float32]:
        """Return (rows, dim) embeddings of sequences of 1 to max_tokens ids, longest first."""
        x = np.empty((len(ids), self.dim), dtype=np.float32)

        def fill(slot: _Slot, step: Pass) -> None:
            with span("copy"):
                fill_rows(slot.ids, slot.mask, ids[step.begin : step.end], self.spec.pad_id)

        def collect(slot: _Slot, step: Pass) -> None:
            x[step.begin : step.end] = slot.x[: step.end - step.begin]

        self._recorded().run([len(row) for row in ids], fill, collect)
        return x


class _Slot:
    """A `_Slot` holds the buffers of one pass and its recording: ids, mask and x on the host."""

    recording: Recording

    def __init__(self, encoder: TorchGraphEncoder, graphs: Graphs, bucket: Bucket) -> None:
        torch = need("torch", PURPOSE, "gpu")
        # (2, batch, tokens): ids and mask side by side, so that one copy takes both
        inputs, there = (make((2, *bucket.shape), torch.int64) for make in (graphs.host_buffer, graphs.buffer))
        shape = (bucket.batch, encoder.dim)
        outputs, embedded = (make(shape, torch.float32) for make in (graphs.host_buffer, graphs.buffer))
        self.ids, self.mask = inputs.numpy()
        self.x: NDArray[np.float32] = outputs.numpy()
        self.mask[:, 0] = 1  # warm-ups and the capture run on these buffers: a row without one token would be 0 / 0

        def work() -> None:
            there.copy_(inputs, non_blocking=True)
            with span("encode"):
                encoder.enqueue(bucket, there[0], there[1], embedded)
            outputs.copy_(embedded, non_blocking=True)

        self.recording = graphs.record(str(bucket), work)
