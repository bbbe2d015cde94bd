"""Rule `calibrated` reads a bundle's maps: the operating point that a policy runs, and its calibration status (docs/calibration.md)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ipr_engine.bundle import BundleSpec, CalibratedPoint, CalibrationMap, Knot, PriceList
from ipr_engine.bundle.calibration import INSUFFICIENT
from ipr_engine.errors import InvalidInputError
from ipr_engine.policy.rules import CALIBRATED, Target

ESTIMATED = "estimated"
SAME_TAU, SAME_WORTH = 1e-9, 1e-6  # absolute; relative: another machine's last bits
_READ = "read from the bundle's path rows, prompts predicted out of fold"
_CHANGED_TIERS = "an encoder, heads or the gap between the tiers changed since"


STATUSES = ("uncalibrated", "calibrated", "insufficient_evidence", "stale", "estimated")


class CalibrationStatus(NamedTuple):
    """A `CalibrationStatus` tells what is certified of a policy or a decision.

    status: one of STATUSES. reason: what is certified, or why nothing is.
    "calibrated": this very point was tested and certified; "insufficient_evidence": tested, not certified; "estimated": computed
    from prompts predicted out of fold, not tested; "stale": something changed since; "uncalibrated": nothing is known of its mean.
    """

    status: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class DriftEvidence:
    """A `DriftEvidence` says why an engine's maps no longer hold: a finding of calibration/drift.py, or a caller's own words.

    Attributes:
        kind: "embeddings", "quality" or "stated". message: one sentence.
        p_value: of the test behind it, None where there was none. prompts: how many were looked at.
        drifted: whether the test rejected "nothing changed" at its risk.
    """

    kind: str
    message: str
    p_value: float | None = None
    prompts: int = 0
    drifted: bool = True


class DriftFlag:
    """A `DriftFlag` holds evidence that traffic or quality changed, or None. Policies share it; `Engine.mark_stale` sets it."""

    __slots__ = ("evidence",)

    def __init__(self) -> None:
        self.evidence: DriftEvidence | None = None


class Calibrations:
    """A `Calibrations` holds a bundle's maps and whether each is still valid; one per engine and bundle.

    Attributes:
        drift: what its policies look at; they do not refer to the bundle itself.
    """

    def __init__(self, bundle: BundleSpec) -> None:
        self.bundle = bundle
        self.drift = DriftFlag()
        # what cannot change while this bundle serves; prices are compared at each policy
        self._changed = {made.candidates: self._changed_since(made) for made in bundle.calibrations}

    def changed(self, made: CalibrationMap, prices: PriceList | None = None) -> str | None:
        """Return what changed since the map was made, of all that it depends on; None for nothing.

        prices: those that run; None: the bundle's own.
        """
        known = self._changed[made.candidates]
        effective = self.bundle.prices if prices is None else prices
        if known is None and effective.key(self.bundle.candidates, made.candidates) != made.prices:
            return "prices or token ratios changed since"
        return known

    def _changed_since(self, made: CalibrationMap) -> str | None:
        bundle = self.bundle
        gone = [name for name in made.candidates if name not in bundle.names]
        if gone:
            return f"candidates removed since: {', '.join(gone)}"
        if bundle.heads_key(made.candidates) != made.heads:
            return "encoder or heads changed since" if bundle.escalation is None else _CHANGED_TIERS
        added = [name for name in self.meant(made) if name not in made.candidates]
        return f"candidates added since: {', '.join(added)}" if added else None

    def meant(self, made: CalibrationMap) -> tuple[str, ...]:
        """Return the candidates that the map would be made for today: all of them, those of its family, or the very names."""
        if made.whole:
            return self.bundle.names
        if made.family is not None:
            return tuple(c.name for c in self.bundle.candidates if c.family == made.family)
        return made.candidates

    def map_for(self, allowed: Sequence[str]) -> tuple[CalibrationMap, str | None]:
        """Return the map that a policy over these candidates reads, and the mismatch in words where the map was made for others.

        Raises:
            InvalidInputError: there is no map, or none that covers them.
        """
        maps, wanted = self.bundle.calibrations, set(allowed)
        if not maps:
            raise InvalidInputError(
                "rule: 'calibrated' needs a map, and this bundle has none; make one with `ipr calibrate`, or use 'minmax'"
            )
        # exactly these candidates; else the set that the map stands for today; else the smallest that covers them
        for made in maps:
            if set(made.candidates) == wanted:
                return made, None
        for made in maps:
            if set(self.meant(made)) == wanted:
                return made, None  # stale: `changed` says which candidates came or went
        covering = [made for made in maps if wanted < set(made.candidates)]
        if not covering:
            sets = "; ".join(", ".join(made.candidates) for made in maps)
            raise InvalidInputError(
                f"rule: no map covers the allowed candidates ({', '.join(allowed)}); there are maps for: {sets}; "
                "calibrate this set, or use 'minmax'"
            )
        made = min(covering, key=lambda candidate: len(candidate.candidates))
        return (
            made,
            f"{len(allowed)} of the map's {len(made.candidates)} candidates are allowed, and there is no map for them",
        )


@dataclass(frozen=True, kw_only=True)
class ResolvedPoint:
    """A `ResolvedPoint` is the operating point that a policy under rule `calibrated` runs.

    Attributes:
        tau: as given, or the estimated equivalent of the target.
        chosen_from: the candidates the point chooses from. left_out: name -> why, for the allowed others.
        certificate: the calibration status when the policy was compiled.
    """

    tau: float
    map: CalibrationMap
    point: CalibratedPoint
    chosen_from: tuple[str, ...]
    left_out: Mapping[str, str]
    certificate: CalibrationStatus


def resolve_point(
    calibrations: Calibrations,
    allowed: Sequence[str],
    *,
    tau: float | None,
    target: Target | None,
    worth: float | None,
    prices: PriceList | None,
    escalate_below: float = 0.0,
    other_cost: str | None = None,
) -> ResolvedPoint:
    """Return the point of the map that keeps the promise, and its certificate.

    Args:
        tau: in [0, 1], or None with `target`: one of `TARGETS` and its value.
        worth, prices: what overrides the map's own, None for nothing.
        escalate_below: the policy's; the map holds for the bundle's gap alone.
        other_cost: what is weighed in place of USD, in words; None for nothing: maps hold for USD alone.
    """
    bundle = calibrations.bundle
    made, mismatch = calibrations.map_for(allowed)
    knot, promise = _knot(made, tau, target)
    point = made.points[knot.point]
    reachable = [name for name in allowed if name in made.candidates]
    chosen_from = tuple(name for name in reachable if point.allowed is None or name in point.allowed)
    emptied = not chosen_from  # the point's single candidate is not allowed: the others take its place
    chosen_from = chosen_from or tuple(reachable)
    overrides = [mismatch] if mismatch else []
    if emptied:
        overrides.append(f"its point is {', '.join(point.allowed or ())} alone, not allowed here")
    if worth is not None and worth != point.worth:
        overrides.append(f"worth={worth:g} instead of the map's {point.worth:g}")
    overrides += _overrides(bundle, made, prices, escalate_below, other_cost)
    return ResolvedPoint(
        tau=_equivalent(made, tau, target, knot),
        map=made,
        point=point,
        chosen_from=chosen_from,
        left_out={
            name: "added after calibration"
            if name not in made.candidates
            else f"{promise} runs {', '.join(chosen_from)} alone"
            for name in allowed
            if name not in chosen_from
        },
        certificate=_certificate(made, knot, promise, overrides, calibrations.changed(made, prices)),
    )


def path_certificate(
    calibrations: Calibrations,
    allowed: Sequence[str],
    *,
    tau: float | None,
    target: Target | None,
    worth: float,
    prices: PriceList | None,
    escalate_below: float,
    other_cost: str | None = None,
) -> CalibrationStatus:
    """Return the calibration status of a point of tau's path: certified only where this very tau was tested, and nothing changed since.

    Args:
        allowed: the candidates of the path. tau: as given, None with `target`. worth: what runs.
        prices: what overrides the bundle's own, None for nothing. escalate_below: the policy's.
        other_cost: what is weighed in place of USD, in words; None for nothing.
    """
    wanted, bundle = set(allowed), calibrations.bundle
    # a map of exactly these candidates first, then one that would be made for them today
    maps = sorted((m for m in bundle.calibrations if m.tested), key=lambda m: set(m.candidates) != wanted)
    made = next((m for m in maps if wanted in (set(m.candidates), set(calibrations.meant(m)))), None)
    if made is None:
        return CalibrationStatus(ESTIMATED, f"{_READ}; no prompt tested it")
    overrides = _overrides(bundle, made, prices, escalate_below, other_cost)
    if target is not None:
        overrides.append(f"{target[0]}={target[1]:g} was not tested, taus were")
    if overrides:
        return CalibrationStatus(ESTIMATED, f"{_READ}; {'; '.join(overrides)}")
    changed = calibrations.changed(made, prices)
    if changed is not None:
        return CalibrationStatus("stale", f"{changed}; calibrate anew")
    assert tau is not None  # no target, hence given
    found = next((one for one in made.tested if abs(one.tau - tau) < SAME_TAU), None)
    if found is None:
        return CalibrationStatus(ESTIMATED, f"{_READ}; tau {tau:g} was not tested, {_around(made, tau)}")
    if not math.isclose(found.worth, worth, rel_tol=SAME_WORTH):
        stated = f"at tau {tau:g} worth {worth:g} runs and {found.worth:g} was tested; calibrate anew"
        return CalibrationStatus("stale", stated)
    if found.status == INSUFFICIENT:
        return CalibrationStatus(
            INSUFFICIENT,
            f"tau {tau:g} kept {found.quality:.4f} on {made.sample.prompts} prompts of {made.sample.source}, promised was "
            f"{found.promised:.4f}: not certified; rule 'calibrated' runs the nearest safer certified point",
        )
    return _certified(made, f"tau {tau:g}", "tau")


def _around(made: CalibrationMap, tau: float) -> str:
    """Return the tested taus next to this one, below and above, in words."""
    below = [one for one in made.tested if one.tau < tau][-1:]
    above = [one for one in made.tested if one.tau > tau][:1]
    return "around it were " + ", ".join(f"{one.tau:g} ({one.status.replace('_', ' ')})" for one in (*below, *above))


def _overrides(
    bundle: BundleSpec, made: CalibrationMap, prices: PriceList | None, escalate_below: float, other_cost: str | None
) -> list[str]:
    """Return what a policy asks for that the map was not made with, each in words."""
    differ = prices is not None and prices.key(bundle.candidates, made.candidates) != made.prices
    found = ["prices= differ from those it was calibrated at"] if differ else []
    gap = 0.0 if bundle.escalation is None else bundle.escalation.gap
    if other_cost is not None:
        found.append(other_cost)
    if escalate_below != gap:
        found.append(f"escalate_below={escalate_below:g} instead of the bundle's {gap:g}")
    return found


def _certified(made: CalibrationMap, promise: str, tested: str) -> CalibrationStatus:
    scope = f"any certified {tested}" if made.simultaneous else f"this {tested}"
    checked = "" if made.sample.disjoint == "checked" else "; that the sample was disjoint is stated, not checked"
    return CalibrationStatus(
        CALIBRATED, f"{promise}: holds on traffic like {made.sample.source}; risk {made.risk:g} for {scope}{checked}"
    )


def _certificate(
    made: CalibrationMap, knot: Knot, promise: str, overrides: list[str], changed: str | None
) -> CalibrationStatus:
    if overrides:
        return CalibrationStatus("uncalibrated", "; ".join(overrides))
    if changed is not None:
        return CalibrationStatus("stale", f"{changed}; calibrate anew")
    if knot.status == INSUFFICIENT:
        prompts = made.sample.prompts
        return CalibrationStatus(
            INSUFFICIENT,
            f"{promise} could not be certified on {prompts} prompts; the nearest safer certified point runs",
        )
    return _certified(made, promise, "knot")


def _knot(made: CalibrationMap, tau: float | None, target: Target | None) -> tuple[Knot, str]:
    """Return the knot that answers tau or its target, and the knot's promise in words."""
    if target is None:
        assert tau is not None
        knot = [k for k in made.knots if k.level <= tau][-1]
        return knot, f"tau {knot.level:g} ((1 - tau) * {made.best} + tau * {made.cheapest})"
    name, value = target
    if name == "quality_share":
        # shares fall from 1: the last one that is not below the share asked for, up to a rounding of decimals
        knot = [k for k in made.shares if k.level >= value - 1e-9][-1]
        return knot, f"{knot.level:.1%} of {made.best}'s mean quality"
    for knot in made.knots:
        point = made.points[knot.point]
        if (1000 * point.cost_usd if name == "max_usd_per_1k" else point.share_best) <= value:
            return knot, f"tau {knot.level:g} ((1 - tau) * {made.best} + tau * {made.cheapest})"
    reached = [made.points[knot.point] for knot in made.knots]
    least = min(1000 * point.cost_usd if name == "max_usd_per_1k" else point.share_best for point in reached)
    raise InvalidInputError(f"{name}: the least that a knot of the map has is {least:.4g}, got {value:g}; ask for more")


def _equivalent(made: CalibrationMap, tau: float | None, target: Target | None, knot: Knot) -> float:
    """Return tau as given; of a share of quality, the tau that gives up as much by the sample's means; of another target, its knot's."""
    if tau is not None:
        return tau
    if target is not None and target[0] == "quality_share":
        gap = made.best_quality - made.cheapest_quality
        return min(1.0, (1 - target[1]) * made.best_quality / gap) if gap > 0 else 0.0
    return knot.level
