"""A `GraphEncoder` is a transformer tier on a GPU that records its work once per (batch, tokens) bucket, and replays that.

Without a GPU tests run the same bookkeeping with the work run eagerly on the CPU ("emulated").
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ipr_engine._extras import need
from ipr_engine._profiling import span
from ipr_engine.cuda import EMULATED
from ipr_engine.cuda.block import Block, Fields
from ipr_engine.cuda.buckets import Bucket, Pass, Passes, fill_rows, make_buckets
from ipr_engine.cuda.graphs import Graphs, Recording, Work
from ipr_engine.encoders.torch import PURPOSE, TorchEncoder
from ipr_engine.encoders.transformer import TransformerEncoder

BATCHES = (1, 2, 4, 8, 16, 32, 64)


class GraphEncoder(TransformerEncoder):
    """A `GraphEncoder` sends every row through a bucket of fixed shape, alone or with others; `record` or the first call records them.

    It is a StateEncoder (cuda/buckets.py); a tier adds `fields`, `bind` and `bind_states`. Safe to share between threads, which
    take turns.

    Attributes:
        device, dtype: the place and type of the transformer's arithmetic, as of TorchEncoder.
        graphs: record the work. buckets: the shapes, ascending.
        copies_in, norm, pdl: as of StateEncoder.
    """

    copies_in = False
    norm: Any = None
    pdl = False

    def __init__(self, eager: TorchEncoder, graphs: Graphs, batches: Sequence[int]) -> None:
        """Take the model's form and tokenizer of a TorchEncoder on the device of `graphs`.

        Args:
            batches: of the buckets; each with every length 16, 32, 64 ... below max_tokens, and max_tokens.
        """
        buckets = make_buckets(eager.max_tokens, batches)
        named = eager.dtype if eager.dtype == "bfloat16" else None
        super().__init__(
            eager.spec, max_tokens=eager.max_tokens, batch=max(batches), dtype=named, tokenizer=eager.tokenizer
        )
        self.dim, self.device, self.dtype, self.graphs = eager.dim, eager.device, eager.dtype, graphs
        self.buckets = buckets
        self._passes: Passes[_Slot] | None = None
        self._planning = threading.Lock()

    @property
    def summary(self) -> str:
        """Tier, dimensions, type and place of the arithmetic, buckets, tokenizer."""
        where = EMULATED if self.graphs.device == "cpu" else self.graphs.device
        return (
            f"{self.tier} {self.dim}-d {self.dtype} on {where}, {self.graphs.kind} of {len(self.buckets)} buckets to "
            f"{self.buckets[-1]}, {self.tokenizer.kind} tokenizer"
        )

    def on_stream(self, device: str) -> GraphEncoder:
        """Return this encoder: it is a StateEncoder as it stands, on the device it was loaded on."""
        return self

    def fields(self, bucket: Bucket) -> Fields:
        """As of StreamEncoder."""
        raise NotImplementedError

    def bind(self, bucket: Bucket, inputs: Block, x: Any) -> Work:
        """As of StreamEncoder."""
        raise NotImplementedError

    def bind_states(self, bucket: Bucket, inputs: Block) -> Callable[[], Any]:
        """As of StateEncoder."""
        raise NotImplementedError

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
                fill_rows(slot.inputs.host, ids[step.begin : step.end], self.spec.pad_id)

        def collect(slot: _Slot, step: Pass) -> None:
            x[step.begin : step.end] = slot.x[: step.end - step.begin]

        self._recorded().run([len(row) for row in ids], fill, collect)
        return x


class _Slot:
    """A `_Slot` holds the buffers of one pass and its recording: its inputs, and x on the host."""

    recording: Recording

    def __init__(self, encoder: GraphEncoder, graphs: Graphs, bucket: Bucket) -> None:
        torch = need("torch", PURPOSE, "gpu")
        self.inputs = Block(graphs, {"lengths": ((bucket.batch,), "int32"), **encoder.fields(bucket)})
        shape = (bucket.batch, encoder.dim)
        outputs, embedded = (make(shape, torch.float32) for make in (graphs.host_buffer, graphs.buffer))
        self.x: NDArray[np.float32] = outputs.numpy()
        fill_rows(self.inputs.host, [], encoder.pad_id)  # warm-ups and the capture run on these buffers
        encode = encoder.bind(bucket, self.inputs, embedded)

        def work() -> None:
            if not encoder.copies_in:
                self.inputs.copy_in()
            with span("encode"):
                encode()
            outputs.copy_(embedded, non_blocking=True)

        self.recording = graphs.record(str(bucket), work)
