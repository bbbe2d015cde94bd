"""What the outcomes of a source call a candidate."""

from __future__ import annotations

from collections.abc import Mapping


def name_in_source(named: Mapping[str, Mapping[str, str] | str], candidate: str, source: str) -> str:
    """The candidate's name in a source.

    Args:
        named: candidate -> its name, one for all sources or {source: name}; where it says nothing the name is the same.
    """
    name = named.get(candidate, candidate)
    return name if isinstance(name, str) else name.get(source, candidate)
