"""This file makes a bundle from another by replacing prices, performance, calibration maps or extra files; every other file stays."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ipr_engine._files import as_path
from ipr_engine.bundle.calibration import CalibrationMap
from ipr_engine.bundle.candidate_entry import candidate_json, price_version, prices_bytes, version_of
from ipr_engine.bundle.fitted_entries import UNSUPPORTED_VERSION, unsupported_json
from ipr_engine.bundle.load import Bundle, find_folder, raised
from ipr_engine.bundle.origin import PRICE_DATES, price_dates
from ipr_engine.bundle.performance import Performance
from ipr_engine.bundle.spec import PriceList, UnsupportedDefault
from ipr_engine.bundle.write import begin_rewrite
from ipr_engine.errors import InvalidInputError


def with_prices(
    bundle: Bundle | str | os.PathLike[str],
    prices: PriceList,
    *,
    kept: Collection[str] = (),
    root: str | os.PathLike[str] | None = None,
    created: str | None = None,
    activate: bool = True,
) -> Path:
    """Write a bundle that differs from `bundle` in its prices alone, and return its folder; every other file is shared.

    Args:
        prices: of every candidate.
        kept: candidates whose price is the old one, of the day that it had: `prices.date` does not speak of them
            (`origin.price_dates`).
        root: by default the folder that holds the bundle's own. created: stays by default.
    Raises:
        InvalidInputError: no candidate of that name is `kept`. Else as `write_bundle`.
    """
    # Only kept prices have a day of their own: else the bundle need not be loaded.
    dates = price_dates(bundle if isinstance(bundle, Bundle) else Bundle.load(bundle)) if kept else {}
    unknown = sorted(set(kept) - dates.keys())
    if unknown:
        raise InvalidInputError(f"kept: unknown candidate {', '.join(unknown)}; known: {', '.join(dates)}")
    # Written only where it is another day than the list's.
    older = {name: dates[name] for name in kept if dates[name] != prices.date}
    folder = bundle.path if isinstance(bundle, Bundle) else find_folder(as_path(bundle, "bundle"))
    draft, document = begin_rewrite(folder, root)
    replaced = document.mapping()["prices"].mapping()["path"].value
    draft.keep(document, folder, but={replaced})
    manifest = {**raised(document.value, price_version(prices)), "prices": draft.add(replaced, prices_bytes(prices))}
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
    """Write a bundle that differs from `bundle` in these candidates' figures alone, and return its folder.

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
    draft, document = begin_rewrite(old.path, root)
    draft.keep(document, old.path)
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
    """Write a bundle that differs from `bundle` in its calibration maps alone, and return its folder; every file is shared.

    Each map replaces the one of the same candidate set; the others stay. Errors as for `write_bundle`.
    """
    folder = bundle.path if isinstance(bundle, Bundle) else find_folder(as_path(bundle, "bundle"))
    draft, document = begin_rewrite(folder, root)
    draft.keep(document, folder)
    manifest = raised(document.value, 2)
    # A set of candidates has one map, whatever the order of their names.
    replaced = [set(made.candidates) for made in maps]
    kept = [entry for entry in manifest["calibrations"] if set(entry["candidates"]) not in replaced]
    new = [made.to_json() for made in maps]
    # Larger sets first, then by name: the bytes do not depend on the order in which maps were made.
    manifest["calibrations"] = sorted([*kept, *new], key=lambda entry: (-len(entry["candidates"]), entry["candidates"]))
    return draft.publish(manifest, activate)


def with_unsupported(
    bundle: Bundle | str | os.PathLike[str],
    said: UnsupportedDefault | None,
    *,
    root: str | os.PathLike[str] | None = None,
    activate: bool = True,
) -> Path:
    """Write a bundle that differs from `bundle` in who answers unsupported prompts alone, and return its folder.

    Args:
        said: None leaves it to the policy. root: by default the folder that holds the bundle's own.
    Raises:
        as `write_bundle`; BundleFormatError too where the bundle measures no support, or has no such candidate.
    """
    folder = bundle.path if isinstance(bundle, Bundle) else find_folder(as_path(bundle, "bundle"))
    draft, document = begin_rewrite(folder, root)
    draft.keep(document, folder)
    manifest = document.value
    if said is not None or manifest["schema_version"] >= UNSUPPORTED_VERSION:
        manifest = {**raised(manifest, UNSUPPORTED_VERSION), "unsupported": unsupported_json(said)}
    return draft.publish(manifest, activate)


def with_extra_files(
    bundle: Bundle | str | os.PathLike[str],
    extra_files: Mapping[str, Path | bytes],
    *,
    provenance: Mapping[str, Any] | None = None,
    root: str | os.PathLike[str] | None = None,
    activate: bool = True,
) -> Path:
    """Write a bundle that differs from `bundle` in its extra files (a model card, say) alone, and return its folder.

    Args:
        extra_files: as for `write_bundle`; one of a path that the bundle has replaces it, the others stay.
        provenance: the new bundle's, None to keep it.
        root: by default the folder that holds the bundle's own.
    Raises:
        as `write_bundle`.
    """
    folder = bundle.path if isinstance(bundle, Bundle) else find_folder(as_path(bundle, "bundle"))
    draft, document = begin_rewrite(folder, root)
    kept = [entry for entry in document.value["extra_files"] if entry["path"] not in extra_files]
    replaced = {entry["path"] for entry in document.value["extra_files"]} & set(extra_files)
    draft.keep(document, folder, but=replaced)
    new = [draft.add(relative, source) for relative, source in extra_files.items()]
    manifest = {**document.value, "extra_files": sorted([*kept, *new], key=lambda entry: str(entry["path"]))}
    return draft.publish(manifest if provenance is None else {**manifest, "provenance": dict(provenance)}, activate)
