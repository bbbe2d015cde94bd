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
from ipr_engine.bundle.conversation import Conversation
from ipr_engine.collection.collection_plan import CollectionPlan
from ipr_engine.collection.outcome_tables import CANDIDATES
from ipr_engine.data.outcome_files import OUTCOMES, PROMPTS
from ipr_engine.errors import BundleError, InvalidInputError

KEPT = "router.json"


def made_of(plan: CollectionPlan, tau: float, conversation: Conversation | None = None) -> str:
    """Return a digest of all that the steps after the collection read: tables, candidates, seed, tau, this version, and what of several
    turns is to be encoded, where that is stated."""
    settings = json.dumps([plan.seed, tau, __version__, *([] if conversation is None else [conversation])])
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


def refuse_changed(project: Path, root: Path, asked: Sequence[str]) -> None:
    """Refuse a current bundle that another command made of the one that was kept: a new one would take its place, without what is in it.

    asked: the candidates that the new one would have.

    Raises:
        InvalidInputError: names both bundles, candidates that would be lost, and what to do.
    """
    try:
        made, current = str(json.loads((project / KEPT).read_bytes())["bundle"]), Bundle.load(root)
    except (OSError, ValueError, LookupError, TypeError, RecursionError, BundleError):
        return  # nothing that stands: everything is made anew
    if current.hash == made:
        return
    lost = [name for name in current.names if name not in asked]
    told = f", and {shown_each(lost)} with it" if lost else ""
    raise InvalidInputError(
        f"{root}: its current bundle, {current.hash[:12]}, is not the one that `ipr init` made, {made[:12]}: another command "
        f"changed it, and it would be replaced{told}; name another folder with --out, or take {project / KEPT} away to let it be "
        "replaced"
    )


def let_go(project: Path) -> None:
    """Forget what was kept: the bundle that is current from now on is another one."""
    (project / KEPT).unlink(missing_ok=True)


def keep(project: Path, digest: str, bundle: str, split: Path, facts: Mapping[str, Any]) -> None:
    """Write what came of these inputs beside a digest of it, of them, of the bundle and of the split."""
    kept = {"made_of": _seal(digest, bundle, split, facts), "bundle": bundle, "router": dict(facts)}
    write_atomically(project / KEPT, json.dumps(kept, indent=1).encode())


def _seal(digest: str, bundle: str, split: Path, facts: Mapping[str, Any]) -> str:
    return sha256_hex(digest.encode(), bundle.encode(), *_digests(split), json.dumps(facts, sort_keys=True).encode())


def _digests(folder: Path) -> list[bytes]:
    """Return name and digest of each table in a folder, and of its candidates."""
    tables = [file for file in folder.iterdir() if file.stem in (PROMPTS, OUTCOMES) or file.name == CANDIDATES]
    return [f"{file.name} {file_sha256(file)[0]}".encode() for file in sorted(tables)]
