"""What a transformer tier offers so that its work can be recorded together with the decision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ipr_engine.cuda.recording import Graphs
from ipr_engine.cuda.shapes import Bucket


@runtime_checkable
class PromptReader(Protocol):
    """The part of a transformer tier that runs before its transformer: prompts to ids.

    Attributes:
        dim: of an embedding. pad_id: what fills a row up.
        pooling, normalize: how the tier makes x of token states, as the kernel's KernelVariant names it.
    """

    dim: int

    @property
    def pooling(self) -> Any: ...
    @property
    def normalize(self) -> bool: ...
    @property
    def pad_id(self) -> int: ...

    def read(self, prompts: Sequence[str]) -> tuple[list[NDArray[np.int64]], NDArray[np.int64], NDArray[np.bool_]]:
        """Return ids (none of a prompt without a token), billed_tokens, truncated."""


@runtime_checkable
class StreamEncoder(PromptReader, Protocol):
    """A transformer tier whose buckets run in the current stream on buffers of the caller's.

    Attributes:
        graphs: where its work is recorded. buckets: ascending, a full grid. integer: "int64" or "int32", of ids and mask.
    """

    graphs: Graphs
    buckets: tuple[Bucket, ...]

    @property
    def integer(self) -> str: ...

    def enqueue(self, bucket: Bucket, ids: Any, mask: Any, x: Any) -> None:
        """Enqueue ids, mask (batch, tokens) -> x (batch, dim) float32, torch tensors on the device; this never waits."""


@runtime_checkable
class StateEncoder(StreamEncoder, Protocol):
    """A StreamEncoder that can also stop before pooling, so that the decide kernel pools."""

    def states(self, ids: Any, mask: Any) -> Any:
        """Return (batch, tokens, dim): the last hidden state."""


@runtime_checkable
class OffersStream(Protocol):
    """An encoder whose work can be recorded; an encoder without this member embeds outside of the recording."""

    def on_stream(self, device: str) -> StreamEncoder:
        """Return the encoder as a StreamEncoder on a CUDA device, or on "emulated"."""


def stream_encoder(encoder: object, device: str) -> StreamEncoder | None:
    """Return the encoder as one whose work can be recorded; None where it cannot be."""
    return encoder.on_stream(device) if isinstance(encoder, OffersStream) else None
