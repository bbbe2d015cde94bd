"""What may be asked of a policy instead of tau; the bundle's calibration map answers (docs/calibration.md)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from ipr_engine.errors import InvalidInputError
from ipr_engine.ranges import nonnegative, unit_interval

PRESETS: Mapping[str, float] = MappingProxyType({"quality": 1.0, "balanced": 0.98, "cost": 0.95})  # share of best kept
ASKS = ("quality_share", "max_usd_per_1k", "max_share_strongest", "response_quality_difference", "preset")


def tau_or_ask(tau: float | None, asks: Mapping[str, object]) -> tuple[float | None, tuple[str, float] | None]:
    """tau, or the one thing asked instead of it, in the map's terms."""
    given = {name: value for name, value in asks.items() if value is not None}
    if (tau is not None) + len(given) != 1:
        got = ", ".join([*(["tau"] if tau is not None else []), *given]) or "nothing"
        raise InvalidInputError(f"tau: expected tau=... in [0, 1] or one of {', '.join(ASKS)} instead, got {got}")
    if tau is not None:
        return unit_interval("tau", tau), None
    name, value = next(iter(given.items()))
    if name == "preset":
        if not isinstance(value, str) or value not in PRESETS:
            raise InvalidInputError(f"preset: expected one of {', '.join(map(repr, PRESETS))}, got {value!r}")
        return None, ("quality_share", PRESETS[value])
    if name == "response_quality_difference":
        percent = nonnegative(name, value)
        if percent > 100:
            raise InvalidInputError(
                f"{name}: expected percent of the best candidate's quality, 0 to 100, got {value!r}"
            )
        return None, ("quality_share", 1 - percent / 100)
    return None, (name, nonnegative(name, value) if name == "max_usd_per_1k" else unit_interval(name, value))
