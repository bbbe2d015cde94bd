"""What may be asked of a policy instead of tau; tau's path answers, or the bundle's calibration map (docs/calibration.md)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from ipr_engine._validate import nonnegative, unit_interval
from ipr_engine.errors import InvalidInputError

CALIBRATED = "calibrated"
PATH = "path"
PRESETS: Mapping[str, float] = MappingProxyType({"quality": 1.0, "balanced": 0.98, "cost": 0.95})  # share of best kept
ASKS = ("quality_share", "max_usd_per_1k", "max_share_strongest", "response_quality_difference", "preset")


def tau_or_ask(tau: float | None, asks: Mapping[str, object]) -> tuple[float | None, tuple[str, float] | None]:
    """tau, or the one thing asked instead of it: a share of quality, a cost or a share of prompts."""
    given = {name: value for name, value in asks.items() if value is not None}
    unknown = sorted(given.keys() - set(ASKS))
    if unknown:
        raise InvalidInputError(f"{', '.join(unknown)}: unknown; known: tau, {', '.join(ASKS)}")
    if (tau is not None) + len(given) != 1:
        got = ", ".join([*(["tau"] if tau is not None else []), *given]) or "nothing"
        raise InvalidInputError(f"tau: expected tau=... in [0, 1] or one of {', '.join(ASKS)} instead, got {got}")
    if tau is not None:
        return unit_interval("tau", tau), None
    return None, _plain_ask(*next(iter(given.items())))


def rule_meant(rule: str | None, asks: Mapping[str, object], *, has_path: bool) -> str:
    """The rule that answers: the one named, else the path where the allowed candidates have one."""
    if rule is not None and not isinstance(rule, str):
        raise InvalidInputError(f"rule: expected a name, got {type(rule).__name__}")
    asked = next((name for name, value in asks.items() if value is not None), None)
    if rule is None:
        return PATH if has_path else "minmax" if asked is None else CALIBRATED
    if asked is not None and rule not in (PATH, CALIBRATED):
        who = f"only rules {PATH!r} and {CALIBRATED!r} answer" if has_path else f"only rule {CALIBRATED!r} answers"
        raise InvalidInputError(f"{asked}: {who} it, got rule {rule!r}; leave the rule out")
    return rule


def _plain_ask(name: str, value: object) -> tuple[str, float]:
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
