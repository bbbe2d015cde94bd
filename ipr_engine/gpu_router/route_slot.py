"""A `RouteSlot` holds the buffers and the recording of one pass: ids and arguments in, encoder and decision, answers out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ipr_engine._extras import need
from ipr_engine._profiling import span
from ipr_engine.cuda.buckets import Bucket, StateEncoder, StreamEncoder
from ipr_engine.cuda.graphs import PURPOSE, Graphs, Recording
from ipr_engine.kernels.plan import GpuPlan, GpuRequest, GpuResult, result_views
from ipr_engine.kernels.run import DecideLaunch

ALIGN = 256  # of each array: what cudaMalloc aligns to, and more than any load needs


class Block:
    """A `Block` holds arrays of fixed shape on the host and on the device, so that one copy takes them all.

    Attributes:
        host: name -> numpy view of the host's. device: name -> torch view of the device's.
    """

    def __init__(self, graphs: Graphs, fields: Mapping[str, tuple[tuple[int, ...], str]]) -> None:
        """Lay the arrays out. fields: name -> (shape, name of a torch dtype), in their order in the block."""
        torch = need("torch", PURPOSE, "gpu")
        begins: dict[str, tuple[int, int]] = {}  # name -> first byte, end
        at = 0
        for name, (shape, dtype) in fields.items():
            size = math.prod(shape) * getattr(torch, dtype).itemsize
            begins[name] = at, at + size
            at = -(-(at + size) // ALIGN) * ALIGN
        self._host, self._device = (make((max(at, 1),), torch.uint8) for make in (graphs.host_buffer, graphs.buffer))

        def views(block: Any) -> dict[str, Any]:
            return {
                name: block[slice(*begins[name])].view(getattr(torch, dtype)).view(shape)
                for name, (shape, dtype) in fields.items()
            }

        self.host: dict[str, NDArray[Any]] = {name: view.numpy() for name, view in views(self._host).items()}
        self.device: dict[str, Any] = views(self._device)

    def copy_in(self) -> None:
        """Enqueue the copy of all arrays to the device."""
        self._device.copy_(self._host, non_blocking=True)


class RouteSlot:
    """A `RouteSlot` holds the buffers of one pass of a bucket, and its recording.

    Attributes:
        inputs: ids, mask, lengths, bills, policy rows, given tokens, extra costs, allowed candidates; one copy takes them.
        outputs: name -> numpy view of the answers on the host. x: (batch, dim), the embeddings on the host.
    """

    recording: Recording

    def __init__(self, graphs: Graphs, bucket: Bucket, encoder: StreamEncoder, plan: GpuPlan, *, fused: bool) -> None:
        torch = need("torch", PURPOSE, "gpu")
        self.pad_id = encoder.pad_id
        batch, per_model = bucket.batch, (bucket.batch, plan.models)
        self.inputs = Block(
            graphs,
            {
                "ids": (bucket.shape, encoder.integer),
                "mask": (bucket.shape, encoder.integer),
                "lengths": ((batch,), "int32"),
                "billed_tokens": (per_model, "float32"),
                "policy_of_row": ((batch,), "int32"),
                "tokens_out": (per_model, "float32"),
                "extra_usd": (per_model, "float32"),
                "allowed": (per_model, "uint8"),
            },
        )
        # Rows that no request fills are decided too: they see one token, and everyone is allowed.
        self.inputs.host["mask"][:, 0] = 1
        self.inputs.host["lengths"].fill(1)
        self.inputs.host["allowed"].fill(1)
        embedded = graphs.buffer((batch, plan.dim), torch.float32)
        x = graphs.host_buffer((batch, plan.dim), torch.float32)
        self.x: NDArray[np.float32] = x.numpy()
        result = GpuResult(plan, batch)
        answers = graphs.host_buffer(tuple(result.block.shape), torch.uint8)
        self.outputs = {name: view.numpy() for name, view in result_views(answers, batch, plan.models).items()}
        decide = _steps(encoder, plan, fused, self.inputs.device, embedded, result, bucket)

        def work() -> None:
            self.inputs.copy_in()
            decide()
            answers.copy_(result.block, non_blocking=True)
            x.copy_(embedded, non_blocking=True)

        self.recording = graphs.record(str(bucket), work)


def _steps(
    encoder: StreamEncoder,
    plan: GpuPlan,
    fused: bool,
    inputs: dict[str, Any],
    x: Any,
    result: GpuResult,
    bucket: Bucket,
) -> Callable[[], None]:
    """Return a function that enqueues encoder and decision on the slot's device buffers."""
    ids, mask, lengths = inputs["ids"], inputs["mask"], inputs["lengths"]
    rest = ("billed_tokens", "policy_of_row", "tokens_out", "extra_usd", "allowed")
    request = GpuRequest(x=x, **{name: inputs[name] for name in rest})
    # The checks of a launch happen here, once; `run` is what a graph captures.
    launch = None if fused else DecideLaunch(plan, request, result)

    def run() -> None:
        if launch is not None:
            with span("encode"):
                encoder.enqueue(bucket, ids, mask, x)
            with span("decide"):
                launch()
            return
        assert isinstance(encoder, StateEncoder)
        with span("encode"):
            states = encoder.states(ids, mask).contiguous()  # (batch, tokens, dim)
        with span("decide"):  # bound here, since a recording gives the states an address of its own
            pooled = replace(
                request, states=states, lengths=lengths, pooling=encoder.pooling, normalize=encoder.normalize
            )
            DecideLaunch(plan, pooled, result)()

    return run
