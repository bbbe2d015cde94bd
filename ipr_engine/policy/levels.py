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
    options: dict[str, Any] = {}
    for level in levels:
        given = {name: value for name, value in level.items() if value is not None}
        for name in MASKS:
            if name in given:
                for candidate, why in kept_out(candidates, {name: given.pop(name)}).items():
                    found.setdefault(candidate, why)
                _require_somebody(name, found, candidates)
        if not given.keys().isdisjoint(AIMS):
            options = {name: value for name, value in options.items() if name not in AIMS}
        options |= given
    names = [candidate.name for candidate in candidates]
    found = {name: found[name] for name in names if name in found}
    if found:
        options["allowed"] = [name for name in names if name not in found]
    return Merged(options, found)


def _require_somebody(argument: str, exclusions: Mapping[str, str], candidates: Sequence[Candidate]) -> None:
    if all(candidate.name in exclusions for candidate in candidates):
        reasons = "; ".join(f"{name}: {why}" for name, why in exclusions.items())
        raise InvalidInputError(f"{argument}: nobody is left who could answer ({reasons})")
