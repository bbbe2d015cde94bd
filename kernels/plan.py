"""A `GpuPlan` holds heads and policies on the device; `GpuRequest` and `GpuResult` are the buffers of a launch.

    plan = GpuPlan(heads, device="cuda", dtype="float16", policies=8)     # packs and copies; once per set of heads
    plan.set_policy(0, alpha_hi=0.7, alpha_lo=0.3, offset=0, worth=0,     # a policy is a row of plan.policies
                    in_rate=in_rate, out_rate=out_rate, fixed_usd=fixed_usd, allowed=allowed)
    request, result = GpuRequest.buffers(plan, batch=8), GpuResult(plan, batch=8)
    launch = DecideLaunch(plan, request, result)                          # run.py: checks once
    launch()                                                              # no check, no allocation, may be captured

Device "cpu" works under Triton's interpreter (TRITON_INTERPRET=1 before triton is imported): slow, for tests.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from ipr_engine._extras import need
from ipr_engine.decide.contract import DecidePlan, Heads
from ipr_engine.errors import InvalidInputError

from .packing import (
    Floats,
    dim_of,
    forest_of,
    pack_policy,
    pack_vectors,
    pack_weights,
    policy_width,
    round_up,
    width_of,
)
from .variant import TYPES, KernelVariant, LaunchParams, Pooling, WeightType, check_fits, grid, launch_params

PURPOSE = "decide on a GPU"


class GpuPlan:
    """A `GpuPlan` holds heads packed on a device. After construction only the rows of `policies` change.

    Args:
        heads: copied.
        device: a torch device: "cuda", "cuda:1"; "cpu" under Triton's interpreter.
        dtype: of the weights: "float32", "float16" or "bfloat16"; sums are float32 in any case, and x is.
        policies: rows of the policies buffer; a row that was never set allows nobody.
        launch: None takes launch.json's entry for the heads' shape and the device.
    Attributes:
        models, dim, hidden, rank, has_tokens: of the heads. arch: the device's, "sm_90" say; None on the CPU.
        trees, depth: of the forest, 0 without one.
        weights, vectors, policies: torch tensors (layout: decide.py). Other heads of the same variant may be copied into
            the first two in stream order; launches after the copy use them.
        nothing: (1,) int64, 0: what a launch points to in place of what a request leaves out.
        launch: LaunchParams, the same for every batch.
    Raises:
        InvalidInputError: the heads do not fit `dtype`, an argument is outside of the above.
        BackendUnavailableError: torch is missing.
    """

    def __init__(
        self,
        heads: Heads,
        *,
        device: Any = "cuda",
        dtype: WeightType = "float32",
        policies: int = 1,
        launch: LaunchParams | None = None,
    ) -> None:
        torch = need("torch", PURPOSE, "gpu")
        if dtype not in TYPES:
            raise InvalidInputError(f"dtype: expected one of {', '.join(TYPES)}, got {dtype!r}")
        if policies < 1:
            raise InvalidInputError(f"policies: expected at least 1, got {policies}")
        self.device = torch.device(device)
        self.dtype: WeightType = dtype
        self.models, self.dim = len(heads.bias), dim_of(heads)
        self.hidden = 0 if heads.out is None else heads.out.shape[1]
        self.rank = 0 if heads.down is None else heads.down.shape[1]
        self.trees, self.depth = forest_of(heads)
        self.has_tokens = heads.len_skip is not None
        self.arch = _arch(torch, self.device)
        self.launch = launch or launch_params(self.models, self.dim, self.arch, adapters=self.rank > 0)
        check_fits(self.launch, self.models)
        packed = torch.from_numpy(pack_weights(heads)).to(getattr(torch, dtype))
        if packed.numel() >= 2**31:  # the kernel counts them in int32
            raise InvalidInputError(f"heads: expected fewer than 2^31 weights, got {packed.numel()}")
        if not bool(torch.isfinite(packed).all()):
            raise InvalidInputError(f"dtype: these heads have weights outside the range of {dtype}; use float32")
        self.weights = packed.to(self.device)
        vectors = pack_vectors(heads)
        if vectors.size >= 2**31:
            raise InvalidInputError(f"tree_leaf: expected fewer than 2^31 numbers in a forest, got {vectors.size}")
        self.vectors = torch.from_numpy(vectors).to(self.device)
        shape = (policies, policy_width(self.models))
        if policies * shape[1] >= 2**31:
            raise InvalidInputError(
                f"policies: expected rows of {shape[1]} numbers, fewer than 2^31 of them in all, got {policies} rows"
            )
        self.policies = torch.zeros(shape, dtype=torch.float32, device=self.device)
        self.nothing = torch.zeros(1, dtype=torch.int64, device=self.device)
        self._checker = DecidePlan(heads)
        self._fixed: dict[str, Any] = {
            "dim": self.dim, "hidden": self.hidden, "rank": self.rank, "activation": heads.activation,
            "skip": heads.skip is not None, "trunk": heads.trunk is not None, "identity": heads.identity is not None,
            "tokens": self.has_tokens, "weights": dtype, "trees": self.trees, "depth": self.depth,
            "width": 0 if width_of(heads) == self.dim else width_of(heads),
        }  # fmt: skip

    def pack_policy(self, **terms: Any) -> Floats:
        """Return a policy as a row of `policies`, checked; terms are DecidePolicy's keywords."""
        return pack_policy(self._checker, **terms)

    def set_policy(self, row: int, **terms: Any) -> None:
        """Write a policy into a row of `policies`, in the current stream's order.

        Raises:
            InvalidInputError: no such row, or as DecidePolicy.
        """
        if not 0 <= row < len(self.policies):
            raise InvalidInputError(f"row: expected 0 to {len(self.policies) - 1}, got {row}")
        torch = need("torch", PURPOSE, "gpu")
        self.policies[row].copy_(torch.from_numpy(self.pack_policy(**terms)))

    def variant(self, **asked: Any) -> KernelVariant:
        """Return the kernel variant of these heads; asked: KernelVariant's fields that tell of a request and its launch."""
        return KernelVariant(**self._fixed, **asked)

    def grid(self, batch: int) -> tuple[int, int, int]:
        """Return the programs of a launch over `batch` rows."""
        return grid(self.launch, batch, self.models)


def _arch(torch: Any, device: Any) -> str | None:
    if device.type != "cuda":
        return None
    major, minor = torch.cuda.get_device_capability(device)
    return f"sm_{major}{minor}"


@dataclass(frozen=True, kw_only=True)
class StateNorm:
    """A `StateNorm` is a LayerNorm over a token's numbers: scale, shift (dim,) float32 on the plan's device, eps > 0."""

    scale: Any
    shift: Any
    eps: float


@dataclass(frozen=True, kw_only=True)
class GpuRequest:
    """A `GpuRequest` holds a launch's inputs, C-contiguous torch tensors on the plan's device; a captured graph reads them at each replay.

    billed_tokens, policy_of_row, tokens_out, extra_usd, allowed, lengths and sequence may lie in pinned memory of the host: a
    launch reads them where they are, at PCIe's latency.

    Attributes:
        x: (batch, dim) float32; written by the launch where `states` are given.
        billed_tokens: (batch,) or (batch, models) float32, >= 0.
        policy_of_row: (batch,) int32, rows of plan.policies; a row outside of them fails with status none_allowed.
        tokens_out: (batch, models) or (models,) float32, >= 0; NaN = the predicted ones. None: all predicted.
        extra_usd: (batch, models) or (models,) float32. None: 0.
        allowed: (batch, models) or (models,) bool or uint8, anded with the policy's. None: the policy's alone.
        states: (batch, tokens, dim) float32, float16 or bfloat16, the encoder's last hidden state, or None.
        lengths: (batch,) int32, tokens of each row, padding is on its right; with `states`. Beyond 0 to tokens: the nearer of both.
        pooling, normalize: how states become x ("mean", "cls", "last"); "none" without states.
        norm: the LayerNorm that each token of the states still has to pass, or None.
        sequence: (1,) int32, the number that the launch stores in its result's `done`; None where that has none.
    """

    x: Any
    billed_tokens: Any
    policy_of_row: Any
    tokens_out: Any = None
    extra_usd: Any = None
    allowed: Any = None
    states: Any = None
    lengths: Any = None
    pooling: Pooling = "none"
    normalize: bool = False
    norm: StateNorm | None = None
    sequence: Any = None

    @classmethod
    def buffers(cls, plan: GpuPlan, batch: int, *, optional: bool = True, **given: Any) -> GpuRequest:
        """Make the buffers of a batch: policy 0, no tokens given, nothing extra, everybody allowed; x and billed_tokens are 0.

        optional: whether tokens_out, extra_usd and allowed get (batch, models) buffers. `given` replaces any of them.
        """
        torch = need("torch", PURPOSE, "gpu")

        def full(shape: tuple[int, ...], value: float, dtype: Any) -> Any:
            return torch.full(shape, value, dtype=dtype, device=plan.device)

        made = {
            "x": full((batch, plan.dim), 0, torch.float32),
            "billed_tokens": full((batch,), 0, torch.float32),
            "policy_of_row": full((batch,), 0, torch.int32),
        }
        if optional:
            shape = (batch, plan.models)
            made["tokens_out"] = full(shape, float("nan"), torch.float32)
            made["extra_usd"] = full(shape, 0, torch.float32)
            made["allowed"] = full(shape, 1, torch.uint8)
        return cls(**{**made, **given})


def check_tensor(
    plan: GpuPlan, name: str, tensor: Any, shapes: list[tuple[int, ...]], dtypes: list[Any], *, host: bool = False
) -> None:
    """Raise InvalidInputError where a tensor is not what a launch of `plan` takes; host: it may be pinned memory of the host."""
    if tuple(tensor.shape) not in shapes:
        wanted = " or ".join(str(shape) for shape in shapes)
        raise InvalidInputError(f"{name}: expected shape {wanted}, got {tuple(tensor.shape)}")
    if tensor.dtype not in dtypes:
        raise InvalidInputError(f"{name}: expected {' or '.join(map(str, dtypes))}, got {tensor.dtype}")
    here = (tensor.device.type, tensor.device.index or 0)
    on_device = here == (plan.device.type, plan.device.index or 0)
    if not on_device and not (host and tensor.device.type == "cpu" and tensor.is_pinned()):
        or_pinned = " or in pinned memory" if host else ""
        raise InvalidInputError(
            f"{name}: expected a tensor on {plan.device}, as the plan{or_pinned}, got one on {tensor.device}"
        )
    if not tensor.is_contiguous() or tensor.data_ptr() % 16:  # build.py promises the compiler 16 bytes
        raise InvalidInputError(f"{name}: expected a contiguous tensor aligned to 16 bytes; copy it with .clone()")


# The results of each row: type and bytes of an element; `models` of them where a name is in PER_MODEL.
RESULTS = {
    "quality": ("float32", 4), "tokens_out": ("float32", 4), "cost_usd": ("float32", 4), "threshold": ("float32", 4),
    "gap": ("float32", 4), "index": ("int32", 4), "status": ("uint8", 1), "cause": ("uint8", 1),
}  # fmt: skip
PER_MODEL = ("quality", "tokens_out", "cost_usd")


def result_layout(batch: int, models: int) -> tuple[dict[str, tuple[int, int]], int]:
    """Return where each result lies in a block: (first byte, bytes), each at a multiple of 256; and the block's bytes."""
    at, layout = 0, {}
    for name, (_, size) in RESULTS.items():
        count = batch * (models if name in PER_MODEL else 1) * size
        layout[name] = (at, count)
        at += round_up(count, 256)  # a view of another type needs its alignment; 256 is what an allocation has
    return layout, at


def result_views(block: Any, batch: int, models: int) -> dict[str, Any]:
    """Return the results in a block: a torch uint8 tensor on any device, pinned memory too."""
    torch = need("torch", PURPOSE, "gpu")
    layout, _ = result_layout(batch, models)
    shapes = {name: (batch, models) if name in PER_MODEL else (batch,) for name in RESULTS}
    return {
        name: block[begin : begin + count].view(getattr(torch, RESULTS[name][0])).view(shapes[name])
        for name, (begin, count) in layout.items()
    }


class GpuResult:
    """A `GpuResult` holds the answers of a batch, with the fields of DecideResult, and the launch's own working memory on the device.

    Two launches that may run at the same time need two of these.

    Args:
        block, x_copy, done: as the attributes of those names. In pinned memory of the host the launch writes them there,
            and nothing has to be copied; a block there needs heads that one program decides.
    Attributes:
        block: uint8, all answers, result_layout's bytes; made on the device where none is given: one copy takes them to the
            host (result_views reads them there).
        x_copy: (batch, dim) float32, a second place for an x that the launch makes of token states, or None.
        done: (1,) int32: the last thing that the launch does is to store the request's sequence number here. A host that
            sees it (an acquire load) sees all answers. None: nobody is told.
        quality, tokens_out, cost_usd: (batch, models) float32. threshold, gap: (batch,) float32.
        index: (batch,) int32. status, cause: (batch,) uint8.
    """

    def __init__(self, plan: GpuPlan, batch: int, *, block: Any = None, x_copy: Any = None, done: Any = None) -> None:
        torch = need("torch", PURPOSE, "gpu")
        if batch * plan.models * max(plan.rank, 1) >= 2**31:
            raise InvalidInputError(
                f"batch: expected batch * models * rank below 2^31, got {batch} * {plan.models} * {plan.rank}"
            )
        if batch * plan.dim >= 2**31:  # the kernel counts the elements of x in int32
            raise InvalidInputError(f"batch: expected batch * dim below 2^31, got {batch} * {plan.dim}")
        self.batch, self.models = batch, plan.models
        _, size = result_layout(batch, plan.models)
        if block is not None:
            check_tensor(plan, "block", block, [(size,)], [torch.uint8], host=True)
            if not plan.launch.one_program and block.device.type != plan.device.type:
                raise InvalidInputError(
                    f"block: expected one on {plan.device}, since several programs decide {plan.models} candidates and the "
                    f"last one reads their answers back, got one on {block.device}; copy the answers from there"
                )
        self.block = torch.empty(size, dtype=torch.uint8, device=plan.device) if block is None else block
        for name, tensor, shape, dtype in (
            ("x_copy", x_copy, (batch, plan.dim), torch.float32), ("done", done, (1,), torch.int32)
        ):  # fmt: skip
            if tensor is not None:
                check_tensor(plan, name, tensor, [shape], [dtype], host=True)
        self.x_copy, self.done = x_copy, done
        views = result_views(self.block, batch, plan.models)
        self.quality, self.tokens_out, self.cost_usd = views["quality"], views["tokens_out"], views["cost_usd"]
        self.threshold, self.gap, self.index = views["threshold"], views["gap"], views["index"]
        self.status, self.cause = views["status"], views["cause"]
        row_blocks, programs, _ = plan.grid(batch)
        # Working memory: products of the adapters, what each program found bad, and how many programs of a row block, and
        # last how many row blocks, are done. The kernel sets `arrivals` back to 0, so it is zeroed once.
        self.adapters = torch.empty(max(batch * plan.models * plan.rank, 1), dtype=torch.float32, device=plan.device)
        self.flags = torch.empty(max(batch * programs, 1), dtype=torch.int32, device=plan.device)
        self.arrivals = torch.zeros(row_blocks + 1, dtype=torch.int32, device=plan.device)

    def numpy(self) -> dict[str, npt.NDArray[Any]]:
        """Return the answers as arrays: copies, which wait for the launch, or views of a block that was given on the host.

        Whoever reads those has waited: for `done`, or for the stream.
        """
        views = result_views(self.block.cpu(), self.batch, self.models)
        return {name: view.numpy() for name, view in views.items()}
