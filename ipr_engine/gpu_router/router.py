"""Text's ids to decisions on a device: one recording per bucket, one wait per request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ipr_engine._C import DecideResult, decide_result
from ipr_engine._extras import need
from ipr_engine._profiling import enable_from_environment, span
from ipr_engine.cuda.buckets import Passes, fill_rows
from ipr_engine.cuda.recording import PURPOSE, Graphs, Recording
from ipr_engine.cuda.shapes import Bucket, Pass
from ipr_engine.cuda.stream_encoder import StateEncoder, StreamEncoder
from ipr_engine.errors import BackendUnavailableError, InvalidInputError
from ipr_engine.gpu_router.block import Block
from ipr_engine.gpu_router.gpu_heads import GpuHeads, PolicyT
from ipr_engine.gpu_router.route_rows import RouteRows, rows_of
from ipr_engine.kernels.plan import GpuPlan, GpuRequest, GpuResult, result_views
from ipr_engine.kernels.run import DecideLaunch

POOLING = ("auto", "fused", "apart")
_RESULTS = {"threshold": np.float32, "gap": np.float32, "index": np.int32, "status": np.uint8, "cause": np.uint8}
_PER_MODEL = ("quality", "tokens_out", "cost_usd")


class GpuRouter:
    """Recordings of encoder, pooling and decide for every bucket, over live heads that may be replaced.

    The live heads are buffers of their own: before the rows of a request on other heads of the same variant, those are copied
    into them in the stream's order, so that requests in flight finish on the ones they began with, and a loaded bundle that a
    swap has replaced can still be asked. Safe to share between threads, which take turns.

    Attributes:
        encoder: whose work is recorded. live: the GpuPlan that the recordings read. passes: the slots of every bucket.
        fused: the decide kernel pools the token states; else torch (or the engine of TensorRT) does before it.
    """

    def __init__(self, encoder: StreamEncoder, heads: GpuHeads[Any], *, pooling: str = "auto") -> None:
        """Record every bucket.

        Args:
            pooling: "fused", "apart", or "auto": fused where one program decides all candidates and the encoder gives states.
        Raises:
            OutOfDeviceMemoryError, BackendUnavailableError: as Graphs.record.
        """
        if pooling not in POOLING:
            raise InvalidInputError(f"pooling: expected one of {', '.join(POOLING)}, got {pooling!r}")
        if encoder.graphs.device == "cpu" and not need("triton", PURPOSE, "gpu").knobs.runtime.interpret:
            raise BackendUnavailableError(
                "device: 'emulated' needs TRITON_INTERPRET=1 in the environment before triton loads"
            )
        enable_from_environment()
        self.encoder, self.variant = encoder, heads.variant
        plan = heads.plan
        self.live = GpuPlan(heads.packed, device=plan.device, policies=len(plan.policies), launch=plan.launch)
        self._loaded: GpuHeads[Any] | None = None
        states = isinstance(encoder, StateEncoder)
        if pooling == "fused" and not states:
            raise InvalidInputError("pooling: 'fused' needs an encoder that gives token states, as the torch tier does")
        self.fused = pooling == "fused" or (pooling == "auto" and states and plan.launch.one_program)
        self.passes = Passes(encoder.graphs, encoder.buckets, lambda graphs, bucket: RouteSlot(self, graphs, bucket))

    def serves(self, encoder: object, heads: GpuHeads[Any]) -> bool:
        """Return whether these recordings can run other heads: the same encoder, the same variant."""
        return encoder is self.encoder and heads.variant == self.variant

    def route(
        self, heads: GpuHeads[PolicyT], policy: PolicyT, rows: RouteRows
    ) -> tuple[DecideResult, NDArray[np.float32]]:
        """Decide the rows with `heads` under a policy of their bundle.

        Returns:
            The answers in the order of the rows, and their embeddings (rows, dim) float32.
        Raises:
            InvalidInputError: tokens_out is negative, or is missing where the heads predict none.
            DeviceLostError: the device failed.
        """
        tokens_out = _given_tokens(rows.tokens_out, heads)
        allowed = None if rows.limits is None else rows.limits.allowed
        found, x = self._decide(heads, policy, rows, tokens_out, allowed)
        max_tokens, answers = (None, None) if rows.limits is None else (rows.limits.max_tokens, rows.limits.answers)
        if rows.tokens_out is not None:  # as given: NaN came back as the infinity that stood for it
            found["tokens_out"][:] = rows.tokens_out
        expected = found["tokens_out"].copy()
        fits, tokens = heads.windows.within(rows.billed, expected, max_tokens, answers, rows.own_tokens)
        differs = (~fits).any(axis=1) | (tokens < expected).any(axis=1)
        again = np.flatnonzero(differs if answers is None else differs | (answers > 1))
        if len(again):  # their output is known only now
            mask = fits[again] if allowed is None else fits[again] & allowed[again]
            made, _ = self._decide(heads, policy, rows.at(again), _given_tokens(tokens[again], heads), mask)
            for name, array in made.items():
                found[name][again] = array
            found["tokens_out"][again] = tokens[again]
        return decide_result(**found), x

    def _decide(
        self,
        heads: GpuHeads[PolicyT],
        policy: PolicyT,
        rows: RouteRows,
        tokens_out: NDArray[np.float32] | None,
        allowed: NDArray[np.bool_] | None,
    ) -> tuple[dict[str, NDArray[Any]], NDArray[np.float32]]:
        """Return the answers of the rows as arrays, allowed (rows, models) or everyone, and their embeddings."""
        order = sorted(range(len(rows.ids)), key=lambda row: -len(rows.ids[row]))
        count, models = len(order), heads.plan.models
        found: dict[str, NDArray[Any]] = {name: np.empty((count, models), np.float32) for name in _PER_MODEL}
        found |= {name: np.empty(count, dtype) for name, dtype in _RESULTS.items()}
        x = np.empty((count, heads.plan.dim), np.float32)
        policy_row = 0

        def begin() -> None:
            nonlocal policy_row
            self._load(heads)
            policy_row = heads.row_of(policy, self.live)

        def fill(slot: RouteSlot, step: Pass) -> None:
            with span("copy"):
                mine = order[step.begin : step.end]
                live, host = slice(0, len(mine)), slot.inputs.host
                fill_rows(host["ids"], host["mask"], [rows.ids[row] for row in mine], slot.pad_id)
                # the policy's rates are of the bundle's tokens: token_ratio is in them
                own = None if rows.own_tokens is None else rows.own_tokens[mine] / heads.windows.ratios
                host["billed_tokens"][live] = rows.billed[mine, None] if own is None else own
                host["policy_of_row"].fill(policy_row)
                host["allowed"][live] = 1 if allowed is None else allowed[mine]
                host["tokens_out"][live] = _rows_or(np.nan, tokens_out, mine)  # NaN: the predicted ones
                host["extra_usd"][live] = _rows_or(0, rows.extra_usd, mine)

        def collect(slot: RouteSlot, step: Pass) -> None:
            mine = order[step.begin : step.end]
            for name, array in found.items():
                array[mine] = slot.outputs[name][: len(mine)]
            x[mine] = slot.x[: len(mine)]

        self.passes.run([len(rows.ids[row]) for row in order], fill, collect, begin)
        return found, x

    def _load(self, heads: GpuHeads[Any]) -> None:
        """Make `heads` the live ones, in the stream's order: on the device, nothing waits."""
        if self._loaded is not heads:
            for name in ("weights", "vectors", "policies"):
                getattr(self.live, name).copy_(getattr(heads.plan, name), non_blocking=True)
            self._loaded = heads


class RouteSlot:
    """The buffers of one pass and its recording.

    Attributes:
        inputs: ids, mask, bills, policy rows, given tokens, extra costs, masks; one copy.
        outputs: name -> numpy view of the answers on the host. x: (batch, dim), the embeddings on the host.
    """

    recording: Recording

    def __init__(self, router: GpuRouter, graphs: Graphs, bucket: Bucket) -> None:
        torch = need("torch", PURPOSE, "gpu")
        encoder, plan = router.encoder, router.live
        self.pad_id = encoder.pad_id
        batch, per_model = bucket.batch, (bucket.batch, plan.models)
        self.inputs = Block(
            graphs,
            {
                "ids": (bucket.shape, encoder.integer),
                "mask": (bucket.shape, encoder.integer),
                "billed_tokens": (per_model, "float32"),
                "policy_of_row": ((batch,), "int32"),
                "tokens_out": (per_model, "float32"),
                "extra_usd": (per_model, "float32"),
                "allowed": (per_model, "uint8"),
            },
        )
        self.inputs.host["mask"][:, 0] = 1
        self.inputs.host["allowed"].fill(1)
        embedded = graphs.buffer((batch, plan.dim), torch.float32)
        x = graphs.host_buffer((batch, plan.dim), torch.float32)
        self.x: NDArray[np.float32] = x.numpy()
        result = GpuResult(plan, batch)
        answers = graphs.host_buffer(tuple(result.block.shape), torch.uint8)
        self.outputs = {name: view.numpy() for name, view in result_views(answers, batch, plan.models).items()}
        decide = _decide(router, self.inputs.device, embedded, result, bucket)

        def work() -> None:
            self.inputs.copy_in()
            decide()
            answers.copy_(result.block, non_blocking=True)
            x.copy_(embedded, non_blocking=True)

        self.recording = graphs.record(str(bucket), work)


def _decide(router: GpuRouter, inputs: dict[str, Any], x: Any, result: Any, bucket: Bucket) -> Callable[[], None]:
    """Return what enqueues encoder and decision on the slot's device buffers."""
    encoder, plan, fused = router.encoder, router.live, router.fused
    ids, mask = inputs["ids"], inputs["mask"]
    rest = ("billed_tokens", "policy_of_row", "tokens_out", "extra_usd", "allowed")
    request = GpuRequest(x=x, **{name: inputs[name] for name in rest})
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
            states = encoder.states(ids, mask).contiguous()
        with span("decide"):  # bound here, since a recording gives the states an address of its own
            pooled = replace(
                request, states=states, token_mask=mask, pooling=encoder.pooling, normalize=encoder.normalize
            )
            DecideLaunch(plan, pooled, result)()

    return run


def _given_tokens(given: NDArray[np.float32] | None, heads: GpuHeads[Any]) -> NDArray[np.float32] | None:
    if given is None:
        if not heads.plan.has_tokens:
            raise InvalidInputError(
                "tokens_out: expected (models,) or (batch, models) float32, since these heads predict no tokens, got None"
            )
        return None
    if (given < 0).any():
        raise InvalidInputError(f"tokens_out: expected values >= 0, got {given[given < 0][0]:g}")
    # the kernel reads NaN as "not given"; infinity fails the row as NaN does on the CPU
    return np.where(np.isnan(given), np.float32(np.inf), given)


def _rows_or(absent: float, values: NDArray[np.float32] | None, rows: list[int]) -> NDArray[np.float32] | float:
    found = rows_of(values, rows)
    return absent if found is None else found
