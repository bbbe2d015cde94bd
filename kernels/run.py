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
from .plan import PURPOSE, GpuPlan, GpuRequest, GpuResult
from .variant import INTEGERS, POINTERS, TYPES, KernelVariant, options


def variant_of(plan: GpuPlan, request: GpuRequest) -> KernelVariant:
    """Return the kernel variant for the optional inputs that `request` has."""
    return plan.variant(
        given=request.tokens_out is not None,
        extra=request.extra_usd is not None,
        row_mask=request.allowed is not None,
        pooling=request.pooling,
        normalize=request.normalize,
        states="float32" if request.states is None else str(request.states.dtype).removeprefix("torch."),  # type: ignore[arg-type]
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
    _check(plan, "x", request.x, [(batch, plan.dim)], [torch.float32])
    _check(plan, "billed_tokens", request.billed_tokens, [(batch,), (batch, models)], [torch.float32])
    _check(plan, "policy_of_row", request.policy_of_row, [(batch,)], [torch.int32])
    both = [(batch, models), (models,)]
    for name, dtypes in (
        ("tokens_out", [torch.float32]),
        ("extra_usd", [torch.float32]),
        ("allowed", [torch.uint8, torch.bool]),
    ):
        if getattr(request, name) is not None:
            _check(plan, name, getattr(request, name), both, dtypes)
    if request.tokens_out is None and not plan.has_tokens:
        raise InvalidInputError(
            "tokens_out: expected (models,) or (batch, models) float32, since these heads predict no tokens, got None"
        )
    tokens = _check_pooling(plan, request, batch)

    nothing = plan.nothing  # what an absent pointer points to; made here it would be a node of every graph
    floats, byte = nothing.view(torch.float32), nothing.view(torch.uint8)
    given = {
        "x": request.x, "weights": plan.weights, "vectors": plan.vectors, "policies": plan.policies,
        "policy_of_row": request.policy_of_row, "billed_tokens": request.billed_tokens,
        "given_tokens": floats if request.tokens_out is None else request.tokens_out,
        "extra_usd": floats if request.extra_usd is None else request.extra_usd,
        "row_allowed": byte if request.allowed is None else request.allowed.view(torch.uint8),
        "states": floats if request.states is None else request.states,
        "lengths": nothing.view(torch.int32) if request.lengths is None else request.lengths,
        "quality": result.quality, "tokens_out": result.tokens_out, "cost_usd": result.cost_usd,
        "threshold_to": result.threshold, "gap_to": result.gap, "index_to": result.index,
        "status_to": result.status, "cause_to": result.cause,
        "adapters": result.adapters, "flags": result.flags, "arrivals": result.arrivals,
        "batch": batch, "models": models, "policy_count": len(plan.policies),
        "billed_stride": int(request.billed_tokens.stride(0)) if batch else 0,
        "billed_step": request.billed_tokens.dim() - 1,
        "given_stride": _row_stride(request.tokens_out), "extra_stride": _row_stride(request.extra_usd),
        "allowed_stride": _row_stride(request.allowed), "tokens": tokens,
    }  # fmt: skip
    return tuple(given[name] for name in (*POINTERS, *INTEGERS))


def _check(plan: GpuPlan, name: str, tensor: Any, shapes: list[tuple[int, ...]], dtypes: list[Any]) -> None:
    if tuple(tensor.shape) not in shapes:
        wanted = " or ".join(str(shape) for shape in shapes)
        raise InvalidInputError(f"{name}: expected shape {wanted}, got {tuple(tensor.shape)}")
    if tensor.dtype not in dtypes:
        raise InvalidInputError(f"{name}: expected {' or '.join(map(str, dtypes))}, got {tensor.dtype}")
    here = (tensor.device.type, tensor.device.index or 0)
    if here != (plan.device.type, plan.device.index or 0):
        raise InvalidInputError(f"{name}: expected a tensor on {plan.device}, as the plan, got one on {tensor.device}")
    if not tensor.is_contiguous() or tensor.data_ptr() % 16:  # build.py promises the compiler 16 bytes
        raise InvalidInputError(f"{name}: expected a contiguous tensor aligned to 16 bytes; copy it with .clone()")


def _check_pooling(plan: GpuPlan, request: GpuRequest, batch: int) -> int:
    """Return the number of tokens, 0 without pooling."""
    if request.pooling not in ("none", "mean", "cls", "last"):
        raise InvalidInputError(f"pooling: expected 'none', 'mean', 'cls' or 'last', got {request.pooling!r}")
    if (request.pooling == "none") != (request.states is None) or (request.states is None) != (request.lengths is None):
        raise InvalidInputError("states: expected states, lengths and a pooling together, or none of them")
    if request.states is None:
        if request.normalize:
            raise InvalidInputError("normalize: expected False without states: x is taken as it is")
        return 0
    torch = need("torch", PURPOSE, "gpu")
    tokens = int(request.states.shape[1]) if request.states.dim() == 3 else 0
    _check(plan, "lengths", request.lengths, [(batch,)], [torch.int32])
    _check(plan, "states", request.states, [(batch, tokens, plan.dim)], [getattr(torch, name) for name in TYPES])
    return tokens


def _row_stride(tensor: Any) -> int:
    """Return the elements from row to row: 0 where all rows share (models,) values."""
    return 0 if tensor is None or tensor.dim() == 1 else int(tensor.shape[1])


class DecideLaunch:
    """A `DecideLaunch` is a launch bound to its tensors. A call enqueues the kernel on torch's current stream of the plan's device.

    Args:
        kernel: a cubin to launch through the driver; None compiles with Triton, at the first call of a variant (Triton keeps
            it on disk): call once before capturing a graph.
    Raises:
        InvalidInputError: as kernel_arguments; `kernel` was compiled for another variant.
        BackendUnavailableError: torch, or without `kernel` triton, is missing.
    """

    def __init__(
        self, plan: GpuPlan, request: GpuRequest, result: GpuResult, *, kernel: CubinKernel | None = None
    ) -> None:
        self.plan, self.request, self.result = plan, request, result
        self.variant = variant_of(plan, request)
        self.arguments = kernel_arguments(plan, request, result)
        self.grid = plan.grid(result.batch)
        self._launch = self._by_triton() if kernel is None else self._by_driver(kernel)

    def _by_triton(self) -> Callable[[], object]:
        need("triton", PURPOSE, "gpu")
        torch, device = need("torch", PURPOSE, "gpu"), self.plan.device
        from .decide import decide_kernel

        fixed = {**self.variant.constants(self.plan.launch), **options(self.plan.launch)}
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
