"""The tensorrt tier inside another's recording: its contexts enqueue in torch's current stream."""

from __future__ import annotations

from typing import Any

from ipr_engine._extras import need
from ipr_engine.cuda.graphs import CudaGraphs
from ipr_engine.cuda.recording import PURPOSE, Graphs
from ipr_engine.cuda.shapes import Bucket
from ipr_engine.cuda.stream_encoder import PromptReader
from ipr_engine.encoders.tensorrt.runtime import EngineRuntime


class TensorRtStream:
    """The tensorrt tier as a `StreamEncoder` (cuda/stream_encoder.py).

    Attributes: those of StreamEncoder.
    """

    def __init__(self, encoder: PromptReader, runtime: EngineRuntime, device: str) -> None:
        self._runtime = runtime
        # all contexts share scratch memory: `embed` and what is recorded here must not run at the same time
        self.graphs: Graphs = CudaGraphs(device, lock=runtime.lock)
        self.buckets, self.dim = tuple(runtime.buckets), encoder.dim
        self.pooling, self.normalize, self.read = encoder.pooling, encoder.normalize, encoder.read
        self.integer, self.pad_id = str(runtime.integer), encoder.pad_id
        self._index = {bucket: i for i, bucket in enumerate(self.buckets)}

    def enqueue(self, bucket: Bucket, ids: Any, mask: Any, x: Any) -> None:
        """Run the bucket's context on the three tensors, in torch's current stream."""
        stream = need("torch", PURPOSE, "gpu").cuda.current_stream(ids.device).cuda_stream
        self._runtime.enqueue(
            self._index[bucket],
            stream,
            input_ids=ids.data_ptr(),
            attention_mask=mask.data_ptr(),
            embedding=x.data_ptr(),
        )
