"""A `GpuRouter` turns rows of ids into decisions on a device: one recording per bucket, one wait per request.

GpuHeads    a bundle's heads, and the policies used lately
GpuRouter   the recordings of all buckets, over live heads that a swap replaces in the stream's order
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from ipr_engine._C import DecideResult, decide_result
from ipr_engine._extras import need
from ipr_engine._profiling import enable_from_environment, span
from ipr_engine.cuda.buckets import Bucket, Pass, Passes, StateEncoder, StreamEncoder, fill_rows
from ipr_engine.cuda.graphs import Graphs
from ipr_engine.cuda.lost_device import PURPOSE
from ipr_engine.decide.contract import Heads
from ipr_engine.errors import BackendUnavailableError, InvalidInputError
from ipr_engine.gpu_router.route_rows import RouteRows, Windows, rows_of
from ipr_engine.gpu_router.route_slot import RouteSlot
from ipr_engine.kernels.plan import GpuPlan

POLICY_ROWS = 64  # policies on the device at once; the one used longest ago gives its row to a new one

PolicyT = TypeVar("PolicyT")


class GpuHeads(Generic[PolicyT]):
    """`GpuHeads` hold a bundle's heads on a device, in float32, and the rows of the policies used lately.

    Attributes:
        packed: the heads, as the CPU plans them. plan: their GpuPlan on `device`.
        windows: the candidates' context windows.
    """

    def __init__(
        self, packed: Heads, windows: Windows, op_terms: Callable[[PolicyT], Mapping[str, Any]], device: str
    ) -> None:
        """Copy the heads to the device. op_terms: a policy of the heads' bundle -> DecidePolicy's arguments."""
        self.packed, self.windows = packed, windows
        self._op_terms = op_terms
        self.plan = GpuPlan(packed, device=device, policies=POLICY_ROWS)
        if self.plan.device.type == "cuda":  # the plan was filled in another stream than it is read in
            need("torch", PURPOSE, "gpu").cuda.synchronize(self.plan.device)
        self._rows: OrderedDict[int, tuple[PolicyT, int]] = OrderedDict()

    @property
    def variant(self) -> tuple[Any, ...]:
        """The form of the heads: the same recordings run all heads of one variant."""
        plan = self.plan
        return plan.variant(), plan.launch, plan.models, tuple(plan.weights.shape), tuple(plan.policies.shape)

    def row_at_hand(self, policy: PolicyT) -> int | None:
        """Return the policy's row where it has one. Only while `Graphs.turn` is held."""
        found = self._rows.get(id(policy))  # the kept policy cannot lose its id
        if found is None:
            return None
        self._rows.move_to_end(id(policy))
        return found[1]

    def row_of(self, policy: PolicyT, live: GpuPlan) -> int:
        """Return the policy's row; where it is new, write it into the plan and into the `live` one, in the stream's order.

        Only within Graphs.exclusive.
        """
        found = self.row_at_hand(policy)
        if found is not None:
            return found
        torch = need("torch", PURPOSE, "gpu")
        # a policy that cannot be packed takes nobody's row
        packed = torch.from_numpy(self.plan.pack_policy(**self._op_terms(policy)))
        row = len(self._rows) if len(self._rows) < POLICY_ROWS else self._rows.popitem(last=False)[1][1]
        self.plan.policies[row].copy_(packed)
        live.policies[row].copy_(self.plan.policies[row])
        self._rows[id(policy)] = policy, row
        return row


POOLING = ("auto", "fused", "apart")
_RESULTS = {"threshold": np.float32, "gap": np.float32, "index": np.int32, "status": np.uint8, "cause": np.uint8}
_PER_MODEL = ("quality", "tokens_out", "cost_usd")


class GpuRouter:
    """A `GpuRouter` holds the recordings of encoder, pooling and decide for every bucket, over live heads that may be replaced.

    The live heads are buffers of their own: before the rows of a request on other heads of the same variant, those are copied
    into them in the stream's order, so that requests in flight finish on the ones they began with, and a loaded bundle that a
    swap has replaced can still be asked. Safe to share between threads, which take turns.

    Attributes:
        encoder: the encoder whose work is recorded. live: the GpuPlan that the recordings read. passes: every bucket's slots.
        fused: whether the decide kernel pools the token states; else torch, or TensorRT's engine, does before it.
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
        self.passes = Passes(encoder.graphs, encoder.buckets, self.make_slot)

    def make_slot(self, graphs: Graphs, bucket: Bucket) -> RouteSlot:
        """Make and record the buffers of one bucket."""
        return RouteSlot(graphs, bucket, self.encoder, self.live, fused=self.fused)

    def serves(self, encoder: object, heads: GpuHeads[Any]) -> bool:
        """Return whether these recordings can run other heads: the same encoder, the same variant."""
        return encoder is self.encoder and heads.variant == self.variant

    def row_at_hand(self, heads: GpuHeads[PolicyT], policy: PolicyT) -> int | None:
        """Return the policy's row where these heads are the live ones and it has one; None too once the device failed.

        Only while `Graphs.turn` is held.
        """
        return None if self._loaded is not heads or self.passes.graphs.failed else heads.row_at_hand(policy)

    def make_row(self, heads: GpuHeads[PolicyT], policy: PolicyT) -> None:
        """Make these heads the live ones, and give the policy a row, in the stream's order.

        Raises:
            DeviceLostError: the device failed.
        """
        with self.passes.graphs.exclusive():
            self._load(heads)
            heads.row_of(policy, self.live)

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
        # (rows,): a window is too small for what the request needs, or cuts the expected answer short
        differs = (~fits).any(axis=1) | (tokens < expected).any(axis=1)
        again = np.flatnonzero(differs if answers is None else differs | (answers > 1))
        if len(again):  # decided twice: the first pass predicts the output tokens that windows are judged by
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
        """Return the answers of the rows as arrays, and their embeddings (rows, dim); allowed: (rows, models), None for everyone."""
        # longest first, as passes want them; answers are written back to the rows' own places
        order = sorted(range(len(rows.ids)), key=lambda row: -len(rows.ids[row]))
        count, models = len(order), heads.plan.models
        found: dict[str, NDArray[Any]] = {name: np.empty((count, models), np.float32) for name in _PER_MODEL}
        found |= {name: np.empty(count, dtype) for name, dtype in _RESULTS.items()}
        x = np.empty((count, heads.plan.dim), np.float32)
        policy_row = 0  # set by `begin`, before the first `fill`

        def begin() -> None:
            nonlocal policy_row
            self._load(heads)
            policy_row = heads.row_of(policy, self.live)

        def fill(slot: RouteSlot, step: Pass) -> None:
            with span("copy"):
                mine = order[step.begin : step.end]
                live, host = slice(0, len(mine)), slot.inputs.host
                fill_rows(host, [rows.ids[row] for row in mine], slot.pad_id)
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
