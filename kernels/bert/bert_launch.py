"""A `BertLaunch` runs the encoder for one batch size and length: it checks and allocates once, its calls do neither.

    launch = BertLaunch(plan, ids, lengths, batch=8, tokens=64)
    launch()                        # enqueues 1 + 4 * layers kernels
    launch.states                   # (8, 64, dim) float16, before the last LayerNorm

With `copy` the first kernel also copies the request to the device, so that a graph needs no copy node: `ids` may then be
a part of what is copied, in pinned memory, and `lengths` is a part of the copy. With `workspace` launches that never run
at the same time share their buffers, `states` included: it holds those of the launch that ran last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from ipr_engine._extras import need
from ipr_engine.errors import BackendUnavailableError, InvalidInputError

from .bert_forms import BertForms
from .bert_plan import PURPOSE, BertPlan
from .bert_tiles import BLOCK_TOKENS, BertTiles, bert_tiles

HALF = 2  # bytes of a float16
ALIGN = 256  # of each buffer in a workspace: more than any load needs
LEAST_ALIGN = 16  # of a workspace: Triton compiles another variant for addresses that are no multiple of it


class BertLaunch:
    """A `BertLaunch` is bound to its tensors. A call enqueues the kernels on torch's current stream of the plan's device.

    The first call of a variant compiles it (Triton keeps it on disk): call once before capturing a graph.

    Args:
        ids: (batch, tokens) int32, padding on the right, of any ids. lengths: (batch,) int32, 1 or more tokens of each row;
            of a row of 0 the states are finite and mean nothing. Both on the plan's device, but see source.
        copy: (source, target), int32 tensors of equal size: source in pinned memory of the host, target on the device.
        workspace: (`workspace_bytes` or more,) uint8 on the plan's device, of any content; None allocates one.
        tiles: None takes the entry of bert_tiles.json for batch * tokens rows and the device.
    Attributes:
        states: (batch, tokens, dim) float16: the token states before the last LayerNorm.
        nodes: the number of kernels.
    Raises:
        InvalidInputError: a tensor's shape, type, place or layout differs from the above; too many tokens or rows.
        BackendUnavailableError: torch or triton is missing, or triton runs neither on the device nor in its interpreter.
    """

    def __init__(
        self,
        plan: BertPlan,
        ids: Any,
        lengths: Any,
        batch: int,
        tokens: int,
        copy: tuple[Any, Any] | None = None,
        workspace: Any = None,
        tiles: BertTiles | None = None,
    ) -> None:
        torch = need("torch", PURPOSE, "gpu")
        _check(plan, ids, lengths, batch, tokens)
        _check_copy(plan, copy)
        self.plan, self.batch, self.tokens = plan, batch, tokens
        self.ids, self.lengths, self._copy = ids, lengths, copy
        self.tiles = tiles or bert_tiles(batch * tokens, plan.arch, plan.shape.head)
        self._forms = BertForms(plan.shape, self.tiles, pdl=plan.pdl)

        begins, size = _layout(plan, batch * tokens)
        if workspace is None:
            workspace = torch.empty(size, dtype=torch.uint8, device=plan.device)
        _check_workspace(plan, workspace, size)

        def made(begin: int, width: int) -> Any:
            part = workspace[begin : begin + batch * tokens * width * HALF]
            return part.view(torch.float16).view(batch * tokens, width)

        self._y, self._x, self._context, self._wide = (made(*part) for part in begins)
        self.states = self._y.view(batch, tokens, plan.dim)
        self._calls = list(self._launches())
        self.nodes = len(self._calls)

    @staticmethod
    def workspace_bytes(plan: BertPlan, batch: int, tokens: int) -> int:
        """Return the bytes of all that a launch writes, but for the copy."""
        return _layout(plan, batch * tokens)[1]

    def buffers(self) -> tuple[Any, ...]:
        """Return what a call writes: for tests, which fill it before."""
        return self._y, self._x, self._context, self._wide

    def __call__(self) -> Any:
        if self.plan.device.type == "cuda":
            with need("torch", PURPOSE, "gpu").cuda.device(self.plan.device):  # Triton launches on the current device
                self._run()
        else:
            self._run()
        return self.states

    def _run(self) -> None:
        for call in self._calls:
            call()

    def _launches(self) -> Iterator[Callable[[], object]]:
        """Yield the kernels in their order, bound to their arguments."""
        triton = need("triton", PURPOSE, "gpu")
        if self.plan.device.type == "cpu" and not triton.knobs.runtime.interpret:
            raise BackendUnavailableError(
                f"{PURPOSE}: device cpu needs Triton's interpreter; set TRITON_INTERPRET=1 before Python starts"
            )
        from . import attention, linear  # these and embedding import triton

        plan, form = self.plan, self._forms.expand()
        y, x, context, wide = self.buffers()
        count, blocks = self.batch * self.tokens, -(-self.tokens // BLOCK_TOKENS)
        yield self._embed()
        for one in plan.stack:
            yield partial(
                attention.attend[(plan.shape.heads * blocks * self.batch,)],
                y, one.norm_scale, one.norm_shift, one.qkv, one.qkv_sums, one.qkv_bias, self.lengths, context, x,
                self.tokens, plan.dim, **self._forms.attend(),
            )  # fmt: skip
            yield self._project(linear, context, one.out, one.out_bias)
            yield partial(
                linear.expand[_programs(form, count, plan.shape.wide)],
                y, one.wide_scale, one.wide_shift, one.widen, one.widen_sums, one.widen_bias, wide, x, count, **form,
            )  # fmt: skip
            yield self._project(linear, wide, one.narrow, one.narrow_bias)

    def _embed(self) -> Callable[[], object]:
        from . import embedding

        plan, copies = self.plan, self._copy is not None
        source, target = self._copy or (self.lengths, self.lengths)
        return partial(
            embedding.embed[(self.batch * self.tokens,)],
            self.ids, plan.words, plan.places, self._y, source, target, self.tokens, plan.vocabulary, source.numel(),
            **self._forms.embed(copies=copies),
        )  # fmt: skip

    def _project(self, linear: Any, a: Any, w: Any, bias: Any) -> Callable[[], object]:
        count, form = self.batch * self.tokens, self._forms.project(w.shape[1])
        return partial(linear.project[_programs(form, count, len(w))], a, w, bias, self._x, self._y, count, **form)


def _programs(form: dict[str, Any], count: int, cols: int) -> tuple[int]:
    return (-(-count // form["BLOCK_M"]) * (cols // form["BLOCK_N"]),)


def _layout(plan: BertPlan, count: int) -> tuple[list[tuple[int, int]], int]:
    """Return (first byte, columns) of y, x, context and wide in a workspace, `count` rows each, and its size in bytes."""
    parts, at = [], 0
    for width in (plan.dim, plan.dim, plan.dim, plan.shape.wide):
        parts.append((at, width))
        at += -(-count * width * HALF // ALIGN) * ALIGN
    return parts, at


def _check(plan: BertPlan, ids: Any, lengths: Any, batch: int, tokens: int) -> None:
    torch = need("torch", PURPOSE, "gpu")
    if not 1 <= tokens <= plan.max_tokens:
        raise InvalidInputError(f"tokens: expected 1 to {plan.max_tokens}, the model's positions, got {tokens}")
    if batch < 1 or batch * tokens * plan.shape.wide >= 2**31:  # the kernels count elements in int32
        raise InvalidInputError(
            f"batch: expected 1 or more, and batch * tokens * {plan.shape.wide} below 2^31, got {batch} * {tokens}"
        )
    for name, tensor, shape in (("ids", ids, (batch, tokens)), ("lengths", lengths, (batch,))):
        if tuple(tensor.shape) != shape or tensor.dtype != torch.int32 or not tensor.is_contiguous():
            raise InvalidInputError(
                f"{name}: expected a contiguous int32 tensor of shape {shape}, got {tensor.dtype} {tuple(tensor.shape)}"
            )
    _check_place(plan, "lengths", lengths)
    if ids.device.type != "cpu" or not ids.is_pinned():
        _check_place(plan, "ids", ids)


def _check_workspace(plan: BertPlan, workspace: Any, size: int) -> None:
    torch = need("torch", PURPOSE, "gpu")
    shape, dtype = tuple(workspace.shape), workspace.dtype
    if dtype != torch.uint8 or len(shape) != 1 or not workspace.is_contiguous() or shape[0] < size:
        raise InvalidInputError(
            f"workspace: expected a contiguous uint8 tensor of {size} bytes or more (BertLaunch.workspace_bytes), got {dtype} {shape}"
        )
    _check_place(plan, "workspace", workspace)
    if workspace.data_ptr() % LEAST_ALIGN:
        raise InvalidInputError(
            f"workspace: expected an address that is a multiple of {LEAST_ALIGN}, as torch's allocations have, got "
            f"{workspace.data_ptr():#x}"
        )


def _check_copy(plan: BertPlan, copy: tuple[Any, Any] | None) -> None:
    torch = need("torch", PURPOSE, "gpu")
    if copy is None:
        return
    source, target = copy
    for name, tensor in (("copy[0]", source), ("copy[1]", target)):
        if tensor.dtype != torch.int32 or tensor.dim() != 1 or not tensor.is_contiguous():
            raise InvalidInputError(
                f"{name}: expected a contiguous int32 tensor of one dimension, got {tensor.dtype} {tuple(tensor.shape)}"
            )
    if source.numel() != target.numel():
        raise InvalidInputError(f"copy[1]: expected {source.numel()} int32, as copy[0] has, got {target.numel()}")
    _check_place(plan, "copy[1]", target)
    if plan.device.type == "cuda" and not (source.device.type == "cpu" and source.is_pinned()):
        raise InvalidInputError(f"copy[0]: expected a tensor in pinned memory of the host, got one on {source.device}")


def _check_place(plan: BertPlan, name: str, tensor: Any) -> None:
    here = (tensor.device.type, tensor.device.index or 0)
    if here != (plan.device.type, plan.device.index or 0):
        raise InvalidInputError(f"{name}: expected a tensor on {plan.device}, as the plan, got one on {tensor.device}")
