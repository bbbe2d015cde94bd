"""Names are found whatever their case: an exact match wins, and what matches several is an error."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ipr_engine.errors import InvalidInputError


def matched(argument: str, wanted: Iterable[str], known: Iterable[str]) -> dict[str, str]:
    """Return each wanted name -> the known one that it means.

    Raises:
        InvalidInputError: a name is unknown, or several that differ by case alone match it and none exactly.
    """
    names = sorted(set(known))
    by_case: dict[str, list[str]] = {}
    for name in names:
        by_case.setdefault(name.casefold(), []).append(name)
    found: dict[str, Sequence[str]] = {
        name: [name] if name in names else by_case.get(name.casefold(), []) for name in wanted
    }
    unknown = sorted(name for name, matches in found.items() if not matches)
    if unknown:
        raise InvalidInputError(f"{argument}: unknown {', '.join(map(repr, unknown))}; known: {', '.join(names)}")
    for name, matches in found.items():
        if len(matches) > 1:
            raise InvalidInputError(
                f"{argument}: {name!r} matches several that differ by case alone, {', '.join(matches)}; write the one meant exactly"
            )
    return {name: matches[0] for name, matches in found.items()}


def matched_once(argument: str, wanted: Iterable[str], known: Iterable[str]) -> dict[str, str]:
    """Return `matched`, for names that each state something: two that mean the same one are an error."""
    meant = matched(argument, wanted, known)
    for one in set(meant.values()):
        twice = [name for name in meant if meant[name] == one]
        if len(twice) > 1:
            raise InvalidInputError(f"{argument}: {' and '.join(map(repr, twice))} both mean {one}; give it once")
    return meant
