"""A `GpuRoutePlan` is a loaded bundle's part of the GPU path; `plan_gpu_route` makes one for the bundles that have it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ipr_engine._C import DecideResult
from ipr_engine.bundle.context_windows import ContextWindows, capped_heads
from ipr_engine.bundle.spec import BundleSpec
from ipr_engine.cuda.buckets import StreamEncoder, stream_encoder
from ipr_engine.encoders.base import Encoder
from ipr_engine.errors import InvalidInputError
from ipr_engine.gpu_router.route_rows import RouteRows
from ipr_engine.gpu_router.router import GpuHeads, GpuRouter
from ipr_engine.policy.policy import Policy, op_terms


class GpuRoutePlan:
    """A `GpuRoutePlan` holds a loaded bundle's heads on the device, and the recordings that run them, which bundles share.

    Attributes:
        encoder: the bundle's encoder. stream: the same encoder as a StreamEncoder.
        heads: the bundle's heads. router: the recordings that run them.
    """

    def __init__(self, encoder: Encoder, stream: StreamEncoder, heads: GpuHeads[Policy], router: GpuRouter) -> None:
        self.encoder, self.stream, self.heads, self.router = encoder, stream, heads, router

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
    bundle: BundleSpec, encoder: Encoder, device: str, before: GpuRoutePlan | None
) -> GpuRoutePlan | None:
    """Plan a bundle for a device, or return None for a bundle that the CPU decides, wherever its transformer runs.

    The CPU decides bundles of two tiers, heads on encoders side by side, and heads on a tier that enqueues nothing (onnx).
    Where `before` runs the same encoder and heads of the same variant, its recordings are shared; else every bucket is recorded.

    Raises:
        InvalidInputError: nothing of the encoder runs on a GPU.
        OutOfDeviceMemoryError, BackendUnavailableError: as GpuRouter.
    """
    if bundle.escalation is not None:
        return None
    if encoder.native is not None:
        raise InvalidInputError(
            f"device: the heads read a table ({encoder.summary}), which the CPU serves in less time than a GPU takes to "
            f"be asked; expected 'cpu', got {device!r}"
        )
    same = before is not None and before.encoder is encoder
    stream = before.stream if before is not None and same else stream_encoder(encoder, device)
    if stream is None:
        return None
    heads = _gpu_heads(bundle, stream.graphs.device)
    if before is not None and before.router.serves(stream, heads):
        return GpuRoutePlan(encoder, stream, heads, before.router)
    return GpuRoutePlan(encoder, stream, heads, GpuRouter(stream, heads))


def _gpu_heads(bundle: BundleSpec, device: str) -> GpuHeads[Policy]:
    def terms(policy: Policy) -> Mapping[str, Any]:
        return op_terms(bundle, policy.coefficients, policy.worth, policy.folded, policy.allowed)

    packed = capped_heads(bundle.candidates, bundle.quality_heads, bundle.tie_rank)
    return GpuHeads(packed, ContextWindows(bundle.candidates), terms, device)
