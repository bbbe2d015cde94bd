"""A `DecideLaunch` runs `decide` on a device: it checks once, then its launches check and allocate nothing.

launch = DecideLaunch(plan, request, result)      # inputs and outputs are bound: graph capture calls launch()
launch()
decide(plan, request, result)                     # both, for a single call
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ipr_engine._extras import need
from ipr_engine.errors import InvalidInputError

from .cubin import CubinKernel
from .plan import PURPOSE, GpuPlan, GpuRequest, GpuResult, check_tensor
from .variant import INTEGERS, POINTERS, TYPES, KernelVariant, options, takes_pdl


def variant_of(
    plan: GpuPlan, request: GpuRequest, result: GpuResult | None = None, *, pdl: bool = False
) -> KernelVariant:
    """Return the kernel variant for what `request` brings and `result` asks for (None: nothing beside the answers)."""
    return plan.variant(
        given=request.tokens_out is not None,
        extra=request.extra_usd is not None,
        row_mask=request.allowed is not None,
        pooling=request.pooling,
        normalize=request.normalize,
        states="float32" if request.states is None else str(request.states.dtype).removeprefix("torch."),
        state_eps=0.0 if request.norm is None else float(request.norm.eps),
        x_copy=result is not None and result.x_copy is not None,
        done=result is not None and result.done is not None,
        pdl=pdl,
    )


def kernel_arguments(plan: GpuPlan, request: GpuRequest, result: GpuResult) -> tuple[Any, ...]:
    """Return the kernel's arguments in the order of variant.POINTERS and INTEGERS, checked.

    Raises:
        InvalidInputError: a tensor's shape, dtype, device or layout differs from GpuRequest's.
    """
    torch = need("torch", PURPOSE, "gpu")
    batch, models = result.batch, plan.models
    if result.models != models:
        raise InvalidInputError(f"result: expected one made for {models} models, got one for {result.models}")
    check_tensor(plan, "x", request.x, [(batch, plan.dim)], [torch.float32])
    check_tensor(plan, "billed_tokens", request.billed_tokens, [(batch,), (batch, models)], [torch.float32], host=True)
    check_tensor(plan, "policy_of_row", request.policy_of_row, [(batch,)], [torch.int32], host=True)
    both = [(batch, models), (models,)]
    for name, dtypes in (
        ("tokens_out", [torch.float32]),
        ("extra_usd", [torch.float32]),
        ("allowed", [torch.uint8, torch.bool]),
    ):
        if getattr(request, name) is not None:
            check_tensor(plan, name, getattr(request, name), both, dtypes, host=True)
    if request.tokens_out is None and not plan.has_tokens:
        raise InvalidInputError(
            "tokens_out: expected (models,) or (batch, models) float32, since these heads predict no tokens, got None"
        )
    tokens = _check_pooling(plan, request, batch)
    _check_told(plan, request, result)

    nothing = plan.nothing  # what an absent pointer points to; made here it would be a node of every graph
    floats, whole, byte = nothing.view(torch.float32), nothing.view(torch.int32), nothing.view(torch.uint8)
    norm = request.norm
    given = {
        "x": request.x, "weights": plan.weights, "vectors": plan.vectors, "policies": plan.policies,
        "policy_of_row": request.policy_of_row, "billed_tokens": request.billed_tokens,
        "given_tokens": floats if request.tokens_out is None else request.tokens_out,
        "extra_usd": floats if request.extra_usd is None else request.extra_usd,
        "row_allowed": byte if request.allowed is None else request.allowed.view(torch.uint8),
        "states": floats if request.states is None else request.states,
        "lengths": whole if request.lengths is None else request.lengths,
        "norm_scale": floats if norm is None else norm.scale, "norm_shift": floats if norm is None else norm.shift,
        "sequence": whole if request.sequence is None else request.sequence,
        "quality": result.quality, "tokens_out": result.tokens_out, "cost_usd": result.cost_usd,
        "threshold_to": result.threshold, "gap_to": result.gap, "index_to": result.index,
        "status_to": result.status, "cause_to": result.cause,
        "x_copy": floats if result.x_copy is None else result.x_copy, "done": whole if result.done is None else result.done,
        "adapters": result.adapters, "flags": result.flags, "arrivals": result.arrivals,
        "batch": batch, "models": models, "policy_count": len(plan.policies),
        "billed_stride": int(request.billed_tokens.stride(0)) if batch else 0,
        "billed_step": request.billed_tokens.dim() - 1,
        "given_stride": _row_stride(request.tokens_out), "extra_stride": _row_stride(request.extra_usd),
        "allowed_stride": _row_stride(request.allowed), "tokens": tokens,
    }  # fmt: skip
    return tuple(given[name] for name in (*POINTERS, *INTEGERS))


def _check_pooling(plan: GpuPlan, request: GpuRequest, batch: int) -> int:
    """Return the number of tokens, 0 without pooling."""
    if request.pooling not in ("none", "mean", "cls", "last"):
        raise InvalidInputError(f"pooling: expected 'none', 'mean', 'cls' or 'last', got {request.pooling!r}")
    if (request.pooling == "none") != (request.states is None) or (request.states is None) != (request.lengths is None):
        raise InvalidInputError("states: expected states, lengths and a pooling together, or none of them")
    if request.states is None:
        if request.normalize:
            raise InvalidInputError("normalize: expected False without states: x is taken as it is")
        if request.norm is not None:
            raise InvalidInputError("norm: expected None without states: x is taken as it is")
        return 0
    torch = need("torch", PURPOSE, "gpu")
    tokens = int(request.states.shape[1]) if request.states.dim() == 3 else 0
    check_tensor(plan, "lengths", request.lengths, [(batch,)], [torch.int32], host=True)
    check_tensor(plan, "states", request.states, [(batch, tokens, plan.dim)], [getattr(torch, name) for name in TYPES])
    if request.norm is not None:
        if not 0 < request.norm.eps < float("inf"):
            raise InvalidInputError(f"norm.eps: expected a number above 0, got {request.norm.eps}")
        for name in ("scale", "shift"):
            check_tensor(plan, f"norm.{name}", getattr(request.norm, name), [(plan.dim,)], [torch.float32])
    return tokens


def _check_told(plan: GpuPlan, request: GpuRequest, result: GpuResult) -> None:
    """Check what the launch writes beside the answers."""
    if result.x_copy is not None and request.states is None:
        raise InvalidInputError("x_copy: expected None without states: x is taken as it is, and not written")
    if (result.done is None) != (request.sequence is None):
        raise InvalidInputError("sequence: expected one where the result has `done`, and none where it has not")
    if request.sequence is not None:
        if not result.batch:
            raise InvalidInputError(
                "batch: expected at least one row where the host is told: an empty batch launches nothing"
            )
        check_tensor(plan, "sequence", request.sequence, [(1,)], [need("torch", PURPOSE, "gpu").int32], host=True)


def _row_stride(tensor: Any) -> int:
    """Return the elements from row to row: 0 where all rows share (models,) values."""
    return 0 if tensor is None or tensor.dim() == 1 else int(tensor.shape[1])


class DecideLaunch:
    """A `DecideLaunch` is a launch bound to its tensors. A call enqueues the kernel on torch's current stream of the plan's device.

    Args:
        kernel: a cubin to launch through the driver; None compiles with Triton, at the first call of a variant (Triton keeps
            it on disk): call once before capturing a graph.
        pdl: programmatic dependent launch, from sm_90 on: the kernel may begin before the one in front of it has ended, and
            waits for it before it reads what a request brings. A cubin waits too, and is launched without it.
    Raises:
        InvalidInputError: as kernel_arguments; `kernel` was compiled for another variant; `pdl` on an older device.
        BackendUnavailableError: torch, or without `kernel` triton, is missing.
    """

    def __init__(
        self,
        plan: GpuPlan,
        request: GpuRequest,
        result: GpuResult,
        *,
        kernel: CubinKernel | None = None,
        pdl: bool = False,
    ) -> None:
        if pdl and plan.arch is not None and not takes_pdl(plan.arch):
            raise InvalidInputError(
                f"pdl: expected False on {plan.arch}: programmatic dependent launch begins with sm_90"
            )
        self.plan, self.request, self.result = plan, request, result
        self.variant = variant_of(plan, request, result, pdl=pdl)
        self.arguments = kernel_arguments(plan, request, result)
        self.grid = plan.grid(result.batch)
        self._launch = self._by_triton() if kernel is None else self._by_driver(kernel)

    def _by_triton(self) -> Callable[[], object]:
        need("triton", PURPOSE, "gpu")
        torch, device = need("torch", PURPOSE, "gpu"), self.plan.device
        from .decide import decide_kernel

        fixed = {**self.variant.constants(self.plan.launch), **options(self.plan.launch, pdl=self.variant.pdl)}
        launch = partial(decide_kernel[self.grid], *self.arguments, **fixed)
        if device.type != "cuda" or torch.cuda.device_count() == 1:
            return launch

        def launch_there() -> None:  # Triton launches on the current device
            with torch.cuda.device(device):
                launch()

        return launch_there

    def _by_driver(self, kernel: CubinKernel) -> Callable[[], object]:
        torch, device = need("torch", PURPOSE, "gpu"), self.plan.device
        wanted = self.variant.constants(self.plan.launch)
        if kernel.metadata.constants != wanted or kernel.metadata.arguments != tuple(self.variant.signature().items()):
            raise InvalidInputError(
                f"kernel: expected {self.variant.name(self.plan.launch)}, got {kernel.metadata.name}, compiled for another form"
            )
        return lambda: kernel.launch(self.grid, self.arguments, torch.cuda.current_stream(device).cuda_stream)

    def __call__(self) -> GpuResult:
        if self.result.batch:
            self._launch()
        return self.result


def decide(plan: GpuPlan, request: GpuRequest, result: GpuResult) -> GpuResult:
    """Decide one batch: docs/decide.md, with the answers in `result`.

    Raises:
        InvalidInputError: as kernel_arguments.
        BackendUnavailableError: torch or triton is missing.
    """
    return DecideLaunch(plan, request, result)()
