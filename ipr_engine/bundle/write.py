"""Writing bundles: equal input gives equal bytes and one hash; readers see the old bundle or the new, never a part."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ipr_engine._files import as_path
from ipr_engine.bundle.calibration import CalibrationMap
from ipr_engine.bundle.candidate_entry import candidate_json, price_version, version_of, with_floats
from ipr_engine.bundle.draft import Draft, json_bytes, set_current
from ipr_engine.bundle.encoder_entry import encoder_json
from ipr_engine.bundle.encoder_source import AnySource, EncoderSource
from ipr_engine.bundle.fields import fail, is_hex64, parse_json
from ipr_engine.bundle.file_entry import read_regular
from ipr_engine.bundle.load import Bundle, find_folder, listed_files
from ipr_engine.bundle.origin import PRICE_DATES, price_dates
from ipr_engine.bundle.path_rows import PathRows
from ipr_engine.bundle.path_rows_entry import path_rows_json, rows_version
from ipr_engine.bundle.performance import Performance
from ipr_engine.bundle.price import price_json
from ipr_engine.bundle.schema import raised
from ipr_engine.bundle.spec import (
    MANIFEST,
    Candidate,
    EscalationSpec,
    FittedOn,
    Float32,
    PriceList,
    RuleConstants,
    SupportSpec,
)
from ipr_engine.errors import BundleShapeError, InvalidInputError

_PRICES = "prices.json"


@dataclass(frozen=True, kw_only=True, eq=False)
class HeadsSource:
    """Heads to put into a bundle; tensors float32, named and shaped as docs/design.md section 6 says.

    prompt_hashes: "texts" and "questions" of the fitting prompts, uint64 (data/overlap.py); a calibration sample is held against them.
        fitted_on.hash_key names the key they are hashed under.
    """

    id: str
    encoder: str
    outputs: Sequence[str] = ("quality",)
    activation: str = "relu"
    candidates: Sequence[str]
    rule_constants: RuleConstants | None = None
    fitted_on: FittedOn
    tensors: Mapping[str, Float32]
    prompt_hashes: Mapping[str, NDArray[np.uint64]] | None = None


def write_bundle(
    root: str | os.PathLike[str],
    *,
    name: str,
    created: str,
    candidates: Sequence[Candidate],
    encoders: Sequence[AnySource],
    heads: Sequence[HeadsSource],
    prices: PriceList,
    support: SupportSpec | None = None,
    escalation: EscalationSpec | None = None,
    path_rows: PathRows | None = None,
    provenance: Mapping[str, Any],
    extra_files: Mapping[str, Path | bytes] | None = None,
    activate: bool = True,
) -> Path:
    """Write a bundle below `root`, verify it by loading it, and make it the live one.

    Args:
        root: folder of bundles, made if missing.
        created: YYYY-MM-DD. It is part of the content, so the same input gives the same hash on any day.
        escalation: two tiers: which heads are asked again, and below which gap.
        path_rows: what tau's path is computed from; their `heads` are `heads_sha256` of the heads that decide.
        extra_files: relative path -> bytes or a file to copy, such as a model card; listed and hashed like the rest.
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
    needs = (
        (any(head.prompt_hashes is not None for head in heads), 2),
        (escalation is not None or not all(isinstance(encoder, EncoderSource) for encoder in encoders), 3),
        (any(head.fitted_on.hash_key is not None for head in heads), 5),
        (True, max(version_of(candidates), price_version(prices), rows_version(path_rows))),
    )
    version = max(number for needed, number in needs if needed)
    manifest = {
        "schema_version": version,
        "name": name,
        "created": created,
        "candidates": [candidate_json(candidate, version) for candidate in candidates],
        "encoders": [encoder_json(draft.add, encoder) for encoder in encoders],
        "heads": [_head_json(draft, head, version >= 2) for head in heads],
        "prices": draft.add(_PRICES, _prices_bytes(prices)),
        "support": _support_json(draft, support),
        "calibrations": [],
        "extra_files": [draft.add(relative, source) for relative, source in sorted((extra_files or {}).items())],
        "provenance": dict(provenance),
    }
    if version >= 3:
        manifest["escalation"] = (
            None if escalation is None else {"heads": escalation.heads, "gap": float(escalation.gap)}
        )
    if version >= 5:
        manifest["path_rows"] = None if path_rows is None else path_rows_json(draft.add, path_rows)
    return draft.publish(manifest, activate)


def heads_sha256(head: HeadsSource) -> str:
    """sha256 of the weights file that `write_bundle` makes of these heads, for `PathRows.heads`."""
    return hashlib.sha256(_tensor_bytes(head.tensors, f"heads {head.id!r}")).hexdigest()


def with_prices(
    bundle: Bundle | str | os.PathLike[str],
    prices: PriceList,
    *,
    kept: Collection[str] = (),
    root: str | os.PathLike[str] | None = None,
    created: str | None = None,
    activate: bool = True,
) -> Path:
    """Write a bundle that differs from `bundle` in its prices alone, sharing every other file; returns its folder.

    Args:
        prices: of every candidate.
        kept: candidates whose price is the old one, of the day that it had: `prices.date` does not speak of them
            (`origin.price_dates`).
        root: by default the folder that holds the bundle's own. created: stays by default.
    Raises:
        InvalidInputError: no candidate of that name is `kept`. Else as `write_bundle`.
    """
    dates = price_dates(bundle if isinstance(bundle, Bundle) else Bundle.load(bundle)) if kept else {}
    unknown = sorted(set(kept) - dates.keys())
    if unknown:
        raise InvalidInputError(f"kept: unknown candidate {', '.join(unknown)}; known: {', '.join(dates)}")
    older = {name: dates[name] for name in kept if dates[name] != prices.date}
    folder = bundle.path if isinstance(bundle, Bundle) else find_folder(as_path(bundle, "bundle"))
    draft = Draft(folder.parent if root is None else as_path(root, "root"))
    document = parse_json(read_regular(folder / MANIFEST, str(folder / MANIFEST)), str(folder / MANIFEST))
    replaced = document.mapping()["prices"].mapping()["path"].value
    for entry in listed_files(document, folder):
        if entry.relative != replaced and entry.relative not in draft.files:
            draft.add(entry.relative, entry.verify())
    manifest = {**raised(document.value, price_version(prices)), "prices": draft.add(replaced, _prices_bytes(prices))}
    noted = {
        key: field.value for key, field in document.mapping()["provenance"].mapping().items() if key != PRICE_DATES
    }
    manifest["provenance"] = {**noted, **({PRICE_DATES: older} if older else {})}
    return draft.publish(manifest if created is None else {**manifest, "created": created}, activate)


def with_performance(
    bundle: Bundle | str | os.PathLike[str],
    figures: Mapping[str, Performance | None],
    *,
    root: str | os.PathLike[str] | None = None,
    created: str | None = None,
    activate: bool = True,
) -> Path:
    """Write a bundle that differs from `bundle` in these candidates' figures alone; returns its folder.

    Args:
        figures: candidate -> all that is known of it from now on, None for nothing; candidates left out keep theirs.
        root: by default the folder that holds the bundle's own. created: stays by default.
    Raises:
        InvalidInputError: no candidate of that name. Else as `write_bundle`.
    """
    old = bundle if isinstance(bundle, Bundle) else Bundle.load(bundle)
    unknown = sorted(set(figures) - set(old.names))
    if unknown:
        raise InvalidInputError(f"performance: unknown candidate {unknown[0]!r}; known: {', '.join(old.names)}")
    candidates = [replace(c, performance=figures.get(c.name, c.performance)) for c in old.candidates]
    draft = Draft(old.path.parent if root is None else as_path(root, "root"))
    document = parse_json(read_regular(old.path / MANIFEST, str(old.path / MANIFEST)), str(old.path / MANIFEST))
    for entry in listed_files(document, old.path):
        if entry.relative not in draft.files:
            draft.add(entry.relative, entry.verify())
    manifest = raised(document.value, version_of(candidates))
    manifest["candidates"] = [candidate_json(candidate, manifest["schema_version"]) for candidate in candidates]
    return draft.publish(manifest if created is None else {**manifest, "created": created}, activate)


def with_calibrations(
    bundle: Bundle | str | os.PathLike[str],
    maps: Sequence[CalibrationMap],
    *,
    root: str | os.PathLike[str] | None = None,
    activate: bool = True,
) -> Path:
    """Write a bundle that differs from `bundle` in its calibration maps alone, sharing every file; returns its folder.

    Each map replaces the one of the same candidate set; the others stay. Errors as for `write_bundle`.
    """
    folder = bundle.path if isinstance(bundle, Bundle) else find_folder(as_path(bundle, "bundle"))
    draft = Draft(folder.parent if root is None else as_path(root, "root"))
    document = parse_json(read_regular(folder / MANIFEST, str(folder / MANIFEST)), str(folder / MANIFEST))
    for entry in listed_files(document, folder):
        if entry.relative not in draft.files:
            draft.add(entry.relative, entry.verify())
    manifest = raised(document.value, 2)
    replaced = [set(made.candidates) for made in maps]
    kept = [entry for entry in manifest["calibrations"] if set(entry["candidates"]) not in replaced]
    new = [made.to_json() for made in maps]
    manifest["calibrations"] = sorted([*kept, *new], key=lambda entry: (-len(entry["candidates"]), entry["candidates"]))
    return draft.publish(manifest, activate)


def with_extra_files(
    bundle: Bundle | str | os.PathLike[str],
    extra_files: Mapping[str, Path | bytes],
    *,
    provenance: Mapping[str, Any] | None = None,
    root: str | os.PathLike[str] | None = None,
    activate: bool = True,
) -> Path:
    """Write a bundle that differs from `bundle` in its extra files (a model card, say) alone; returns its folder.

    Args:
        extra_files: as for `write_bundle`; one of a path that the bundle has replaces it, the others stay.
        provenance: the new bundle's, None to keep it.
        root: by default the folder that holds the bundle's own.
    Raises:
        as `write_bundle`.
    """
    folder = bundle.path if isinstance(bundle, Bundle) else find_folder(as_path(bundle, "bundle"))
    draft = Draft(folder.parent if root is None else as_path(root, "root"))
    document = parse_json(read_regular(folder / MANIFEST, str(folder / MANIFEST)), str(folder / MANIFEST))
    kept = [entry for entry in document.value["extra_files"] if entry["path"] not in extra_files]
    replaced = {entry["path"] for entry in document.value["extra_files"]} & set(extra_files)
    for entry in listed_files(document, folder):
        if entry.relative not in replaced and entry.relative not in draft.files:
            draft.add(entry.relative, entry.verify())
    new = [draft.add(relative, source) for relative, source in extra_files.items()]
    manifest = {**document.value, "extra_files": sorted([*kept, *new], key=lambda entry: str(entry["path"]))}
    return draft.publish(manifest if provenance is None else {**manifest, "provenance": dict(provenance)}, activate)


def activate(root: str | os.PathLike[str], hash: str) -> None:
    """Make the bundle `hash` of `root` the live one, once it has passed every check."""
    base = as_path(root, "root")
    if not isinstance(hash, str) or not is_hex64(hash):
        raise InvalidInputError(f"hash: expected 64 lower-case hex digits, got {hash!r}; pass Bundle.hash")
    Bundle.load(base / hash)
    set_current(base, hash)


def _head_json(draft: Draft, head: HeadsSource, hashed: bool) -> dict[str, Any]:
    return {
        "id": head.id,
        "encoder": head.encoder,
        "outputs": list(head.outputs),
        "activation": head.activation,
        "weights": draft.add(f"heads/{head.id}.safetensors", _tensor_bytes(head.tensors, f"heads {head.id!r}")),
        "candidates": list(head.candidates),
        "rule_constants": None if head.rule_constants is None else with_floats(asdict(head.rule_constants), "hi", "lo"),
        "fitted_on": _fitted_on_json(draft, head, hashed),
    }


def _fitted_on_json(draft: Draft, head: HeadsSource, hashed: bool) -> dict[str, Any]:
    document = asdict(head.fitted_on)
    del document["prompt_hashes"]  # where a loaded bundle keeps them; here they come as arrays
    key = document.pop("hash_key")
    if not hashed:
        return document
    data = None if head.prompt_hashes is None else _hash_bytes(head.prompt_hashes, f"heads {head.id!r}: prompt_hashes")
    entry = None if data is None else draft.add(f"heads/{head.id}.prompts.safetensors", data)
    return {**document, "prompt_hashes": entry, **({} if key is None else {"hash_key": key})}


def _hash_bytes(hashes: Mapping[str, NDArray[np.uint64]], where: str) -> bytes:
    from safetensors.numpy import save

    for name, values in hashes.items():
        if values.dtype != np.uint64 or values.ndim != 1:
            fail(
                BundleShapeError,
                f"{where}: {name}",
                "a (n,) uint64 array",
                f"{values.dtype} {values.shape}",
                "convert it",
            )
    return save({name: np.asarray(values, order="C") for name, values in sorted(hashes.items())})


def _support_json(draft: Draft, support: SupportSpec | None) -> dict[str, Any] | None:
    if support is None:
        return None
    tensors = {"centroids": support.centroids, "distances": support.distances}
    weights = draft.add("support.safetensors", _tensor_bytes(tensors, "support"))
    return {"encoder": support.encoder, "weights": weights}


def _tensor_bytes(tensors: Mapping[str, Float32], where: str) -> bytes:
    """safetensors bytes without metadata; the library orders them by dtype and name."""
    from safetensors.numpy import save

    for name, tensor in tensors.items():
        if not isinstance(tensor, np.ndarray) or tensor.dtype != np.float32:
            got = tensor.dtype if isinstance(tensor, np.ndarray) else type(tensor).__name__
            fail(BundleShapeError, f"{where}: {name}", "a float32 array", str(got), "convert it")
    return save({name: np.asarray(tensor, order="C") for name, tensor in sorted(tensors.items())})


def _prices_bytes(prices: PriceList) -> bytes:
    rows = {name: price_json(price) for name, price in prices.prices.items()}
    return json_bytes({"currency": prices.currency, "date": prices.date, "prices": rows}, _PRICES)
