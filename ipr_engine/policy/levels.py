"""`merged` makes one policy's options of several levels': a server's, a tenant's and a request's, say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from ipr_engine.bundle import Candidate
from ipr_engine.errors import InvalidInputError
from ipr_engine.policy.masks import MASKS, kept_out
from ipr_engine.policy.policy_spec import Options
from ipr_engine.policy.rules import AIMS


class Merged(NamedTuple):
    """A `Merged` is what several levels say together.

    Attributes:
        options: of one policy. Of masks they have `allowed` alone, and only where anybody is left out.
        exclusions: candidate -> why it may not be chosen, whichever level says so, in the candidates' order.
    """

    options: dict[str, Any]
    exclusions: dict[str, str]


def merged(
    levels: Iterable[Options],
    candidates: Sequence[Candidate],
    exclusions: Mapping[str, str] = MappingProxyType({}),
) -> Merged:
    """Return what the levels say together, each over those before it.

    An aim (tau, or what is given in its place) replaces any other. Masks add up: no level widens what those before it leave.
    Every other option goes over its earlier value. None says nothing.

    Args:
        levels: options of a policy; only the masks of them are checked.
        candidates: those of the bundle.
        exclusions: candidate -> why it may not be chosen whatever the levels say.
    Raises:
        InvalidInputError: a mask is wrong, or leaves nobody; the error names it.
    """
    found = dict(exclusions)
    _require_somebody("policy", found, candidates)
    levels = list(levels)
    for level in levels:
        for name in MASKS:
            if level.get(name) is not None:
                for candidate, why in kept_out(candidates, {name: level[name]}).items():
                    found.setdefault(candidate, why)
                _require_somebody(name, found, candidates)
    options = without_masks(levels)
    names = [candidate.name for candidate in candidates]
    found = {name: found[name] for name in names if name in found}
    if found:
        options["allowed"] = [name for name in names if name not in found]
    return Merged(options, found)


def without_masks(levels: Iterable[Options]) -> dict[str, Any]:
    """Return the options that levels say together, each over those before it, as `merged` does; masks are left out."""
    options: dict[str, Any] = {}
    for level in levels:
        given = {name: value for name, value in level.items() if value is not None and name not in MASKS}
        if not given.keys().isdisjoint(AIMS):
            options = {name: value for name, value in options.items() if name not in AIMS}
        options |= given
    return options


def _require_somebody(argument: str, exclusions: Mapping[str, str], candidates: Sequence[Candidate]) -> None:
    if all(candidate.name in exclusions for candidate in candidates):
        reasons = "; ".join(f"{name}: {why}" for name, why in exclusions.items())
        raise InvalidInputError(f"{argument}: nobody is left who could answer ({reasons})")
