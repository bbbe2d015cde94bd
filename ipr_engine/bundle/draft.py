"""The files of a bundle to be: gathered, then written under a temporary name, verified, renamed to their hash and made live."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from ipr_engine._files import as_path, sync_folder, temporary_beside, write_atomically, write_new
from ipr_engine.bundle.fields import Field, is_hex64, json_bytes, parse_json
from ipr_engine.bundle.file_entry import is_plain_relative, read_regular, sha256_of
from ipr_engine.bundle.load import CURRENT, Bundle, listed_files
from ipr_engine.bundle.spec import MANIFEST
from ipr_engine.errors import BundleError, InvalidInputError


class Draft:
    """The files of a bundle to be, by relative path, until `publish` gives them a folder."""

    def __init__(self, root: Path) -> None:
        if (root / MANIFEST).exists() or (root.exists() and not root.is_dir()):
            raise InvalidInputError(f"root: expected a folder of bundles, got {root}, a file or a bundle; pass another")
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
        data = json_bytes(manifest, MANIFEST)
        digest = hashlib.sha256(data).hexdigest()
        self.root.mkdir(parents=True, exist_ok=True)
        temp = temporary_beside(self.root / MANIFEST)
        try:
            temp.mkdir()
            self._fill(temp)
            write_new(temp / MANIFEST, data)
            for folder in (temp, *(path for path in temp.rglob("*") if path.is_dir())):
                sync_folder(folder)
            Bundle.load(temp)
            _move_to(temp, self.root / digest)
            sync_folder(self.root)
        finally:
            shutil.rmtree(temp, ignore_errors=True)  # already moved when all went well
        if activate:
            set_current(self.root, digest)
        return self.root / digest

    def _fill(self, folder: Path) -> None:
        shared = _shared_files(self.root, self._hashes.values())
        for relative, source in self.files.items():
            target = folder / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            twin = shared.get(self._hashes[relative])
            if twin is None or not _link(twin, target):
                write_new(target, source if isinstance(source, bytes) else source.read_bytes())
                shared[self._hashes[relative]] = target


def begin_rewrite(folder: Path, root: str | os.PathLike[str] | None) -> tuple[Draft, Field]:
    """Return an empty draft below `root`, by default the folder that holds the bundle `folder`, and that bundle's manifest."""
    draft = Draft(folder.parent if root is None else as_path(root, "root"))
    return draft, parse_json(read_regular(folder / MANIFEST, str(folder / MANIFEST)), str(folder / MANIFEST))


def _shared_files(root: Path, wanted: Iterable[str]) -> dict[str, Path]:
    """sha256 -> file for the wanted files that another bundle of `root` has, undamaged."""
    missing, found = set(wanted), dict[str, Path]()
    for manifest in sorted(root.glob(f"*/{MANIFEST}")):
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
    try:
        os.link(source, target)
    except OSError:  # another device, or a file system without hard links: the caller copies
        return False
    return True


def _move_to(temp: Path, final: Path) -> None:
    try:
        os.rename(temp, final)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        try:
            Bundle.load(final)  # written before: the same hash is the same bundle
        except BundleError as damage:
            raise type(damage)(f"{damage}; or delete {final} and write again") from damage


def set_current(root: Path, digest: str) -> None:
    """Have CURRENT name this bundle of the root."""
    write_atomically(root / CURRENT, f"{digest}\n".encode())
    sync_folder(root)
