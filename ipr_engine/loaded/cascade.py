"""Two tiers: heads that decide first, and heads on another encoder that decide again where the first gap is small (docs/two-tiers.md)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ipr_engine._C import DecideResult, Router, decide_result
from ipr_engine.bundle.context_windows import ContextWindows, capped_heads, most_output
from ipr_engine.bundle.spec import BundleSpec, HeadsSpec
from ipr_engine.decide.contract import DecidePlan
from ipr_engine.encoders.base import Encoded, Encoder
from ipr_engine.encoders.load_options import LoadOptions
from ipr_engine.encoders.registry import make_encoder

Rows = npt.NDArray[np.int64]
EmbedRows = Callable[[Rows], Encoded]  # the given rows of a batch, by the second encoder
PARTS = ("quality", "tokens_out", "cost_usd", "threshold", "gap", "index", "status", "cause")  # of a DecideResult


class SecondTier:
    """The second heads of a bundle, planned: their encoder and its identity, the packed heads, a router without support."""

    __slots__ = ("encoder", "identity", "plan", "router")

    def __init__(self, bundle: BundleSpec, heads: HeadsSpec, options: LoadOptions, encoder: Encoder | None) -> None:
        """encoder: one already loaded with the identity that the heads name, or None."""
        self.encoder = make_encoder(bundle, heads.encoder, options) if encoder is None else encoder
        self.identity = self.encoder.identity
        self.plan = plan_heads(bundle, heads, options)
        self.router = make_router(bundle, heads, self.plan, None)

    def encode(self, texts: Sequence[str]) -> Encoded:
        return replace(self.encoder.encode(texts), encoder=self.identity)


def plan_heads(bundle: BundleSpec, heads: HeadsSpec, options: LoadOptions) -> DecidePlan:
    """The heads of a bundle, packed."""
    return DecidePlan(capped_heads(bundle.candidates, heads, bundle.tie_rank), isa=options.isa)


def make_router(bundle: BundleSpec, heads: HeadsSpec, plan: DecidePlan, encoder: Encoder | None) -> Router:
    """Text or embeddings to decisions. encoder: of the first heads, whose router encodes and measures support; None: neither."""
    support = None if encoder is None else bundle.support
    windows = ContextWindows(bundle.candidates)
    own = {} if windows.tokenizers is None else windows.tokenizers.to_router()
    return Router(
        plan,
        None if encoder is None else encoder.native,
        windows.windows.tolist(),
        windows.ratios.tolist(),
        most_output(bundle.candidates, heads).tolist(),
        None if support is None else support.centroids,
        None if support is None else support.distances,
        **own,
    )


def escalating(gap: npt.NDArray[np.float32], below: float) -> Rows:
    """The rows to decide again: gap < below; all of them where below is infinite. A failed row's gap is NaN: it stays."""
    return np.arange(len(gap)) if math.isinf(below) else np.flatnonzero(gap < np.float64(below))


def merged(first: DecideResult, rows: Rows, second: DecideResult) -> DecideResult:
    """The answers of a batch that two tiers decided: the first's, but for `rows`, the second's."""
    arrays = {}
    for name in PARTS:
        values = getattr(first, name).copy()
        values[rows] = getattr(second, name)
        arrays[name] = values
    return decide_result(**arrays)
