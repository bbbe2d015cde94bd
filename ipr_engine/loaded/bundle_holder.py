"""A `BundleHolder` holds the bundle that serves: calls run on it; a swap, or a device that fails, puts another in its place."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from threading import Lock
from typing import TypeVar, Unpack

import numpy as np

from ipr_engine._options import refuse_unknown
from ipr_engine.bundle import Bundle, Performance
from ipr_engine.bundle.conversation import ALL, Conversation
from ipr_engine.decide.contract import DecidePlan
from ipr_engine.encoders.base import Encoder
from ipr_engine.encoders.heeded import warn_of_unheeded
from ipr_engine.encoders.load_options import LoadKeywords, LoadOptions
from ipr_engine.errors import DeviceLostError, EncoderMismatchError, InvalidInputError
from ipr_engine.loaded.loaded_bundle import LoadedBundle
from ipr_engine.policy.calibrated import Calibrations, DriftEvidence
from ipr_engine.policy.paths import Paths

Made = TypeVar("Made")


class BundleHolder:
    """A `BundleHolder` holds one loaded bundle, which it replaces by one assignment; `Engine` is one.

    Attributes:
        bundle: the bundle that serves.
        encoder: the prompt encoder of its heads; second_encoder: that of its second heads, None in a bundle of one tier.
        plan: the packed heads.
        loaded: all that a call reads of it; options: how it was loaded.

    Another thread may swap the bundle between two reads of these; what belongs to a decision is on the decision.
    """

    def __init__(
        self,
        bundle: Bundle,
        **options: Unpack[LoadKeywords],
    ) -> None:
        if not isinstance(bundle, Bundle):
            raise InvalidInputError(
                f"bundle: expected a Bundle, got {type(bundle).__name__}; Engine.load(path) reads one from disk"
            )
        refuse_unknown("Engine.__init__", options, LoadOptions)
        self.options = LoadOptions(**options)
        self.loaded = LoadedBundle(bundle, options=self.options)  # a call reads this once; swap replaces it
        warn_of_unheeded(bundle, self.options)
        self._swapping = Lock()
        self._swaps = 0

    @property
    def swaps(self) -> int:
        """Return how often `swap` put another bundle in place."""
        return self._swaps

    @property
    def bundle(self) -> Bundle:
        return self.loaded.bundle

    @property
    def encoder(self) -> Encoder:
        return self.loaded.encoder

    @property
    def second_encoder(self) -> Encoder | None:
        second = self.loaded.second
        return None if second is None else second.encoder

    @property
    def plan(self) -> DecidePlan:
        return self.loaded.plan

    @property
    def calibrations(self) -> Calibrations:
        """Return the maps of the bundle that serves, with what is known of their validity."""
        return self.loaded.calibrations

    def run(self, call: Callable[[LoadedBundle], Made]) -> Made:
        """Return what `call` gives on the bundle that serves; once its device is lost, on the CPU, where that was asked for.

        Raises:
            DeviceLostError: the device failed, and no fallback was planned.
        """
        return self.loaded.run(call, self.fail_over)

    def fail_over(self, loaded: LoadedBundle, error: DeviceLostError) -> LoadedBundle:
        """Put the CPU's bundle in place of one whose device failed, and return it; raise the error where none was asked for."""
        cpu_fallback = loaded.cpu_fallback
        if cpu_fallback is None:
            raise error
        with self._swapping:
            self.options = self.options.for_cpu()  # later swaps are planned for the CPU
            if self.loaded is loaded:  # another thread may have failed over, or swapped, first
                self.loaded = cpu_fallback
                from logging import getLogger  # slow to import, and needed once a device is lost

                getLogger(__name__).error("%s; bundle %s is served by the CPU from now on", error, loaded.hash[:12])
        return cpu_fallback

    @property
    def performance(self) -> Mapping[str, Performance]:
        """Return the figures of candidates, by name: the bundle's, with those of `update_performance` in their place."""
        return self.loaded.policies.measured

    def update_performance(self, figures: Mapping[str, Performance | Mapping[str, float] | None]) -> None:
        """Take newly measured latencies or energy, while serving: policies with `cost_weights` weigh them from the next call on.

        They hold across swaps, before what a bundle says. Policies in use are compiled anew in this thread.

        Args:
            figures: name -> Performance, or the same as a mapping ({"ttft_s": 0.41, "tpot_s": 0.012}); a number that is left out
                keeps its value, as does a candidate. None takes a candidate's updates back: the bundle's figures hold again.
        Raises:
            InvalidInputError: an unknown name or figure, or a number that is not finite and >= 0; nothing is taken then.
        """
        with self._swapping:
            self.loaded.measure(figures)

    def mark_stale(self, evidence: DriftEvidence | None) -> None:
        """Say that the calibration maps and tau's paths no longer hold: from now on policies that read one have the status "stale".

        Args:
            evidence: what calibration/drift.py found, or your own; None takes it back.
        """
        if evidence is not None and not isinstance(evidence, DriftEvidence):
            raise InvalidInputError(f"evidence: expected a DriftEvidence or None, got {type(evidence).__name__}")
        self.calibrations.drift.evidence = evidence

    def swap(
        self,
        bundle: Bundle | str | os.PathLike[str],
        *,
        allow_other_encoder: bool = False,
        allow_fewer_candidates: bool = False,
        allow_fewer_outputs: bool = False,
    ) -> Bundle:
        """Serve another bundle from now on: planned in this thread, put in place by one assignment.

        Calls in flight finish on the bundle they began with; its memory is freed when the last of them, and the last
        Decision made with it, is gone. An encoder of equal identity is kept, not loaded again.

        Args:
            bundle: a Bundle, a bundle root (with CURRENT), one bundle folder, or an embedded bundle's name.
            allow_other_encoder: embeddings kept from the encoder of before will be refused by `decide`.
            allow_fewer_candidates: policies that name a missing candidate will be refused by `route`.
            allow_fewer_outputs: heads that predict no tokens will refuse calls without tokens_out; without path rows a bare tau
                means rule `minmax`; without centroids there is no `min_support`; a bundle that does not say who answers unsupported
                prompts decides them by predicted quality.
        Returns:
            The bundle that serves; the one that already did when the hash is the same.
        Raises:
            BundleError: the bundle is missing, damaged or inconsistent; the one of before goes on.
            EncoderMismatchError: its heads read another encoder, and that was not allowed.
            InvalidInputError: it lacks candidates or outputs of the bundle that serves, and that was not allowed.
        """
        with self._swapping:  # one swap at a time; calls take no lock
            loaded = self.loaded
            if not isinstance(bundle, Bundle):
                bundle = Bundle.load(bundle)
            if bundle.hash == loaded.hash:
                return loaded.bundle
            self.loaded = successor(
                loaded,
                bundle,
                options=self.options,
                allow_other_encoder=allow_other_encoder,
                allow_fewer_candidates=allow_fewer_candidates,
                allow_fewer_outputs=allow_fewer_outputs,
            )
            self._swaps += 1
            return bundle

    def __repr__(self) -> str:
        loaded, why = self.loaded, "widest here" if self.options.isa == "auto" else "as asked"
        tiers = f"encoder={loaded.encoder.summary}, heads={_form(loaded.plan)}{_turns(loaded.conversation)}"
        if loaded.second is not None and loaded.bundle.escalation is not None:
            tiers += (
                f"; below a gap of {loaded.bundle.escalation.gap:g}: encoder={loaded.second.encoder.summary}, "
                f"heads={_form(loaded.second.plan)}{_turns(loaded.second.conversation)}"
            )
        gpu = "" if loaded.gpu is None else f", route={loaded.gpu.summary}"
        cpu_fallback = "" if loaded.cpu_fallback is None else ", fallback=cpu"
        return (
            f"Engine(bundle={loaded.bundle.name!r} {loaded.hash[:12]}, {loaded.plan.models} candidates, {tiers}{gpu}, "
            f"isa={loaded.plan.isa} ({why}){cpu_fallback})"
        )


def _turns(conversation: Conversation) -> str:
    """Say what of several turns heads are given, where that is not all of them as one text."""
    return "" if conversation == ALL else f", conversation={conversation}"


def _form(plan: DecidePlan) -> str:
    form = "linear" if plan.hidden == 0 else f"{plan.hidden} wide, rank {plan.rank}"
    return form if plan.trees == 0 else f"{form}, {plan.trees} trees of depth {plan.depth}"


def successor(
    serving: LoadedBundle,
    bundle: Bundle,
    *,
    options: LoadOptions,
    allow_other_encoder: bool,
    allow_fewer_candidates: bool,
    allow_fewer_outputs: bool,
) -> LoadedBundle:
    """Return `bundle` planned to serve in place of `serving`, with its encoders where the identity is the same.

    Raises:
        EncoderMismatchError: its heads, first or second, read another encoder, and that was not allowed.
        InvalidInputError: it lacks candidates or outputs of the bundle that serves, and that was not allowed.
    """
    heads = bundle.quality_heads
    spec = bundle.encoder(heads.encoder)
    identity = spec.identity
    if identity != serving.encoder_identity and not allow_other_encoder:
        raise EncoderMismatchError(
            f"bundle: {bundle.hash[:12]} reads encoder {identity[:12]}, the one that serves reads "
            f"{serving.encoder_identity[:12]}{serving.same_model(identity, spec.files.get('onnx_int8'))}; kept embeddings would not "
            "fit, pass allow_other_encoder=True if none are kept"
        )
    again = bundle.escalation_heads
    then = None if again is None else bundle.encoder(again.encoder).identity
    if serving.second is not None and then != serving.second.identity and not allow_other_encoder:
        same = "" if then is None else serving.same_model(then)
        raise EncoderMismatchError(
            f"bundle: the second heads of {bundle.hash[:12]} read encoder {then[:12] if then else 'none: it has none'}, those "
            f"that serve read {serving.second.identity[:12]}{same}; pass allow_other_encoder=True if none of its embeddings are kept"
        )
    missing = sorted(set(serving.bundle.names) - set(bundle.names))
    if missing and not allow_fewer_candidates:
        raise InvalidInputError(
            f"bundle: {bundle.hash[:12]} lacks {', '.join(missing)} of the bundle that serves; "
            "pass allow_fewer_candidates=True if they are meant to go"
        )
    if serving.plan.has_tokens and "tokens" not in heads.outputs and not allow_fewer_outputs:
        raise InvalidInputError(
            f"bundle: the heads of {bundle.hash[:12]} predict no tokens, those that serve do; "
            "pass allow_fewer_outputs=True if every call gives tokens_out"
        )
    lost = _lost(serving.bundle, bundle)
    if lost is not None and not allow_fewer_outputs:
        raise InvalidInputError(f"bundle: {bundle.hash[:12]} {lost}; pass allow_fewer_outputs=True if that is meant")
    # all that can fail or takes time happens here; the holder then replaces the bundle by one assignment
    made = LoadedBundle(bundle, options=options, before=serving)
    if bundle.calibrations == serving.bundle.calibrations and _same_path(bundle, serving.bundle):
        # what made these maps and paths stale still does; new ones start anew
        made.share_drift(serving.calibrations.drift)
    made.policies.inherit(serving.policies)
    return made


def _lost(before: Bundle, after: Bundle) -> str | None:
    """Return what policies of the one bundle would lose on the other, or would mean otherwise there; None for nothing."""
    if before.support is not None and after.support is None:
        return "has no centroids, the bundle that serves has: policies of min_support=... would fail"
    if before.unsupported is not None and after.unsupported is None:
        return (
            "does not say who answers unsupported prompts, the bundle that serves does: predicted quality would decide them, and "
            "policies of unsupported=... alone would fail"
        )
    if Paths(before).lacking(before.names) is None:
        lacking = Paths(after).lacking(after.names)
        if lacking is not None:
            lacking = lacking.removeprefix("bundle ")
            return f"({lacking}): a bare tau means rule 'path' now, and would mean 'minmax' there"
    return None


def _same_path(bundle: Bundle, before: Bundle) -> bool:
    """Return whether both bundles read tau's paths from the same rows."""
    ours, theirs = bundle.path_rows, before.path_rows
    if ours is None or theirs is None:
        return ours is theirs
    same = np.array_equal(ours.quality, theirs.quality, equal_nan=True)
    return same and np.array_equal(ours.outcome, theirs.outcome)
