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
    tables = [file for file in plan.out_folder.iterdir() if file.stem in (PROMPTS, OUTCOMES) or file.name == CANDIDATES]
    parts = [f"{file.name} {file_sha256(file)[0]}".encode() for file in sorted(tables)]
    return sha256_hex(*parts, json.dumps([plan.seed, tau, __version__]).encode())


def read_kept(project: Path, digest: str, root: Path, report: Path) -> dict[str, Any] | None:
    """Return what was kept of these inputs; None where they or the bundle that is current differ, or the report is gone."""
    try:
        kept = json.loads((project / KEPT).read_bytes())
        current = Bundle.load(root).hash
    except (OSError, ValueError, BundleError):
        return None  # nothing that stands: everything is made anew
    if (
        not isinstance(kept, dict)
        or kept.get("made_of") != digest
        or kept.get("bundle") != current
        or not report.is_file()
    ):
        return None
    facts = kept.get("router")
    return facts if isinstance(facts, dict) else None


def keep(project: Path, digest: str, bundle: str, facts: Mapping[str, Any]) -> None:
    """Write what came of these inputs, and the hash of the bundle that did."""
    kept = {"made_of": digest, "bundle": bundle, "router": dict(facts)}
    write_atomically(project / KEPT, json.dumps(kept, indent=1).encode())
