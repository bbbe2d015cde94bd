"""What an encoder offers so that its work can be recorded together with the decision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ipr_engine._extras import need
from ipr_engine.cuda.graphs import CudaGraphs, Graphs
from ipr_engine.cuda.shapes import Bucket

if TYPE_CHECKING:
    from ipr_engine.encoders.tensorrt.encoder import TensorRtEncoder


@runtime_checkable
class StreamEncoder(Protocol):
    """A transformer tier whose buckets run in the current stream on buffers of the caller's.

    Attributes:
        graphs: where its work is recorded. buckets: ascending, a full grid. integer: "int64" or "int32", of ids and mask.
        pooling, normalize: how it makes x of token states, as the kernel's KernelForm names it.
    """

    graphs: Graphs
    buckets: tuple[Bucket, ...]
    dim: int

    @property
    def integer(self) -> str: ...
    @property
    def pooling(self) -> Any: ...
    @property
    def normalize(self) -> bool: ...
    @property
    def pad_id(self) -> int: ...

    def read(self, prompts: Sequence[str]) -> tuple[list[NDArray[np.int64]], NDArray[np.int64], NDArray[np.bool_]]: ...

    def enqueue(self, bucket: Bucket, ids: Any, mask: Any, x: Any) -> None:
        """ids, mask (batch, tokens) -> x (batch, dim) float32, torch tensors on the device; never waits."""


@runtime_checkable
class StateEncoder(StreamEncoder, Protocol):
    """One that can also stop before pooling, so that the decide kernel pools."""

    def states(self, ids: Any, mask: Any) -> Any:
        """(batch, tokens, dim): the last hidden state."""


class TensorRtStream:
    """The tensorrt tier as a StreamEncoder: its contexts enqueue in torch's current stream."""

    def __init__(self, encoder: TensorRtEncoder, device: str) -> None:
        runtime = encoder.runtime
        self._encoder, self._runtime = encoder, runtime
        # all contexts share scratch memory: `embed` and what is recorded here must not run at the same time
        self.graphs: Graphs = CudaGraphs(device, lock=runtime._lock)
        self.buckets, self.dim = tuple(runtime.buckets), encoder.dim
        self.pooling, self.normalize, self.read = encoder.pooling, encoder.normalize, encoder.read
        self.integer, self.pad_id = str(runtime.integer), encoder.spec.pad_id
        self._index = {bucket: i for i, bucket in enumerate(self.buckets)}

    def enqueue(self, bucket: Bucket, ids: Any, mask: Any, x: Any) -> None:
        stream = need("torch", "the GPU path", "gpu").cuda.current_stream(ids.device).cuda_stream
        self._runtime.enqueue(
            self._index[bucket],
            stream,
            input_ids=ids.data_ptr(),
            attention_mask=mask.data_ptr(),
            embedding=x.data_ptr(),
        )


def stream_encoder(encoder: Any, device: str) -> StreamEncoder | None:
    """The encoder as one whose work can be recorded; None where it cannot be."""
    if isinstance(encoder, StreamEncoder):
        return encoder
    if type(encoder).__name__ == "TensorRtEncoder":  # told by name: its module is not loaded where it does not serve
        return TensorRtStream(encoder, device)
    return None
