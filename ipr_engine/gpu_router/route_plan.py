"""A `GpuRoutePlan` is a loaded bundle's part of the GPU path; `plan_gpu_route` makes one for the bundles that have it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ipr_engine._C import DecideResult, RecordedRoute, Router
from ipr_engine._profiling import marks_ranges
from ipr_engine.bundle.context_windows import ContextWindows, capped_heads
from ipr_engine.bundle.spec import BundleSpec
from ipr_engine.cuda.buckets import StreamEncoder, stream_encoder
from ipr_engine.decide.contract import ManyRows, OneRow
from ipr_engine.encoders.base import Encoder
from ipr_engine.encoders.heeded import reads_transformer
from ipr_engine.errors import DeviceLostError, InvalidInputError
from ipr_engine.gpu_router.recorded import recorded_route
from ipr_engine.gpu_router.route_rows import RouteRows
from ipr_engine.gpu_router.router import GpuHeads, GpuRouter
from ipr_engine.policy.policy import Policy, op_terms

# Characters of a text, and of a batch, that are tokenized while the call has the device's turn: longer ones are tokenized before.
LONGEST = 65_536
LONGEST_BATCH = 64 * LONGEST

Made = TypeVar("Made")


class GpuRoutePlan:
    """A `GpuRoutePlan` holds a loaded bundle's heads on the device, and the recordings that run them, which bundles share.

    Attributes:
        encoder: the bundle's encoder. stream: the same encoder as a StreamEncoder.
        heads: the bundle's heads. router: the recordings that run them.
        recorded: prompts through them in one C++ call; None where the tokenizer runs in Python.
    """

    def __init__(
        self,
        encoder: Encoder,
        stream: StreamEncoder,
        heads: GpuHeads[Policy],
        router: GpuRouter,
        recorded: RecordedRoute | None,
    ) -> None:
        self.encoder, self.stream, self.heads, self.router, self.recorded = encoder, stream, heads, router, recorded
        self._graphs, self._turn = router.passes.graphs, router.passes.graphs.turn

    def route_one(self, prompt: str, policy: Policy) -> OneRow | None:
        """Decide one text in one C++ call; None where `route` has to.

        That is: the tokenizer is not C++, the text is over LONGEST, ranges are marked, the device failed.

        Raises:
            InvalidInputError: the prompt is no text, or has no token.
        """
        if len(prompt) > LONGEST:
            return None
        return self._in_turn(policy, lambda recorded, row: recorded.route_one(prompt, policy.compiled, row))

    def route_request(self, encoded: str, billed_only: tuple[str, ...], policy: Policy, *asked: Any) -> OneRow | None:
        """Decide one request in one C++ call; as `route_one`. asked: what `Router.route_request` takes behind the policy."""
        if sum(map(len, billed_only), len(encoded)) > LONGEST:
            return None
        return self._in_turn(
            policy,
            lambda recorded, row: recorded.route_request(encoded, billed_only, policy.compiled, row, *asked),
        )

    def route_many(self, prompts: list[str], policy: Policy) -> ManyRows | None:
        """Decide several texts in one C++ call; as `route_one`, errors name the prompt."""
        lengths = [*map(len, prompts)]
        if max(lengths, default=0) > LONGEST or sum(lengths) > LONGEST_BATCH:
            return None
        return self._in_turn(policy, lambda recorded, row: recorded.route_many(prompts, policy.compiled, row))

    def _in_turn(self, policy: Policy, call: Callable[[RecordedRoute, int], Made]) -> Made | None:
        """Return what `call` gives for the policy's row on the device; None where that is not to be had, or the device fails."""
        recorded = self.recorded
        if recorded is None or marks_ranges():
            return None
        for _ in range(2):  # another thread may take the row away in between
            with self._turn:
                row = self.router.row_at_hand(self.heads, policy)
                if row is not None:
                    try:
                        return call(recorded, row)
                    except RuntimeError as error:
                        self._graphs.lose(error)  # the walk tells it
                        return None
            if self._graphs.failed:
                return None
            try:
                self.router.make_row(self.heads, policy)
            except DeviceLostError:  # the walk tells it, where another engine may take over
                return None
        return None

    def route(self, policy: Policy, rows: RouteRows) -> tuple[DecideResult, NDArray[np.float32]]:
        """Decide the rows by this bundle's heads; see `GpuRouter.route`."""
        return self.router.route(self.heads, policy, rows)

    @property
    def summary(self) -> str:
        """Return in a few words where and how the decision runs."""
        graphs = self.stream.graphs
        where = "emulated on the CPU" if graphs.device == "cpu" else f"on {graphs.device}"
        return f"Triton {where}, {graphs.kind}, pooling {'fused' if self.router.fused else 'apart'}"


def plan_gpu_route(
    bundle: BundleSpec, encoder: Encoder, on_cpu: Router, device: str, before: GpuRoutePlan | None
) -> GpuRoutePlan | None:
    """Plan a bundle for a device, or return None for a bundle that the CPU decides, wherever its transformer runs.

    The CPU decides bundles of two tiers, heads on encoders side by side, and heads on a tier that enqueues nothing (onnx).
    Where `before` runs the same encoder and heads of the same variant, its recordings are shared; else every bucket is recorded.

    on_cpu: the bundle's router in C++: it counts tokens, knows the context windows, and measures support.

    Raises:
        InvalidInputError: nothing of the encoder runs on a GPU.
        OutOfDeviceMemoryError, BackendUnavailableError: as GpuRouter.
    """
    if not reads_transformer(bundle):
        raise InvalidInputError(
            f"device: the heads read a table ({encoder.summary}), which the CPU serves in less time than a GPU takes to "
            f"be asked; expected 'cpu', got {device!r}"
        )
    if bundle.escalation is not None:
        return None
    same = before is not None and before.encoder is encoder
    stream = before.stream if before is not None and same else stream_encoder(encoder, device)
    if stream is None:
        return None
    heads = _gpu_heads(bundle, stream.graphs.device)
    shared = before is not None and before.router.serves(stream, heads)
    router = before.router if before is not None and shared else GpuRouter(stream, heads)
    recorded = recorded_route(router.passes, on_cpu, stream) if heads.plan.has_tokens else None
    return GpuRoutePlan(encoder, stream, heads, router, recorded)


def _gpu_heads(bundle: BundleSpec, device: str) -> GpuHeads[Policy]:
    def terms(policy: Policy) -> Mapping[str, Any]:
        return op_terms(bundle, policy.coefficients, policy.worth, policy.folded, policy.allowed)

    heads = bundle.quality_heads
    packed = capped_heads(bundle.candidates, heads, bundle.tie_rank, bundle.encoder(heads.encoder).dim)
    return GpuHeads(packed, ContextWindows(bundle.candidates), terms, device)
