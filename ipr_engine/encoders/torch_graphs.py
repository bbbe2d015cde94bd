"""The torch tier on a GPU runs PyTorch's model in recordings, one per (batch, tokens) bucket.

It has run on one H200 (docs/gpu.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ipr_engine.cuda.block import Block, Fields
from ipr_engine.cuda.buckets import Bucket
from ipr_engine.cuda.graphs import Graphs, Work, open_graphs
from ipr_engine.encoders.graph_encoder import BATCHES, GraphEncoder
from ipr_engine.encoders.load_options import LoadOptions
from ipr_engine.encoders.manifest import Export
from ipr_engine.encoders.torch import TorchEncoder, pool


class TorchGraphEncoder(GraphEncoder):
    """A `TorchGraphEncoder` runs a transformer under CUDA graphs; `from_folder` and `from_export` build it.

    Which bucket a row goes through, and with whom, changes its last bits.
    """

    tier = "torch"

    def __init__(self, eager: TorchEncoder, *, graphs: Graphs | None = None, batches: Sequence[int] = BATCHES) -> None:
        """Take a loaded model; `record`, or the first call that encodes, records its buckets.

        Args:
            eager: on the device of `graphs`.
            graphs: None opens the device of `eager`.
            batches: of the buckets; each with every length 16, 32, 64 ... below max_tokens, and max_tokens.
        Raises:
            BackendUnavailableError: the device is missing.
        """
        super().__init__(eager, open_graphs(eager.device) if graphs is None else graphs, batches)
        self.eager = eager

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

    def fields(self, bucket: Bucket) -> Fields:
        """Return ids and mask (batch, tokens), as transformers' models take them."""
        return dict.fromkeys(("ids", "mask"), (bucket.shape, "int64"))

    def bind(self, bucket: Bucket, inputs: Block, x: Any) -> Work:
        """Return what enqueues the embedding of a pass into x (batch, dim) float32 on the device; it never waits."""
        states, mask = self.bind_states(bucket, inputs), inputs.device["mask"]
        return lambda: x.copy_(pool(states().float(), mask, self.pooling, self.normalize))

    def bind_states(self, bucket: Bucket, inputs: Block) -> Callable[[], Any]:
        """Return what enqueues the transformer and returns its last hidden state (batch, tokens, dim) on the device; it never waits."""
        ids, mask = inputs.device["ids"], inputs.device["mask"]
        return lambda: self.eager.states(ids, mask).contiguous()
