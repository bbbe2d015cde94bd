"""Options of the form NAME=THEIRS: a name of ours, and what a file calls it."""

from __future__ import annotations

from ipr_engine.errors import InvalidInputError


def named_pairs(option: str, items: list[str], form: str) -> dict[str, str]:
    """{name: theirs}; InvalidInputError names the option where one is of another form, or a name is given twice."""
    found: dict[str, str] = {}
    for item in items:
        name, _, theirs = item.partition("=")
        if not name or not theirs or name in found:
            raise InvalidInputError(f"{option}: expected {form}, each name once, got {item!r}")
        found[name] = theirs
    return found
