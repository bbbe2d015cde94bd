"""Masks are the options of a policy that say who may be chosen; `kept_out` tells whom they leave out, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ipr_engine._validate import list_of_names, matched, nonnegative
from ipr_engine.bundle import Candidate
from ipr_engine.errors import InvalidInputError

MASKS = ("allowed", "exclude", "family", "requires", "max_latency_ms")  # in the order in which they give their reasons


def kept_out(candidates: Sequence[Candidate], masks: Mapping[str, Any]) -> dict[str, str]:
    """Return the first reason, in the order of `MASKS`, why a candidate may not be chosen.

    masks: unchecked; one that is None or left out leaves out nobody.
    Raises:
        InvalidInputError: one of them names what no candidate is or has, or is no limit.
    """
    allowed, exclude, family, requires, most_ms = (masks.get(name) for name in MASKS)
    every = {candidate.name for candidate in candidates}
    names = every if allowed is None else _known("allowed", allowed, every)
    away = set() if exclude is None or exclude in ([], (), set(), "") else _known("exclude", exclude, every)
    families = None if family is None else _known("family", family, {c.family for c in candidates})
    features = set() if requires is None else _known("requires", requires, {f for c in candidates for f in c.features})
    limit = None if most_ms is None else nonnegative("max_latency_ms", most_ms)

    result: dict[str, str] = {}
    for candidate in candidates:
        missing = sorted(features - set(candidate.features))
        # an unknown latency keeps a candidate out: the caller asked for those known to answer in time
        if candidate.name not in names:
            result[candidate.name] = "not in allowed"
        elif candidate.name in away:
            result[candidate.name] = "excluded by name"
        elif families is not None and candidate.family not in families:
            result[candidate.name] = f"family is {candidate.family}"
        elif missing:
            result[candidate.name] = f"lacks {', '.join(missing)}"
        elif limit is not None and candidate.latency_ms is None:
            result[candidate.name] = "latency unknown"
        elif limit is not None and candidate.latency_ms is not None and candidate.latency_ms > limit:
            result[candidate.name] = f"latency {candidate.latency_ms:g} ms over {limit:g} ms"
    return result


def _known(argument: str, values: Sequence[str] | str, known: set[str]) -> set[str]:
    """Return the known names meant, whatever their case; at least one."""
    wanted = list_of_names(argument, values)
    if not wanted:
        raise InvalidInputError(f"{argument}: expected at least one name, got an empty list")
    return set(matched(argument, wanted, known).values())
