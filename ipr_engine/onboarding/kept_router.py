"""This file keeps what came of a project beside what it was made of: `ipr init`, given again with nothing changed, fits nothing anew."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ipr_engine._files import file_sha256, sha256_hex, write_atomically
from ipr_engine._version import __version__
from ipr_engine.bundle import Bundle
from ipr_engine.collection.collection_plan import CollectionPlan
from ipr_engine.collection.outcome_tables import CANDIDATES
from ipr_engine.data.outcome_files import OUTCOMES, PROMPTS
from ipr_engine.errors import BundleError

KEPT = "router.json"


def made_of(plan: CollectionPlan, tau: float) -> str:
    """Return a digest of all that the steps after the collection read: tables, candidates, seed, tau and this version."""
    settings = json.dumps([plan.seed, tau, __version__])
    return sha256_hex(*_digests(plan.out_folder), settings.encode())


def read_kept(project: Path, digest: str, root: Path, split: Path, report: Path) -> dict[str, Any] | None:
    """Return what was kept of these inputs.

    None where they differ, or the bundle that is current, or the tables of the split; where the report is gone, or the file is damaged.
    """
    try:
        kept = json.loads((project / KEPT).read_bytes())
        bundle, facts = Bundle.load(root).hash, kept["router"]
        stands = kept["made_of"] == _seal(digest, bundle, split, facts) and report.is_file()
    except (OSError, ValueError, LookupError, TypeError, RecursionError, BundleError):
        return None  # nothing that stands: everything is made anew
    return facts if stands else None


def keep(project: Path, digest: str, bundle: str, split: Path, facts: Mapping[str, Any]) -> None:
    """Write what came of these inputs beside a digest of it, of them, of the bundle and of the split."""
    kept = {"made_of": _seal(digest, bundle, split, facts), "router": dict(facts)}
    write_atomically(project / KEPT, json.dumps(kept, indent=1).encode())


def _seal(digest: str, bundle: str, split: Path, facts: Mapping[str, Any]) -> str:
    return sha256_hex(digest.encode(), bundle.encode(), *_digests(split), json.dumps(facts, sort_keys=True).encode())


def _digests(folder: Path) -> list[bytes]:
    """Return name and digest of each table in a folder, and of its candidates."""
    tables = [file for file in folder.iterdir() if file.stem in (PROMPTS, OUTCOMES) or file.name == CANDIDATES]
    return [f"{file.name} {file_sha256(file)[0]}".encode() for file in sorted(tables)]
