"""Writing bundles: equal input gives equal bytes and one hash; readers see the old bundle or the new, never a part."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ipr_engine._files import as_path
from ipr_engine.bundle.candidate_entry import PRICES, candidate_json, price_version, prices_bytes, version_of
from ipr_engine.bundle.draft import Draft, set_current
from ipr_engine.bundle.encoder_entry import encoder_json
from ipr_engine.bundle.encoder_source import AnySource, EncoderSource
from ipr_engine.bundle.fields import is_hex64
from ipr_engine.bundle.heads_entry import HeadsSource, head_json, support_json
from ipr_engine.bundle.load import Bundle
from ipr_engine.bundle.path_rows import PathRows
from ipr_engine.bundle.path_rows_entry import path_rows_json, rows_version
from ipr_engine.bundle.spec import Candidate, EscalationSpec, PriceList, SupportSpec
from ipr_engine.errors import InvalidInputError


@dataclass(frozen=True, kw_only=True, eq=False)
class BundleParts:
    """What a bundle is to hold, before it is written.

    Attributes:
        created: YYYY-MM-DD. It is part of the content, so the same input gives the same hash on any day.
        escalation: two tiers: which heads are asked again, and below which gap.
        path_rows: what tau's path is computed from; their `heads` are `heads_sha256` of the heads that decide.
        extra_files: relative path -> bytes or a file to copy, such as a model card; listed and hashed like the rest.
    """

    name: str
    created: str
    candidates: Sequence[Candidate]
    encoders: Sequence[AnySource]
    heads: Sequence[HeadsSource]
    prices: PriceList
    support: SupportSpec | None = None
    escalation: EscalationSpec | None = None
    path_rows: PathRows | None = None
    provenance: Mapping[str, Any]
    extra_files: Mapping[str, Path | bytes] | None = None


def write_bundle(root: str | os.PathLike[str], parts: BundleParts, *, activate: bool = True) -> Path:
    """Write a bundle below `root`, verify it by loading it, and make it the live one.

    Args:
        root: folder of bundles, made if missing.
        activate: whether CURRENT shall name the new bundle.
    Returns:
        The bundle's folder, <root>/<hash>.
    Raises:
        InvalidInputError: root or a path cannot be used, or something is no JSON.
        BundleError: what `Bundle.load` would say of the result; then nothing is left behind and CURRENT stands.
    Notes:
        A file that another bundle of this root already has is hard-linked where the file system can.
    """
    draft = Draft(as_path(root, "root"))
    version = _version(parts)
    manifest = {
        "schema_version": version,
        "name": parts.name,
        "created": parts.created,
        "candidates": [candidate_json(candidate, version) for candidate in parts.candidates],
        "encoders": [encoder_json(draft.add, encoder) for encoder in parts.encoders],
        "heads": [head_json(draft.add, head, version >= 2) for head in parts.heads],
        "prices": draft.add(PRICES, prices_bytes(parts.prices)),
        "support": support_json(draft.add, parts.support),
        "calibrations": [],
        "extra_files": [draft.add(relative, source) for relative, source in sorted((parts.extra_files or {}).items())],
        "provenance": dict(parts.provenance),
    }
    if version >= 3:
        escalation = parts.escalation
        manifest["escalation"] = (
            None if escalation is None else {"heads": escalation.heads, "gap": float(escalation.gap)}
        )
    if version >= 5:
        manifest["path_rows"] = None if parts.path_rows is None else path_rows_json(draft.add, parts.path_rows)
    return draft.publish(manifest, activate)


def _version(parts: BundleParts) -> int:
    """Return the least schema_version that holds these parts."""
    tables = all(isinstance(encoder, EncoderSource) for encoder in parts.encoders)
    needs = (
        (any(head.prompt_hashes is not None for head in parts.heads), 2),
        (parts.escalation is not None or not tables, 3),
        (any(head.fitted_on.hash_key is not None for head in parts.heads), 5),
        (True, max(version_of(parts.candidates), price_version(parts.prices), rows_version(parts.path_rows))),
    )
    return max(number for needed, number in needs if needed)


def activate(root: str | os.PathLike[str], hash: str) -> None:
    """Make the bundle `hash` of `root` the live one, once it has passed every check."""
    base = as_path(root, "root")
    if not isinstance(hash, str) or not is_hex64(hash):
        raise InvalidInputError(f"hash: expected 64 lower-case hex digits, got {hash!r}; pass Bundle.hash")
    Bundle.load(base / hash)
    set_current(base, hash)
