"""This file makes a bundle from another by one candidate more or less; every other row and file stays, bit for bit."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine.bundle.bundle_files import hash_bytes, tensor_bytes
from ipr_engine.bundle.candidate_entry import candidate_json, price_version, prices_bytes, version_of
from ipr_engine.bundle.fitted_entries import path_rows_json, rows_version
from ipr_engine.bundle.head_rows import of_candidates, row_of, with_row
from ipr_engine.bundle.load import Bundle, raised
from ipr_engine.bundle.origin import CONSTANT, PRICE_DATES
from ipr_engine.bundle.price import Price
from ipr_engine.bundle.reliability import RELIABILITY, RELIABILITY_SECOND, read_reliability, reliability_bytes
from ipr_engine.bundle.spec import Candidate, HeadsSpec, PathRows, PriceList
from ipr_engine.bundle.write import begin_rewrite
from ipr_engine.errors import InvalidInputError

Rows = Mapping[str, npt.NDArray[Any]]
Hashes = Mapping[str, npt.NDArray[np.uint64]]
Provenance = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass(frozen=True, kw_only=True, eq=False)
class NewCandidate:
    """A `NewCandidate` is a candidate to add to a bundle.

    Attributes:
        rows: tensor name -> its row, float32, for every tensor of the deciding heads that has rows.
        note: goes to provenance["added"][name] (docs/formats.md).
        constant: why its head counts as constant, None where it does not.
        called: its name in outcomes, one for all or {source: name}; goes to provenance["sources"], where `ipr eval` looks it up.
    """

    candidate: Candidate
    price: Price
    rows: Rows
    note: Mapping[str, Any]
    constant: str | None = None
    called: Mapping[str, str] | str | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Refit:
    """A `Refit` holds what a new candidate changes of the others, and of the bundle as a whole.

    Attributes:
        prompt_hashes: replace those that the deciding heads keep; only where they keep some.
        tensors: of the deciding heads, in place of the old candidates' (training/add/refresh.py), which then change.
        path_rows: replace the bundle's, whose columns are the old candidates' alone; their `heads` are filled in. None keeps
            those of the old candidates, but where `tensors` makes them predictions of heads that are no more: then none are kept.
        extra_files: replace those of the same name.
    """

    prompt_hashes: Hashes | None = None
    tensors: Rows | None = None
    path_rows: PathRows | None = None
    extra_files: Mapping[str, bytes] = field(default_factory=dict)


def with_candidate(
    bundle: Bundle,
    new: NewCandidate,
    refit: Refit | None = None,
    *,
    root: str | os.PathLike[str] | None = None,
    created: str | None = None,
    activate: bool = True,
) -> Path:
    """Write a bundle with one candidate more, the last, and return its folder. A two-tier bundle is refused.

    The deciding heads gain a row; other heads, the encoder, support, rule constants and calibrations stay.

    Args:
        refit: None changes nothing else.
        root: by default the folder that holds the bundle's own. created: stays by default.
    Raises:
        InvalidInputError: the name is taken, or rows are not those the heads need.
        BundleError: what `Bundle.load` would say of the result; then nothing is left behind.
    """
    require_one_tier(bundle)
    refit = Refit() if refit is None else refit
    candidate, rows = new.candidate, new.rows
    if candidate.name in bundle.names:
        raise InvalidInputError(f"candidate: {candidate.name!r} is in the bundle already; remove it first")
    heads = bundle.quality_heads
    # tensor -> the shape of one candidate's row
    needed = {name: part.shape for name, part in row_of(heads.tensors, 0).items()}
    given = {name: row.shape for name, row in rows.items()}
    if needed != given:
        raise InvalidInputError(f"rows: expected one row for each of {needed}, got {given}")
    tensors = with_row({**heads.tensors, **(refit.tensors or {})}, rows)
    # Old path rows are no predictions of refitted heads: they stay only where no tensor is replaced.
    path_rows = refit.path_rows
    if path_rows is None and refit.tensors is None:
        path_rows = bundle.path_rows

    def record(provenance: dict[str, Any]) -> dict[str, Any]:
        known = provenance.get("sources", {})
        named = {} if new.called is None else {"sources": {**known, candidate.name: new.called}}
        constant = {**provenance.get(CONSTANT, {}), candidate.name: new.constant}
        marked = {} if new.constant is None else {CONSTANT: constant}
        return {
            **provenance,
            **named,
            **marked,
            "added": {**provenance.get("added", {}), candidate.name: dict(new.note)},
        }

    change = _Change(
        candidates=[*bundle.candidates, candidate],
        heads={heads.id: ((*bundle.names, candidate.name), tensors)},
        prices={**bundle.prices.prices, candidate.name: new.price},
        provenance=record,
        path_rows=path_rows,
        prompt_hashes=refit.prompt_hashes,
        extra_files=refit.extra_files,
    )
    return _rewrite(bundle, change, root=root, created=created, activate=activate)


def require_one_tier(bundle: Bundle) -> None:
    """Raise InvalidInputError for a bundle of two tiers: a candidate is added to the first heads alone."""
    if bundle.escalation is not None:
        raise InvalidInputError(
            "bundle: it has two tiers, and the new candidate's row would be in the first heads alone; add the candidate to each of "
            "the two bundles it was made of, then join them again with `ipr escalate`"
        )


def without_candidate(
    bundle: Bundle,
    name: str,
    *,
    extra_files: Mapping[str, bytes] | None = None,
    root: str | os.PathLike[str] | None = None,
    created: str | None = None,
    activate: bool = True,
) -> Path:
    """Write a bundle with one candidate less, in both heads of a two-tier one, and return its folder.

    Arguments as for `with_candidate`.

    Raises:
        InvalidInputError: no candidate of that name, or it is the last one.
    """
    if name not in bundle.names:
        raise InvalidInputError(f"candidate: unknown {name!r}; known: {', '.join(bundle.names)}")
    if len(bundle.names) == 1:
        raise InvalidInputError(f"candidate: {name!r} is the last one, a bundle needs at least one; add another first")
    changed = {head.id: _without(head, name) for head in bundle.heads if name in head.candidates}
    deciding = bundle.quality_heads
    changed[deciding.id] = _without(deciding, name)

    def record(provenance: dict[str, Any]) -> dict[str, Any]:
        added = {key: note for key, note in provenance.get("added", {}).items() if key != name}
        removed = [*provenance.get("removed", []), name]
        # What is said of the candidate by name goes with it: another one may come under the same name.
        rest = {key: value for key, value in provenance.items() if key not in ("added", CONSTANT)}
        constant = {key: why for key, why in provenance.get(CONSTANT, {}).items() if key != name}
        rest |= {CONSTANT: constant} if constant else {}
        for by_name in ("sources", PRICE_DATES):
            if isinstance(rest.get(by_name), dict):
                rest[by_name] = {key: stated for key, stated in rest[by_name].items() if key != name}
        return {**rest, **({"added": added} if added else {}), "removed": removed}

    for second, file in enumerate((RELIABILITY, RELIABILITY_SECOND)):
        tables = read_reliability(bundle, second=bool(second))  # of another candidate that may come under this name
        if tables is not None and name in tables:
            left = {key: table for key, table in tables.items() if key != name}
            extra_files = {file: reliability_bytes(left), **(extra_files or {})}

    change = _Change(
        candidates=[candidate for candidate in bundle.candidates if candidate.name != name],
        heads=changed,
        prices={key: price for key, price in bundle.prices.prices.items() if key != name},
        provenance=record,
        path_rows=bundle.path_rows,
        extra_files=extra_files or {},
    )
    return _rewrite(bundle, change, root=root, created=created, activate=activate)


def _without(heads: HeadsSpec, name: str) -> tuple[tuple[str, ...], Rows]:
    """Return the candidates and tensors of heads without one of them."""
    keep = [row for row, candidate in enumerate(heads.candidates) if candidate != name]
    return tuple(heads.candidates[row] for row in keep), of_candidates(heads.tensors, keep)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Change:
    """A `_Change` holds the parts of a manifest that an edit replaces. heads: id -> the candidates of the rows, and the tensors."""

    candidates: list[Candidate]
    heads: Mapping[str, tuple[tuple[str, ...], Rows]]
    prices: Mapping[str, Price]
    provenance: Provenance
    path_rows: PathRows | None
    extra_files: Mapping[str, bytes]
    prompt_hashes: Hashes | None = None


def _rewrite(
    bundle: Bundle,
    change: _Change,
    *,
    root: str | os.PathLike[str] | None,
    created: str | None,
    activate: bool,
) -> Path:
    """Write the bundle's own manifest with these parts replaced.

    Heads left without candidates go, and their columns of the path.
    """
    folder = bundle.path
    draft, document = begin_rewrite(folder, root)
    candidates, changed, extra_files = change.candidates, change.heads, change.extra_files
    manifest = dict(document.value)
    old_heads = [head for head in manifest["heads"] if head["id"] not in changed or changed[head["id"]][0]]
    gone = [head for head in manifest["heads"] if head not in old_heads]
    # Paths of files that are written anew, or whose heads go.
    replaced = {manifest["prices"]["path"], *extra_files}
    replaced |= {head["weights"]["path"] for head in manifest["heads"] if head["id"] in changed}
    if manifest.get("path_rows") is not None:
        replaced.add(manifest["path_rows"]["arrays"]["path"])
    grown = None if change.prompt_hashes is None else hash_bytes(change.prompt_hashes, "prompt_hashes")
    if grown is not None:
        replaced |= {
            head["fitted_on"]["prompt_hashes"]["path"] for head in old_heads if head["id"] == bundle.quality_heads.id
        }
    replaced |= {entry["path"] for head in gone for entry in head["fitted_on"].values() if isinstance(entry, dict)}
    # Files that stay are taken in first; those that are written anew below keep their paths.
    draft.keep(document, folder, but=replaced)
    new_heads = []
    for head in old_heads:
        if head["id"] in changed:
            names, tensors = changed[head["id"]]
            weights = draft.add(head["weights"]["path"], tensor_bytes(tensors, f"heads {head['id']!r}"))
            head = {**head, "candidates": list(names), "weights": weights}
        if grown is not None and head["id"] == bundle.quality_heads.id:
            fitted_on = head["fitted_on"]
            written = draft.add(fitted_on["prompt_hashes"]["path"], grown)
            head = {**head, "fitted_on": {**fitted_on, "prompt_hashes": written}}
        new_heads.append(head)
    deciding = bundle.quality_heads.id  # first, so that no other heads come to cover every candidate before them
    manifest["heads"] = sorted(new_heads, key=lambda head: head["id"] != deciding)
    # The version rises only as far as what is new needs it, part by part.
    manifest = raised(manifest, version_of(candidates))
    if change.path_rows is not None and change.path_rows.tokens_in is not None:
        manifest = raised(manifest, rows_version(change.path_rows))
    manifest["candidates"] = [candidate_json(candidate, manifest["schema_version"]) for candidate in candidates]
    if manifest["schema_version"] >= 5:
        # Path rows name the weights they are predictions of, which have just been written.
        weights = {head["id"]: head["weights"]["sha256"] for head in manifest["heads"]}
        tiers = [deciding] if bundle.escalation is None else [deciding, bundle.escalation.heads]
        kept = _path_of_edited(change.path_rows, [c.name for c in candidates], [weights[id] for id in tiers])
        manifest["path_rows"] = None if kept is None else path_rows_json(draft.add, kept)
    listed = PriceList(currency=bundle.prices.currency, date=bundle.prices.date, prices=change.prices)
    manifest = raised(manifest, price_version(listed))
    manifest["prices"] = draft.add(manifest["prices"]["path"], prices_bytes(listed))
    others = [entry for entry in manifest["extra_files"] if entry["path"] not in extra_files]
    added = [draft.add(relative, data) for relative, data in extra_files.items()]
    manifest["extra_files"] = sorted([*others, *added], key=lambda entry: str(entry["path"]))
    if bundle.unsupported is not None and bundle.unsupported.model not in change.prices:
        manifest["unsupported"] = None  # who answered unsupported prompts is gone: the policy says who does
    manifest["provenance"] = change.provenance(manifest["provenance"])
    return draft.publish(manifest if created is None else {**manifest, "created": created}, activate)


def _path_of_edited(rows: PathRows | None, names: Sequence[str], heads: Sequence[str]) -> PathRows | None:
    """Return the rows with the columns of those of `names` that have one, tied to these heads; None where none is left.

    Args:
        heads: sha256 of the weights that decide after the edit: predictions of the candidates left must be what they were.
    """
    if rows is None:
        return None
    left = [name for name in names if name in rows.candidates]
    tiers = 1 if rows.again_quality is None else 2
    return replace(rows.of(left), heads=tuple(heads[:tiers])) if left else None
