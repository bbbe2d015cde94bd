"""`ipr info` and `ipr escalate` describe a bundle's path rows by this file."""

from __future__ import annotations

from typing import Any

from ipr_engine.bundle import Bundle
from ipr_engine.bundle.origin import FIRST_ALONE


def path_rows_facts(bundle: Bundle) -> dict[str, Any] | None:
    """Return what is known of a bundle's path rows, in plain JSON types; None where it has none."""
    rows = bundle.path_rows
    if rows is None:
        return None
    both = rows.again_quality is not None
    return {
        "rows": len(rows.quality),
        "candidates": list(rows.candidates),
        "without_rows": list(rows.without_rows(bundle.names)),
        "tiers": 2 if both else 1,
        "first_tier_alone": None if bundle.escalation is None or both else bundle.provenance.get(FIRST_ALONE),
    }


def path_rows_line(bundle: Bundle) -> str:
    """Return the facts of `path_rows_facts` as one line for a reader."""
    facts = path_rows_facts(bundle)
    if facts is None:
        return "tau's path: no rows; `ipr train` writes them"
    covered = f"{len(facts['candidates'])} of {len(bundle.names)} candidates"
    line = f"tau's path: {facts['rows']} rows of fitting prompts, {covered}"
    if facts["without_rows"]:
        line += f"; none of {', '.join(facts['without_rows'])}, whose path is stale until the heads are fitted anew"
    if bundle.escalation is not None:
        alone = f"of the first tier alone ({facts['first_tier_alone'] or 'the second has none'})"
        line += "; of both tiers" if facts["tiers"] == 2 else f"; {alone}"
    return line
