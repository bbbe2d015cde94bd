"""The triton tier runs a BERT encoder by this project's fused kernels (kernels/bert), in recordings on a GPU.

It has never run on a GPU: so it is taken by name alone, and holds its embeddings against PyTorch's when it is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ipr_engine._extras import need
from ipr_engine.cuda.block import Block, Fields
from ipr_engine.cuda.buckets import Bucket, fill_rows
from ipr_engine.cuda.graphs import Graphs, Work, open_graphs
from ipr_engine.cuda.lost_device import PURPOSE
from ipr_engine.encoders.export.check import MIN_COSINE_FLOAT16, worst_cosine
from ipr_engine.encoders.graph_encoder import BATCHES, GraphEncoder
from ipr_engine.encoders.load_options import LoadOptions
from ipr_engine.encoders.manifest import Export
from ipr_engine.encoders.torch import TorchEncoder, pool
from ipr_engine.errors import BackendUnavailableError, EngineMismatchError
from ipr_engine.kernels.bert import BertLaunch, BertPlan
from ipr_engine.kernels.plan import StateNorm

GATE_TOKENS = 64  # of the rows that are compared with PyTorch's at load


class TritonEncoder(GraphEncoder):
    """A `TritonEncoder` runs a BERT encoder in four Triton kernels a layer, float16 with float32 sums; `from_export` builds it.

    A row's embedding does not depend on its bucket or its batch mates, as far as one matrix instruction serves them all
    (docs/bert-kernels.md).

    Attributes:
        plan: the weights on the device.
        cosine: the least one between its embeddings and PyTorch's, over the rows that are compared at load.
    """

    tier = "triton"
    copies_in = True

    def __init__(self, eager: TorchEncoder, *, graphs: Graphs, batches: Sequence[int] = BATCHES) -> None:
        """Take the weights of a loaded model, which is not needed afterwards.

        Args:
            eager: in float16, on the device of `graphs`. batches: of the buckets.
        Raises:
            BackendUnavailableError: the kernels do not run such a model; the message says why.
            EngineMismatchError: they do not give its embeddings here.
        """
        reason = BertPlan.unfit(eager.model.config)
        if reason:
            raise BackendUnavailableError(f"tier: 'triton' does not run this model: {reason}; pass tier='torch'")
        super().__init__(eager, graphs, batches)
        self.plan = BertPlan(eager.model, device=graphs.device)
        self.pdl = self.plan.pdl
        self.norm = StateNorm(scale=self.plan.norm_scale, shift=self.plan.norm_shift, eps=self.plan.eps)
        self.cosine = self._least_cosine(eager)
        if not self.cosine >= MIN_COSINE_FLOAT16:
            raise EngineMismatchError(
                f"tier: 'triton' gives embeddings of a cosine of {self.cosine:.6f} to PyTorch's on {graphs.device}, expected "
                f"{MIN_COSINE_FLOAT16} or more; pass tier='torch'"
            )

    @classmethod
    def from_export(
        cls,
        folder: Any,
        *,
        device: str = "cuda",
        max_tokens: int | None = None,
        batches: Sequence[int] = BATCHES,
    ) -> TritonEncoder:
        """Load an export on "cuda", "cuda:N" or "emulated" (the CPU, by Triton's interpreter: for tests).

        Raises:
            as TorchEncoder.from_export, and as the class.
        """
        graphs = open_graphs(device)
        eager = TorchEncoder.from_export(folder, max_tokens=max_tokens, device=graphs.device, dtype="float16")
        return cls(eager, graphs=graphs, batches=batches)

    @classmethod
    def open_export(
        cls, export: Export, options: LoadOptions, *, max_tokens: int | None, dtype: str | None
    ) -> TritonEncoder:
        """Load an export as the registry asks for it; of the options, device and batches apply."""
        batches = BATCHES if options.batches is None else options.batches
        return cls.from_export(export.folder, max_tokens=max_tokens, device=options.device, batches=batches)

    def fields(self, bucket: Bucket) -> Fields:
        """Return ids (batch, tokens); padding is told by the lengths."""
        return {"ids": (bucket.shape, "int32")}

    def bind(self, bucket: Bucket, inputs: Block, x: Any) -> Work:
        """Return what enqueues the embedding of a pass into x (batch, dim) float32 on the device; it never waits."""
        torch = need("torch", PURPOSE, "gpu")
        states, norm, lengths = self.bind_states(bucket, inputs), self.norm, inputs.device["lengths"]
        places = torch.arange(bucket.tokens, device=self.graphs.device)

        def work() -> None:
            last = torch.nn.functional.layer_norm(states().float(), (self.dim,), norm.scale, norm.shift, norm.eps)
            x.copy_(pool(last, (places < lengths[:, None]).long(), self.pooling, self.normalize))

        return work

    def bind_states(self, bucket: Bucket, inputs: Block) -> Callable[[], Any]:
        """Return what enqueues the kernels and returns (batch, tokens, dim) states before `norm`; it never waits.

        The states lie in the workspace that all recordings of an owner share: read them in the same recording.
        """
        size = BertLaunch.workspace_bytes(self.plan, bucket.batch, bucket.tokens)
        launch: Callable[[], Any] = BertLaunch(
            self.plan,
            inputs.pinned["ids"],
            inputs.device["lengths"],
            bucket.batch,
            bucket.tokens,
            copy=inputs.words,
            workspace=inputs.graphs.workspace(size),
        )
        return launch

    def _least_cosine(self, eager: TorchEncoder) -> float:
        """Return the least cosine between the kernels' embeddings and PyTorch's, of rows from full to one token."""
        torch = need("torch", PURPOSE, "gpu")
        tokens = min(GATE_TOKENS, self.max_tokens)
        lengths = sorted({tokens, tokens // 2 + 1, min(3, tokens), 1}, reverse=True)
        bucket = Bucket(tokens, len(lengths))
        rng = np.random.default_rng(0)
        rows = [rng.integers(0, self.plan.vocabulary, length) for length in lengths]
        graphs = self.graphs.for_owner()  # its workspace is freed with it
        inputs = Block(graphs, {"lengths": ((bucket.batch,), "int32"), **self.fields(bucket)})
        fill_rows(inputs.host, rows, self.pad_id)
        x = graphs.buffer((bucket.batch, self.dim), torch.float32)
        work = self.bind(bucket, inputs, x)
        if self.plan.arch is not None:  # weights and buffers were filled in another stream than they are read in
            torch.cuda.synchronize(self.graphs.device)
        with graphs.exclusive():
            work()
            got = x.cpu().numpy()
        return worst_cosine(got, eager.embed(rows))
