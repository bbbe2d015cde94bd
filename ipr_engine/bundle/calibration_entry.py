"""This file reads the calibration maps of bundle.json, and holds them against what a map promises to be."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ipr_engine.bundle.calibration import (
    CERTIFIED,
    COST_SLACK,
    INSUFFICIENT,
    KNOT_STATUS,
    SUPPORT_QUANTILES,
    TESTS,
    CalibratedPoint,
    CalibrationMap,
    CalibrationSample,
    Knot,
    TestedTau,
)
from ipr_engine.bundle.fields import Field, require_distinct

_MAP = tuple(name for name in CalibrationMap.__dataclass_fields__ if name != "tested")
_SAMPLE = tuple(CalibrationSample.__dataclass_fields__)
_POINT = tuple(CalibratedPoint.__dataclass_fields__)
_KNOT = tuple(Knot.__dataclass_fields__)
_TESTED = tuple(TestedTau.__dataclass_fields__)


def parse_maps(field: Field, *, tested: bool) -> tuple[CalibrationMap, ...]:
    """Return the maps of this JSON list, one a candidate set. tested: as in `parse_map`."""
    maps = tuple(parse_map(item, tested=tested) for item in field.list())
    require_distinct([", ".join(sorted(made.candidates)) for made in maps], field.list())
    return maps


def parse_map(field: Field, *, tested: bool = True) -> CalibrationMap:
    """Return the map of this JSON object; BundleError where it is none or is not monotone.

    Names need not be the bundle's: a map may be stale.

    tested: whether it may hold tested taus.
    """
    # Absent where the bundle had no path: then no key is written, and old maps keep their bytes.
    has_tested = tested and "tested" in field.mapping()
    keys = field.object((*_MAP, "tested") if has_tested else _MAP)
    # A map is of two candidates or more: one alone leaves nothing to choose.
    candidates = keys["candidates"].names(at_least=2)
    points = tuple(_point(item, candidates) for item in keys["points"].list(at_least=2))
    # The path goes from the safest point to the cheapest: what a unit of quality is worth falls along it.
    _require_falling([p.worth for p in points], keys["points"], "worth that never rises")
    knots = tuple(_knot(item, len(points)) for item in keys["knots"].list(at_least=2))
    shares = tuple(_knot(item, len(points)) for item in keys["shares"].list(at_least=1))
    _require_steps(knots, points, keys["knots"], [knot.level for knot in knots], 0.0)
    # Shares fall from 1 where taus rise from 0: with the sign turned both are held to the same rule.
    _require_steps(shares, points, keys["shares"], [-knot.level for knot in shares], -1.0)
    # Every tau in [0, 1] has a knot.
    if knots[-1].level != 1.0:
        keys["knots"].fail("the last knot at tau 1")
    return CalibrationMap(
        family=None if keys["family"].value is None else keys["family"].text(),
        whole=keys["whole"].boolean(),
        candidates=candidates,
        heads=keys["heads"].sha256(),
        prices=keys["prices"].sha256(),
        best=keys["best"].one_of(candidates),
        cheapest=keys["cheapest"].one_of(candidates),
        risk=keys["risk"].number(above=0, at_most=0.5),
        simultaneous=keys["simultaneous"].boolean(),
        test=keys["test"].one_of(TESTS),
        best_quality=keys["best_quality"].number(at_least=0, at_most=1),
        cheapest_quality=keys["cheapest_quality"].number(at_least=0, at_most=1),
        sample=_sample(keys["sample"]),
        points=points,
        knots=knots,
        shares=shares,
        tested=_tested(keys["tested"]) if has_tested else (),
    )


def _point(field: Field, candidates: Sequence[str]) -> CalibratedPoint:
    """Return one operating point; `allowed` names candidates of the map."""
    keys = field.object(_POINT)
    return CalibratedPoint(
        alpha_hi=keys["alpha_hi"].number(at_least=-1, at_most=1),
        alpha_lo=keys["alpha_lo"].number(at_least=-1, at_most=1),
        offset=keys["offset"].number(at_least=-1, at_most=1),
        worth=keys["worth"].number(at_least=0, at_most=1e12),
        allowed=None if keys["allowed"].value is None else keys["allowed"].names(at_least=1, known=candidates),
        quality=keys["quality"].number(at_least=0, at_most=1),
        quality_lower=keys["quality_lower"].number(at_least=0, at_most=1),
        cost_usd=keys["cost_usd"].number(at_least=0),
        share_best=keys["share_best"].number(at_least=0, at_most=1),
    )


def _knot(field: Field, points: int) -> Knot:
    """Return one knot, whose point is one of so many."""
    keys = field.object(_KNOT)
    return Knot(
        level=keys["level"].number(at_least=0, at_most=1),
        point=keys["point"].integer(at_least=0, at_most=points - 1),
        status=keys["status"].one_of(KNOT_STATUS),
    )


def _sample(field: Field) -> CalibrationSample:
    """Return what the map was certified on."""
    keys = field.object(_SAMPLE)
    support = None
    if keys["support"].value is not None:
        support = tuple(item.number(at_least=0, at_most=1) for item in keys["support"].list())
        if len(support) != SUPPORT_QUANTILES or (np.diff(support) < 0).any():
            keys["support"].fail(f"{SUPPORT_QUANTILES} quantiles that never fall")
    return CalibrationSample(
        source=keys["source"].text(),
        prompts=keys["prompts"].integer(at_least=1),
        prompt_ids_sha256=keys["prompt_ids_sha256"].sha256(),
        path_source=keys["path_source"].text(),
        path_prompts=keys["path_prompts"].integer(at_least=1),
        disjoint=keys["disjoint"].one_of(("checked", "stated")),
        support=support,
    )


def _require_falling(values: Sequence[float], field: Field, expected: str, slack: float = 0.0) -> None:
    """Raise BundleFormatError where a value rises above the one before it, by more than a relative slack."""
    for before, after in zip(values[:-1], values[1:], strict=True):
        if after > before * (1 + slack):
            field.fail(f"{expected} (a map is monotone; {after:g} comes after {before:g})")


def _require_steps(
    knots: Sequence[Knot], points: Sequence[CalibratedPoint], field: Field, order: Sequence[float], first: float
) -> None:
    """Raise BundleFormatError where knots are no step function that is safer and dearer at its start."""
    if order[0] != first:
        field.fail(f"the first knot at {abs(first):g}")
    if (np.diff(order) <= 0).any() or (np.diff([knot.point for knot in knots]) < 0).any():
        field.fail("knots in order, whose points never go back (a map is monotone)")
    if knots[0].status == INSUFFICIENT:
        field.fail("a first knot that is certain or certified: the single best candidate is always reachable")
    _require_falling([points[knot.point].cost_usd for knot in knots], field, "cost_usd that never rises", COST_SLACK)


def _tested(field: Field) -> tuple[TestedTau, ...]:
    """Return the tested taus of this JSON list; BundleError where it is none, or where taus do not rise or worths rise."""
    found = []
    for item in field.list(at_least=1):
        keys = item.object(_TESTED)
        found.append(
            TestedTau(
                tau=keys["tau"].number(at_least=0, at_most=1),
                worth=keys["worth"].number(at_least=0, at_most=1e12),
                status=keys["status"].one_of((CERTIFIED, INSUFFICIENT)),
                promised=keys["promised"].number(at_least=0, at_most=1),
                quality=keys["quality"].number(at_least=0, at_most=1),
                quality_lower=keys["quality_lower"].number(at_least=0, at_most=1),
                cost_usd=keys["cost_usd"].number(at_least=0),
            )
        )
    if (np.diff([one.tau for one in found]) <= 0).any():
        field.fail("taus that rise")
    # At tau 0 no worth runs: the highest predicted quality is chosen whatever it costs.
    if (np.diff([one.worth for one in found if one.tau > 0]) > 0).any():
        field.fail("worth that never rises with tau")
    return tuple(found)
