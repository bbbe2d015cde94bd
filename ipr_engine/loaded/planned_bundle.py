"""A `PlannedBundle` is a bundle with its encoders, packed heads and routers on this machine, and the policies compiled for it.

A bundle of two tiers has heads that decide first, and heads on another encoder that decide again where the first gap is small
(docs/two-tiers.md): `SecondTier`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt

from ipr_engine._C import TEXT_TERMS, DecideResult, Router, decide_result
from ipr_engine.bundle import Bundle, Performance
from ipr_engine.bundle.context_windows import ContextWindows, capped_heads, most_output
from ipr_engine.bundle.conversation import LAST
from ipr_engine.bundle.spec import BundleSpec, HeadsSpec
from ipr_engine.bundle.task_names import AskedTask
from ipr_engine.decide.contract import PARTS, DecidePlan
from ipr_engine.encoders.base import Encoded, Encoder, record_graphs
from ipr_engine.encoders.conversations import TextOrRequest, shown_text
from ipr_engine.encoders.load_options import LoadOptions, on_gpu
from ipr_engine.encoders.registry import make_encoder
from ipr_engine.encoders.same_model import same_model
from ipr_engine.encoders.task_columns import with_tasks
from ipr_engine.errors import EncoderMismatchError
from ipr_engine.policy.calibrated import Calibrations, DriftFlag
from ipr_engine.policy.cost_weights import Figures
from ipr_engine.policy.in_use import PoliciesInUse
from ipr_engine.policy.policy import Policy
from ipr_engine.policy.rules import UNSUPPORTED
from ipr_engine.request.intake import encode_requests
from ipr_engine.request.kept_limits import KeptLimits

if TYPE_CHECKING:
    from ipr_engine.gpu_router.route_plan import GpuRoutePlan

Rows = npt.NDArray[np.int64]
EmbedRows = Callable[[Rows], Encoded]  # the given rows of a batch, by the second encoder


class SecondTier:
    """A `SecondTier` is the second heads of a bundle, planned: their encoder, its identity and columns of tasks, what of a conversation
    they are given, the packed heads, a router without support."""

    __slots__ = ("conversation", "encoder", "identity", "plan", "router", "task_columns")

    def __init__(self, bundle: BundleSpec, heads: HeadsSpec, options: LoadOptions, encoder: Encoder | None) -> None:
        """Plan the second heads. encoder: one already loaded with the identity that the heads name, or None."""
        self.encoder = make_encoder(bundle, heads.encoder, options) if encoder is None else encoder
        self.identity = self.encoder.identity
        self.conversation = heads.conversation
        self.task_columns = bundle.encoder(heads.encoder).task_columns
        self.plan = plan_heads(bundle, heads, options)
        self.router = make_router(bundle, heads, self.plan, None)

    def encode(self, requests: Sequence[TextOrRequest]) -> Encoded:
        return replace(encode_requests(self.encoder, requests, self.conversation), encoder=self.identity)


class PlannedBundle:
    """A `PlannedBundle` is one bundle with its encoder, packed heads and router, and the policies compiled for it.

    A call reads the engine's bundle once and uses nothing else, so that its decision's names, prices, costs and hash
    come from one bundle. Nothing refers back to it: it is freed with its last reader.

    Attributes:
        bundle, hash: the bundle and its hash.
        encoder, encoder_identity: the prompt encoder of its heads, and its name. task_columns: task -> its column in that one's x.
        conversation: what of several turns of a user its first heads are given.
        plan: the packed heads.
        calibrations: its maps, with what is known of their validity.
        policies: those compiled for it, with the figures of candidates that they weigh.
        router: text or embeddings to decisions, in C++.
        routes_text: the router encodes too; else the encoder runs in Python, decide apart from it.
        limits: what single requests ask of its candidates.
        gpu: encoder and decision in one recording, where both run on a GPU; None elsewhere.
        cpu_fallback: the same bundle planned for the CPU, which takes over should the GPU fail, if that was asked for.
        second: the heads that decide again where the gap is small, planned; None in a bundle of one tier.
    """

    __slots__ = (
        "__weakref__",
        "bundle",
        "calibrations",
        "conversation",
        "cpu_fallback",
        "encoder",
        "encoder_identity",
        "gpu",
        "hash",
        "limits",
        "plan",
        "policies",
        "router",
        "routes_text",
        "second",
        "task_columns",
    )

    def __init__(
        self,
        bundle: Bundle,
        *,
        options: LoadOptions,
        before: Self | None = None,
        encoders: Mapping[str, Encoder] = MappingProxyType({}),
    ) -> None:
        """Plan `bundle`; of `before` the encoders that the heads name are kept, with what was recorded of them.

        encoders: identity -> an encoder already loaded, in place of the one that the options ask for.
        """
        heads, again = bundle.quality_heads, bundle.escalation_heads
        if before is not None:  # an encoder of equal identity is kept, not loaded again
            encoders = {**before.encoders_at_hand(), **encoders}
        support = bundle.support
        if support is not None and support.encoder != heads.encoder:
            raise EncoderMismatchError(
                f"support: measured on encoder {support.encoder!r}, but the heads read {heads.encoder!r}; measure it on theirs"
            )
        kept = encoders.get(bundle.encoder(heads.encoder).identity)
        self.bundle = bundle
        self.hash = bundle.hash
        self.encoder: Encoder = make_encoder(bundle, heads.encoder, options) if kept is None else kept
        self.encoder_identity = self.encoder.identity
        self.conversation = heads.conversation
        self.task_columns = bundle.encoder(heads.encoder).task_columns
        self.plan = plan_heads(bundle, heads, options)
        self.router = make_router(bundle, heads, self.plan, self.encoder)
        self.routes_text = self.encoder.native is not None
        self.limits = KeptLimits(bundle)
        self.second: SecondTier | None = None
        if again is not None:
            encoders = {**encoders, self.encoder_identity: self.encoder}
            self.second = SecondTier(bundle, again, options, encoders.get(bundle.encoder(again.encoder).identity))
        self.gpu = _gpu(bundle, self.encoder, self.router, options, before)
        if self.gpu is None:  # else the route's own recording holds the encoder's work
            record_graphs(self.encoders_at_hand().values())
        self.cpu_fallback: Self | None = None
        if options.fallback is not None:
            kept_on_cpu = None if before is None else before.cpu_fallback
            self.cpu_fallback = type(self)(bundle, options=options.for_cpu(), before=kept_on_cpu)
        self.calibrations = Calibrations(bundle)
        self.share_drift(self.calibrations.drift)
        # what `Engine.update_performance` gave holds across swaps, before what a bundle says
        refreshed: Figures = MappingProxyType({}) if before is None else before.policies.refreshed
        second_plan = None if self.second is None else self.second.plan
        self.policies: PoliciesInUse = PoliciesInUse(bundle, self.plan, second_plan, self.calibrations, refreshed)

    def column_of(self, task: AskedTask | None) -> int:
        """Return the column of x that a prompt for this task has a 1 in; -1 for none."""
        return -1 if task is None else self.task_columns.get(task.name, -1)

    def is_second(self, identity: str | None) -> bool:
        """Return whether embeddings of this encoder are for the second heads; those of an encoder that both read are for the first."""
        return self.second is not None and identity == self.second.identity and identity != self.encoder_identity

    def read_by_heads(self) -> str:
        """Return the encoders that the heads read, for a message."""
        return self.encoder_identity[:12] + ("" if self.second is None else f" or {self.second.identity[:12]}")

    def same_model(self, identity: str, int8: Path | None = None) -> str:
        """Return how another encoder differs from one of these, for a message; see `same_model`. int8: None is the bundle's own graph."""
        if int8 is None:
            files = (spec.files.get("onnx_int8") for spec in self.bundle.encoders)
            int8 = next((file for file in files if file is not None), None)
        return same_model(self.encoders_at_hand().values(), identity, int8)

    def share_drift(self, drift: DriftFlag) -> None:
        """Use this flag here and on the CPU's bundle: what is known of drift holds wherever the bundle runs."""
        self.calibrations.drift = drift
        if self.cpu_fallback is not None:
            self.cpu_fallback.share_drift(drift)

    def encoders_at_hand(self) -> dict[str, Encoder]:
        """Return the encoders by identity, for a bundle that follows."""
        second = {} if self.second is None else {self.second.identity: self.second.encoder}
        return {self.encoder_identity: self.encoder, **second}

    def own_tokens(
        self,
        terms: npt.NDArray[np.float64] | None,
        billed: npt.NDArray[np.int64],
        given: npt.NDArray[np.float32] | None,
    ) -> npt.NDArray[np.float32] | None:
        """Return (batch, models) float32 input tokens by each candidate's own count.

        None where none are given, and no candidate names its tokenizer.
        terms: those of `Encoded`. given: what `given_tokens` returns; it stands before what is estimated.
        """
        if given is not None and not np.isnan(given).any():
            return given
        if self.router.has_tokenizers and terms is None:
            terms = np.full((len(billed), len(TEXT_TERMS)), np.nan)
        estimated = None if terms is None else self.router.own_tokens(terms, billed)
        if given is None:
            return estimated
        if estimated is None:  # nobody names a tokenizer: a candidate's own count is its ratio times the bill
            ratios = np.array([candidate.token_ratio for candidate in self.bundle.candidates], np.float64)
            estimated = (billed[:, None] * ratios).astype(np.float32)
        return np.where(np.isnan(given), estimated, given)

    def embed_again(
        self, requests: Sequence[TextOrRequest], tasks: Sequence[AskedTask | None] | None = None
    ) -> EmbedRows | None:
        """Return what `decide` takes as `again` for these prompts, which are for these tasks; None in a bundle of one tier."""
        second = self.second
        if second is None:
            return None

        def embed(rows: Rows) -> Encoded:
            at = rows.tolist()
            made = second.encode([requests[row] for row in at])
            return made if tasks is None else with_tasks(second.task_columns, made, [tasks[row] for row in at])

        return embed

    def shown_texts(self, request: TextOrRequest) -> tuple[str, ...]:
        """Return the texts of a request whose words may be read out of a decision's figures: what was encoded, by whichever tier.

        The newest turn is among them: embeddings are means, so who has the figures of the turns before finds its own.
        """
        again = () if self.second is None else (self.second.conversation,)
        return tuple({shown_text(request, conversation) for conversation in (LAST, self.conversation, *again)})

    def escalates(self, result: DecideResult, policy: Policy, row: int = 0) -> bool:
        """Return whether a row that the first heads decided is decided again: its gap is small, and its support is not."""
        below = policy.escalate_below
        return bool(below) and (result.gap_at(row) < below or below == math.inf) and result.cause_at(row) != UNSUPPORTED

    def measure(self, figures: Mapping[str, Performance | Mapping[str, float] | None]) -> None:
        """Take new figures of candidates, on the CPU's bundle as well; see `Engine.update_performance`."""
        self.policies.measure(figures)
        if self.cpu_fallback is not None:
            self.cpu_fallback.measure(figures)


def _gpu(
    bundle: Bundle, encoder: Encoder, router: Router, options: LoadOptions, before: PlannedBundle | None
) -> GpuRoutePlan | None:
    if not on_gpu(options.device):
        return None
    from ipr_engine.gpu_router.route_plan import plan_gpu_route

    return plan_gpu_route(bundle, encoder, router, options.device, None if before is None else before.gpu)


def plan_heads(bundle: BundleSpec, heads: HeadsSpec, options: LoadOptions) -> DecidePlan:
    """Pack the heads of a bundle for this machine."""
    dim = bundle.encoder(heads.encoder).dim
    return DecidePlan(capped_heads(bundle.candidates, heads, bundle.tie_rank, dim), isa=options.isa)


def make_router(bundle: BundleSpec, heads: HeadsSpec, plan: DecidePlan, encoder: Encoder | None) -> Router:
    """Make the router that turns texts or embeddings into decisions.

    encoder: of the first heads, whose router encodes and measures support; None for a router that does neither.
    """
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
        conversation=heads.conversation,
        **own,
    )


def escalating(gap: npt.NDArray[np.float32], below: float) -> Rows:
    """Return the rows to decide again: gap < below; all of them where below is infinite. A failed row's gap is NaN: it stays."""
    return np.arange(len(gap)) if math.isinf(below) else np.flatnonzero(gap < np.float64(below))


def merged(first: DecideResult, rows: Rows, second: DecideResult) -> DecideResult:
    """Merge the answers of a batch that two tiers decided: the first's, but for `rows` the second's."""
    arrays = {}
    for name in PARTS:
        values = getattr(first, name).copy()
        values[rows] = getattr(second, name)
        arrays[name] = values
    return decide_result(**arrays)
