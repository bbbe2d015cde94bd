"""This file keeps what came of a project beside what it was made of: `ipr init`, given again with nothing changed, fits nothing anew."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ipr_engine._files import file_sha256, sha256_hex, write_atomically
from ipr_engine._validate import shown_each
from ipr_engine._version import __version__
from ipr_engine.bundle import Bundle
from ipr_engine.collection.collection_plan import CollectionPlan
from ipr_engine.collection.outcome_tables import CANDIDATES
from ipr_engine.data.outcome_files import OUTCOMES, PROMPTS
from ipr_engine.errors import BundleError, InvalidInputError

KEPT = "router.json"


def made_of(plan: CollectionPlan, tau: float) -> str:
    """Return a digest of all that the steps after the collection read: tables, candidates, seed, tau and this version."""
    tables = [file for file in plan.out_folder.iterdir() if file.stem in (PROMPTS, OUTCOMES) or file.name == CANDIDATES]
    parts = [f"{file.name} {file_sha256(file)[0]}".encode() for file in sorted(tables)]
    return sha256_hex(*parts, json.dumps([plan.seed, tau, __version__]).encode())


def read_kept(project: Path, digest: str, root: Path, report: Path) -> dict[str, Any] | None:
    """Return what was kept of these inputs; None where they or the bundle that is current differ, or the report is gone."""
    kept, current = _kept(project), _current(root)
    if current is None or kept.get("made_of") != digest or kept.get("bundle") != current.hash or not report.is_file():
        return None
    facts = kept.get("router")
    return facts if isinstance(facts, dict) else None


def refuse_changed(project: Path, root: Path, asked: Sequence[str]) -> None:
    """Refuse a current bundle that another command made of the one that was kept: a new one would take its place, without what is in it.

    asked: the candidates that the new one would have.

    Raises:
        InvalidInputError: names both bundles, candidates that would be lost, and what to do.
    """
    made, current = _kept(project).get("bundle"), _current(root)
    if made is None or current is None or current.hash == made:
        return
    lost = [name for name in current.names if name not in asked]
    told = f", and {shown_each(lost)} with it" if lost else ""
    raise InvalidInputError(
        f"{root}: its current bundle, {current.hash[:12]}, is not the one that `ipr init` made, {str(made)[:12]}: another command "
        f"changed it, and it would be replaced{told}; name another folder with --out, or take {project / KEPT} away to let it be "
        "replaced"
    )


def let_go(project: Path) -> None:
    """Forget what was kept: the bundle that is current from now on is another one."""
    (project / KEPT).unlink(missing_ok=True)


def keep(project: Path, digest: str, bundle: str, facts: Mapping[str, Any]) -> None:
    """Write what came of these inputs, and the hash of the bundle that did."""
    kept = {"made_of": digest, "bundle": bundle, "router": dict(facts)}
    write_atomically(project / KEPT, json.dumps(kept, indent=1).encode())


def _kept(project: Path) -> dict[str, Any]:
    """Return what is kept; nothing where it is damaged or gone."""
    try:
        kept = json.loads((project / KEPT).read_bytes())
    except (OSError, ValueError):
        return {}
    return kept if isinstance(kept, dict) else {}


def _current(root: Path) -> Bundle | None:
    try:
        return Bundle.load(root)
    except (OSError, ValueError, BundleError):
        return None  # nothing that stands: everything is made anew
