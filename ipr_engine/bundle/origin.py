"""Where a candidate's rows come from when they were added to a bundle: provenance["added"] (docs/design.md section 6)."""

from __future__ import annotations

from .load import Bundle


def prior_of(bundle: Bundle, name: str) -> str | None:
    """What stands in for a candidate that has no outcomes of its own ("prior from claude-x"), None for any other."""
    added = bundle.provenance.get("added")
    note = added.get(name) if isinstance(added, dict) else None
    like = note.get("prior_from") if isinstance(note, dict) else None
    return f"prior from {', '.join(map(str, like))}" if isinstance(like, list) and like else None
