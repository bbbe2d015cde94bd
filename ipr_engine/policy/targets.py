"""What may be targeted in place of tau: tau's path answers, or the bundle's calibration map (docs/calibration.md)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from ipr_engine._validate import nonnegative, unit_interval
from ipr_engine.errors import InvalidInputError

CALIBRATED, PATH = "calibrated", "path"  # the rules that answer a target
PRESETS: Mapping[str, float] = MappingProxyType({"quality": 1.0, "balanced": 0.98, "cost": 0.95})  # share of best kept
TARGETS = ("quality_share", "max_usd_per_1k", "max_share_strongest", "response_quality_difference", "preset")

Target = tuple[str, float]  # a name of TARGETS but the last two, and its value


def tau_or_target(tau: float | None, targets: Mapping[str, object]) -> tuple[float | None, Target | None]:
    """Return tau, or the one target given in its place: a share of quality, a cost or a share of prompts.

    Raises:
        InvalidInputError: none of them is given, or several; an unknown name; or a value outside its range.
    """
    given = {name: value for name, value in targets.items() if value is not None}
    unknown = sorted(given.keys() - set(TARGETS))
    if unknown:
        raise InvalidInputError(f"{', '.join(unknown)}: unknown; known: tau, {', '.join(TARGETS)}")
    if (tau is not None) + len(given) != 1:
        got = ", ".join([*(["tau"] if tau is not None else []), *given]) or "nothing"
        raise InvalidInputError(f"tau: expected tau=... in [0, 1] or one of {', '.join(TARGETS)} instead, got {got}")
    if tau is not None:
        return unit_interval("tau", tau), None
    return None, _plain_target(*next(iter(given.items())))


def _plain_target(name: str, value: object) -> Target:
    if name == "preset":
        if not isinstance(value, str) or value not in PRESETS:
            raise InvalidInputError(f"preset: expected one of {', '.join(map(repr, PRESETS))}, got {value!r}")
        return "quality_share", PRESETS[value]
    if name == "response_quality_difference":
        percent = nonnegative(name, value)
        if percent > 100:
            raise InvalidInputError(
                f"{name}: expected percent of the best candidate's quality, 0 to 100, got {value!r}"
            )
        return "quality_share", 1 - percent / 100
    return name, nonnegative(name, value) if name == "max_usd_per_1k" else unit_interval(name, value)
