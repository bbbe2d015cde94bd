"""`embed` puts a bundle into this checkout's package, beside those that are there."""

from __future__ import annotations

import shutil
from pathlib import Path

from ipr_engine.bundle import Bundle
from ipr_engine.bundle.bundle_files import in_neighbour, read_regular
from ipr_engine.bundle.fields import parse_json
from ipr_engine.bundle.load import DEFAULT_BUNDLE, listed_files
from ipr_engine.bundle.spec import MANIFEST


def embed(folder: Path, pointer: str, root: Path = DEFAULT_BUNDLE) -> Path:
    """Copy a bundle beside those of `root`, without the files that one of them holds, and let `pointer` name it; returns its folder.

    What `pointer` named before is removed, unless it is the same.
    """
    live, target = root / pointer, root / folder.name
    if live.exists() and (before := root / live.read_text().strip()) != target:
        shutil.rmtree(before, ignore_errors=True)
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(folder, target)
    manifest = target / MANIFEST
    for entry in listed_files(parse_json(read_regular(manifest, str(manifest)), str(manifest)), target):
        if in_neighbour(target, entry.relative, entry.sha256, entry.size) is not None:
            entry.path.unlink()
    for empty in sorted((path for path in target.rglob("*") if path.is_dir()), reverse=True):
        if not any(empty.iterdir()):
            empty.rmdir()
    live.write_text(f"{folder.name}\n")
    return Bundle.load(target).path
