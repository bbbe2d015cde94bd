"""This file writes bundles: equal input gives equal bytes and one hash; readers see the old bundle or the new, never a part.

A `Draft` gathers the files. `Draft.publish` writes them under a temporary name, verifies them, renames the folder to its hash and
makes it the live one.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ipr_engine._files import as_path, sync_folder, temporary_folder, writable_folder, write_atomically, write_new
from ipr_engine.bundle.bundle_files import is_plain_relative, read_regular, sha256_of
from ipr_engine.bundle.candidate_entry import PRICES, candidate_json, price_version, prices_bytes, version_of
from ipr_engine.bundle.encoder_entry import TABLE_OPTIONS, TABLE_OPTIONS_VERSION, encoder_json
from ipr_engine.bundle.encoder_source import AnySource, EncoderSource, SurfaceSource, TaskSource
from ipr_engine.bundle.fields import Field, is_hex64, json_bytes, parse_json
from ipr_engine.bundle.fitted_entries import (
    UNSUPPORTED_VERSION,
    HeadsSource,
    head_json,
    heads_version,
    path_rows_json,
    rows_version,
    support_json,
    unsupported_json,
)
from ipr_engine.bundle.load import CURRENT, DEFAULT_BUNDLE, Bundle, listed_files
from ipr_engine.bundle.spec import (
    MANIFEST,
    Candidate,
    EscalationSpec,
    PathRows,
    PriceList,
    SupportSpec,
    UnsupportedDefault,
)
from ipr_engine.errors import BundleError, InvalidInputError


class Draft:
    """A `Draft` holds the files of a bundle to be, by relative path, until `publish` gives them a folder."""

    def __init__(self, root: Path) -> None:
        """Take the folder of bundles, which need not exist; InvalidInputError where it is a file or a bundle itself."""
        if (root / MANIFEST).exists() or (root.exists() and not root.is_dir()):
            raise InvalidInputError(f"root: expected a folder of bundles, got {root}, a file or a bundle; pass another")
        _require_own("root", root)
        self.root = root
        self.files: dict[str, Path | bytes] = {}
        self._hashes: dict[str, str] = {}

    def add(self, relative: str, source: Path | bytes) -> dict[str, Any]:
        """Take a file in, and return what bundle.json says of it."""
        if not is_plain_relative(relative) or relative in self.files or relative in (MANIFEST, CURRENT):
            todo = "use a new plain relative path; ids become file names"
            raise InvalidInputError(f"{relative!r}: expected a path inside the bundle, not yet taken; {todo}")
        if isinstance(source, bytes):
            digest, size = hashlib.sha256(source).hexdigest(), len(source)
        else:
            digest, size = sha256_of(as_path(source, relative), f"{source} (for {relative})")
        self.files[relative], self._hashes[relative] = source, digest
        return {"path": relative, "sha256": digest, "bytes": size}

    def keep(self, document: Field, folder: Path, *, but: Collection[str] = ()) -> None:
        """Take in every file that the manifest of another bundle lists, but those of these relative paths."""
        for entry in listed_files(document, folder):
            if entry.relative not in but and entry.relative not in self.files:
                self.add(entry.relative, entry.verify())

    def publish(self, manifest: Mapping[str, Any], activate: bool) -> Path:
        """Write the files and this manifest below the root, verify them, and return the new bundle's folder."""
        data = json_bytes(manifest, MANIFEST)
        digest = hashlib.sha256(data).hexdigest()
        with temporary_folder(self.root) as temp:
            self._fill(temp)
            write_new(temp / MANIFEST, data)
            # The entries of all folders are on the disk before the rename makes them visible.
            for folder in (temp, *(path for path in temp.rglob("*") if path.is_dir())):
                sync_folder(folder)
            # What was written is read back: a bundle that cannot be loaded never gets a name.
            Bundle.load(temp)
            _move_to(temp, self.root / digest)
            sync_folder(self.root)
        if activate:
            set_current(self.root, digest)
        return self.root / digest

    def _fill(self, folder: Path) -> None:
        """Write the files into a folder, linked to equal ones of other bundles where that can be done."""
        shared = _shared_files(self.root, self._hashes.values())
        for relative, source in self.files.items():
            target = folder / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            # A draft may hold one content twice: what was just written serves as well.
            twin = shared.get(self._hashes[relative])
            if twin is None or not _link(twin, target):
                write_new(target, source if isinstance(source, bytes) else source.read_bytes())
                shared[self._hashes[relative]] = target


def begin_rewrite(folder: Path, root: str | os.PathLike[str] | None) -> tuple[Draft, Field]:
    """Return an empty draft below `root`, by default the folder that holds the bundle `folder`, and that bundle's manifest."""
    draft = Draft(folder.parent if root is None else as_path(root, "root"))
    return draft, parse_json(read_regular(folder / MANIFEST, str(folder / MANIFEST)), str(folder / MANIFEST))


def _shared_files(root: Path, wanted: Iterable[str]) -> dict[str, Path]:
    """Return sha256 -> file, for the wanted files that another bundle of `root` has, undamaged."""
    missing, found = set(wanted), dict[str, Path]()
    for manifest in sorted(root.glob(f"*/{MANIFEST}")):
        # Folders under other names are drafts of other processes, or copies.
        if not is_hex64(manifest.parent.name):
            continue
        try:
            document = parse_json(read_regular(manifest, str(manifest)), str(manifest))
            for entry in listed_files(document, manifest.parent):
                if entry.sha256 in missing and not entry.path.is_symlink():
                    found[entry.sha256] = entry.verify()
                    missing.discard(entry.sha256)
        except BundleError:
            continue  # a damaged neighbour has nothing to share; loading it would say why
    return found


def _link(source: Path, target: Path) -> bool:
    """Make a hard link, and return whether the file system could."""
    try:
        os.link(source, target)
    except OSError:  # another device, or a file system without hard links: the caller copies
        return False
    return True


def _move_to(temp: Path, final: Path) -> None:
    """Give a written bundle its final name; one that is there already must be whole."""
    try:
        os.rename(temp, final)
    except OSError as error:
        # A folder of that name is there: an equal bundle, unless it was damaged since.
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        try:
            Bundle.load(final)  # written before: the same hash is the same bundle
        except BundleError as damage:
            raise type(damage)(f"{damage}; or delete {final} and write again") from damage


def set_current(root: Path, digest: str) -> None:
    """Make CURRENT name this bundle of the root."""
    write_atomically(root / CURRENT, f"{digest}\n".encode())
    sync_folder(root)


@dataclass(frozen=True, kw_only=True, eq=False)
class BundleParts:
    """`BundleParts` hold the parts of a bundle that is to be written.

    Attributes:
        created: YYYY-MM-DD. It is part of the content, so the same input gives the same hash on any day.
        escalation: two tiers: which heads are asked again, and below which gap.
        unsupported: who answers unsupported prompts where a policy says nothing of them.
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
    unsupported: UnsupportedDefault | None = None
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
    if version >= UNSUPPORTED_VERSION:
        manifest["unsupported"] = unsupported_json(parts.unsupported)
    return draft.publish(manifest, activate)


def _version(parts: BundleParts) -> int:
    """Return the least schema_version that holds these parts."""
    tables = all(isinstance(encoder, EncoderSource) for encoder in parts.encoders)
    # Each part, and the first version that holds it (`load.SCHEMA_VERSIONS`).
    needs = (
        (any(head.prompt_hashes is not None for head in parts.heads), 2),
        (parts.escalation is not None or not tables, 3),
        (any(head.fitted_on.hash_key is not None for head in parts.heads), 5),
        (any(isinstance(encoder, SurfaceSource) for encoder in parts.encoders), 8),
        (any(isinstance(encoder, TaskSource) for encoder in parts.encoders), 9),
        (
            any(getattr(encoder, key, None) for encoder in parts.encoders for key in TABLE_OPTIONS),
            TABLE_OPTIONS_VERSION,
        ),
        (parts.unsupported is not None, UNSUPPORTED_VERSION),
        (True, max(version_of(parts.candidates), price_version(parts.prices), rows_version(parts.path_rows))),
        (True, heads_version(parts.heads)),
    )
    return max(number for needed, number in needs if needed)


def activate(root: str | os.PathLike[str], hash: str) -> None:
    """Make the bundle `hash` of `root` the live one, once it has passed every check."""
    base = as_path(root, "root")
    # Before it becomes a path.
    if not isinstance(hash, str) or not is_hex64(hash):
        raise InvalidInputError(f"hash: expected 64 lower-case hex digits, got {hash!r}; pass Bundle.hash")
    Bundle.load(base / hash)
    set_current(base, hash)


def require_root(name: str, path: str | os.PathLike[str]) -> Path:
    """Return the path, once it is certain that bundles can be written below it; InvalidInputError names the argument."""
    root = writable_folder(path, name)
    if (root / MANIFEST).exists():
        raise InvalidInputError(
            f"{name}: expected a folder of bundles, got {root}, which is a bundle; name the folder above it"
        )
    _require_own(name, root)
    return root


def _require_own(name: str, root: Path) -> None:
    """Raise InvalidInputError for a root in the installed package, by links too."""
    if root.resolve().is_relative_to(DEFAULT_BUNDLE):
        raise InvalidInputError(
            f"{name}: expected a folder of your own, got {root}: the embedded bundles lie in the installed package and stay as they are; "
            "pass another"
        )
