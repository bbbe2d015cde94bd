"""A swap: whether another bundle may serve in place of the one that does, and what it takes over from it."""

from __future__ import annotations

from typing import TypeVar

import numpy as np

from ipr_engine.bundle import Bundle
from ipr_engine.encoders.load_options import LoadOptions
from ipr_engine.errors import EncoderMismatchError, InvalidInputError
from ipr_engine.loaded.planned_bundle import PlannedBundle
from ipr_engine.policy.paths import Paths

Planned = TypeVar("Planned", bound=PlannedBundle)


def successor(
    serving: Planned,
    bundle: Bundle,
    *,
    options: LoadOptions,
    allow_other_encoder: bool,
    allow_fewer_candidates: bool,
    allow_fewer_outputs: bool,
) -> Planned:
    """Return `bundle` planned to serve in place of `serving`, with its encoders where the identity is the same.

    Raises:
        EncoderMismatchError: its heads, first or second, read another encoder, and that was not allowed.
        InvalidInputError: it lacks candidates or outputs of the bundle that serves, and that was not allowed.
    """
    heads = bundle.quality_heads
    identity = bundle.encoder(heads.encoder).identity
    if identity != serving.encoder_identity and not allow_other_encoder:
        raise EncoderMismatchError(
            f"bundle: {bundle.hash[:12]} reads encoder {identity[:12]}, the one that serves reads "
            f"{serving.encoder_identity[:12]}; kept embeddings would not fit, pass allow_other_encoder=True if none are kept"
        )
    again = bundle.escalation_heads
    then = None if again is None else bundle.encoder(again.encoder).identity
    if serving.second is not None and then != serving.second.identity and not allow_other_encoder:
        raise EncoderMismatchError(
            f"bundle: the second heads of {bundle.hash[:12]} read encoder {then[:12] if then else 'none: it has none'}, those "
            f"that serve read {serving.second.identity[:12]}; pass allow_other_encoder=True if none of its embeddings are kept"
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
    made = type(serving)(bundle, options=options, before=serving)
    if bundle.calibrations == serving.bundle.calibrations and _same_path(bundle, serving.bundle):
        made.share_drift(
            serving.calibrations.drift
        )  # what made these maps and paths stale still does; new ones start anew
    made.policies.inherit(serving.policies)
    return made


def _lost(before: Bundle, after: Bundle) -> str | None:
    """What policies of the one bundle could not have of the other, or would mean otherwise there; None for nothing."""
    if before.support is not None and after.support is None:
        return "has no centroids, the bundle that serves has: policies of min_support=... would fail"
    if Paths(before).lacking(before.names) is None:
        lacking = Paths(after).lacking(after.names)
        if lacking is not None:
            lacking = lacking.removeprefix("bundle ")
            return f"({lacking}): a bare tau means rule 'path' now, and would mean 'minmax' there"
    return None


def _same_path(bundle: Bundle, before: Bundle) -> bool:
    """Whether tau's paths are read from the same rows."""
    ours, theirs = bundle.path_rows, before.path_rows
    if ours is None or theirs is None:
        return ours is theirs
    same = np.array_equal(ours.quality, theirs.quality, equal_nan=True)
    return same and np.array_equal(ours.outcome, theirs.outcome)
