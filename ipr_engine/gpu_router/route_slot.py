"""A `RouteSlot` holds the buffers and the recording of one pass: ids and arguments in, encoder and decision, answers out.

    inputs    one block of pinned memory; the recording copies it to the device, or its first kernel does
    encoder   ids -> token states, or x
    decide    pools the states, decides, writes answers and x to pinned memory, and last the number of the request

Where several programs decide, since the candidates are many, they read the answers back: then these are copied out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ipr_engine._extras import need
from ipr_engine._profiling import span
from ipr_engine.cuda.block import Block
from ipr_engine.cuda.buckets import Bucket, StateEncoder, StreamEncoder, fill_rows
from ipr_engine.cuda.graphs import Graphs, Recording
from ipr_engine.cuda.lost_device import PURPOSE
from ipr_engine.kernels.plan import GpuPlan, GpuRequest, GpuResult, result_layout, result_views
from ipr_engine.kernels.run import DecideLaunch

OF_A_ROW = ("billed_tokens", "policy_of_row", "tokens_out", "extra_usd", "allowed", "sequence")


class RouteSlot:
    """A `RouteSlot` holds the buffers of one pass of a bucket, and its recording.

    Attributes:
        inputs: number of the request, ids, lengths, bills, policy rows, given tokens, extra costs, allowed candidates; a mask too,
            where the encoder reads one.
        outputs: name -> numpy view of the answers on the host. x: (batch, dim), the embeddings on the host.
        done: (1,) int32 on the host: the number of the request whose answers are there.
    """

    recording: Recording

    def __init__(self, graphs: Graphs, bucket: Bucket, encoder: StreamEncoder, plan: GpuPlan, *, fused: bool) -> None:
        torch = need("torch", PURPOSE, "gpu")
        self.pad_id = encoder.pad_id
        batch, per_model = bucket.batch, (bucket.batch, plan.models)
        self.inputs = Block(
            graphs,
            {
                "sequence": ((1,), "int32"),
                "lengths": ((batch,), "int32"),
                "policy_of_row": ((batch,), "int32"),
                "billed_tokens": (per_model, "float32"),
                "tokens_out": (per_model, "float32"),
                "extra_usd": (per_model, "float32"),
                "allowed": (per_model, "uint8"),
                **encoder.fields(bucket),
            },
        )
        # Rows that no request fills are decided too: they see one token, and everyone is allowed.
        fill_rows(self.inputs.host, [], self.pad_id)
        self.inputs.host["allowed"].fill(1)
        answers = graphs.host_buffer((result_layout(batch, plan.models)[1],), torch.uint8)
        x, done = graphs.host_buffer((batch, plan.dim), torch.float32), graphs.host_buffer((1,), torch.int32)
        self.outputs = {name: view.numpy() for name, view in result_views(answers, batch, plan.models).items()}
        self.x: NDArray[np.float32] = x.numpy()
        self.done: NDArray[np.int32] = done.numpy()
        decide = _steps(graphs, bucket, encoder, plan, self.inputs, (answers, x, done), fused=fused)

        def work() -> None:
            if not encoder.copies_in:
                self.inputs.copy_in()
            decide()

        self.recording = graphs.record(str(bucket), work)


def _steps(
    graphs: Graphs,
    bucket: Bucket,
    encoder: StreamEncoder,
    plan: GpuPlan,
    inputs: Block,
    told: tuple[Any, Any, Any],
    *,
    fused: bool,
) -> Callable[[], None]:
    """Return a function that enqueues encoder and decision on the slot's buffers; told: answers, x and done on the host."""
    torch = need("torch", PURPOSE, "gpu")
    answers, x_copy, done = told
    x = graphs.buffer((bucket.batch, plan.dim), torch.float32)
    direct = plan.launch.one_program  # else the answers are read back on the device
    result = GpuResult(
        plan,
        bucket.batch,
        block=answers if direct else None,
        x_copy=x_copy if fused else None,
        done=done if direct else None,
    )
    names = OF_A_ROW if direct else OF_A_ROW[:-1]
    request = {"x": x, **{name: inputs.device[name] for name in names}}

    def copy_out() -> None:
        if not direct:
            answers.copy_(result.block, non_blocking=True)
            done.copy_(inputs.device["sequence"], non_blocking=True)  # behind the answers

    if not fused:
        # The checks of a launch happen here, once; the function is what a graph captures.
        encode, launch = encoder.bind(bucket, inputs, x), DecideLaunch(plan, GpuRequest(**request), result)

        def apart() -> None:
            with span("encode"):
                encode()
                x_copy.copy_(x, non_blocking=True)  # before the answers, hence before the number
            with span("decide"):
                launch()
                copy_out()

        return apart

    assert isinstance(encoder, StateEncoder)
    states_of = encoder.bind_states(bucket, inputs)
    pooling: dict[str, Any] = {
        "lengths": inputs.device["lengths"],
        "pooling": encoder.pooling,
        "normalize": encoder.normalize,
        "norm": encoder.norm,
    }

    def together() -> None:
        with span("encode"):
            states = states_of()  # (batch, tokens, dim)
        with span("decide"):  # bound here, since a recording may give the states an address of its own
            DecideLaunch(plan, GpuRequest(**request, states=states, **pooling), result, pdl=encoder.pdl)()
            copy_out()

    return together
