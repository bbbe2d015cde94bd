"""Embeddings that a caller kept are checked here against the bundle that is to decide on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine._C import TEXT_TERMS
from ipr_engine.encoders.base import Encoded
from ipr_engine.encoders.task_columns import with_tasks
from ipr_engine.errors import EncoderMismatchError, InvalidInputError
from ipr_engine.loaded.planned_bundle import EmbedRows, PlannedBundle
from ipr_engine.policy.policy import Policy
from ipr_engine.request.arguments import bare_embeddings, whole_counts
from ipr_engine.request.asked_tasks import asked_tasks
from ipr_engine.request.intake import check_features
from ipr_engine.request.route_request import check_on_error


def as_encoded(
    loaded: PlannedBundle,
    x: Encoded | npt.NDArray[np.float32],
    policy: Policy,
    *,
    given: Mapping[str, Any] = MappingProxyType({}),
    on_error: object = "raise",
) -> Encoded:
    """Return the x of `Engine.decide` as Encoded, with its bills, each row checked against what the policy's candidates can read.

    given: the `RequestOptions` of the call, of which billed_tokens and task are read; a task given stands in place of x's own.

    Raises:
        EncoderMismatchError: the heads read another encoder.
        InvalidInputError: a bare array or a bill is not what it should be; or a row needs what every allowed candidate lacks, unless
            on_error is "status": then it is in `errors`.
    """
    billed_tokens, task = given.get("billed_tokens"), given.get("task")
    if type(x) is not Encoded or billed_tokens is not None or x.encoder != loaded.encoder_identity:
        x = _billed(loaded, x, billed_tokens)
    asked = None if task is None else asked_tasks(task, len(x), loaded.bundle.tasks)
    if asked is not None:
        second = loaded.second
        tier = second if second is not None and loaded.is_second(x.encoder) else loaded
        x = with_tasks(tier.task_columns, x, asked)
    return x if x.needs is None else _readable(loaded, x, policy, on_error)


def _billed(loaded: PlannedBundle, x: Encoded | npt.NDArray[np.float32], billed_tokens: Any) -> Encoded:
    encoded = x if type(x) is Encoded else bare_embeddings(x, loaded.plan.dim, billed_tokens)
    if encoded.encoder not in (None, loaded.encoder_identity) and not loaded.is_second(encoded.encoder):
        raise EncoderMismatchError(
            f"x: embedded by encoder {encoded.encoder[:12]}, but the heads of bundle {loaded.hash[:12]} read "
            f"{loaded.read_by_heads()}{loaded.same_model(encoded.encoder)}; encode the prompts again"
        )
    if billed_tokens is None:
        return encoded
    bills, terms = whole_counts(billed_tokens, len(encoded)), None
    # NaN terms say that the bill was given, in place of the one that `encode` counted
    if encoded is x:  # a bare array has no count but this
        terms = np.full((len(encoded), len(TEXT_TERMS)), np.nan)
    return replace(encoded, billed_tokens=bills, terms=terms)


def _readable(loaded: PlannedBundle, encoded: Encoded, policy: Policy, on_error: object) -> Encoded:
    """Check each row against what the policy's candidates can read, as `route` checks prompts before it encodes them."""
    check_on_error(on_error)
    errors = dict(encoded.errors)
    for row, needs in enumerate(encoded.needs or ()):
        try:
            if needs is not None and row not in errors:
                check_features(needs, "prompt" if len(encoded) == 1 else f"prompts[{row}]", loaded.bundle, policy)
        except InvalidInputError as error:
            if on_error != "status":
                raise
            errors[row] = str(error)
    return encoded if len(errors) == len(encoded.errors) else replace(encoded, errors=errors)


def kept_rows(loaded: PlannedBundle, x: Encoded, again: Encoded) -> EmbedRows:
    """Return the `again` of `LoadedBundle.decide`, from embeddings by the second encoder that were kept beside x."""
    if loaded.second is None:
        raise InvalidInputError(f"second: bundle {loaded.hash[:12]} has no second tier; leave it out")
    if type(again) is not Encoded or len(again) != len(x):
        got = f"{len(again)} rows" if type(again) is Encoded else type(again).__name__
        raise InvalidInputError(f"second: expected what encode(..., second=True) returns, {len(x)} rows, got {got}")
    for name, given, wanted in (
        ("x", x.encoder, loaded.encoder_identity),
        ("second", again.encoder, loaded.second.identity),
    ):
        if given not in (None, wanted):
            raise EncoderMismatchError(
                f"{name}: expected embeddings of encoder {wanted[:12]}, got those of {given[:12]}{loaded.same_model(given)}; encode the "
                "prompts again"
            )
    if x.tasks is not None:
        again = with_tasks(loaded.second.task_columns, again, x.tasks)
    return lambda rows: again[rows]
