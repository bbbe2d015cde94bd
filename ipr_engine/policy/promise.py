"""Rule `path` turns tau, or a target in its place, into a worth, and states what that worth promises on average (docs/tau.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ipr_engine.errors import InvalidInputError
from ipr_engine.policy.rules import Target
from ipr_engine.policy.tau_path import TauPath

TAUS = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0)
FEWEST_MIXES = 6  # distinct mixes of candidates over TAUS below which tau is said not to trade


class PathPoint(NamedTuple):
    """A `PathPoint` is what rule `path` runs.

    tau: as given, or the equivalent of the target. level: mean quality promised. worth: USD per unit of quality.
    takes_best: the highest predicted quality answers, at any cost; else the least cost - worth * quality.
    """

    tau: float
    level: float
    worth: float
    takes_best: bool = False


@dataclass(frozen=True, kw_only=True)
class Promise:
    """A `Promise` is what a policy under rule `path` promises, on average over prompts like the fitting ones.

    A single prompt is promised nothing.

    Attributes:
        best, cheapest: the single candidates tau speaks of. best_quality, cheapest_quality: their mean qualities.
        best_usd: mean predicted cost of the best one alone, in USD a prompt.
        least_quality: what tau counts down to: cheapest_quality, or, where the cheapest is also the best, what taking the cheapest on
            each prompt keeps, if that is worse.
        quality: mean quality promised: (1 - tau) * best_quality + tau * least_quality; at tau 0 no more than the highest predicted
            quality on each prompt kept, and where the cheapest on each runs (tau 1), no more than that kept.
        cost_usd: mean predicted cost, in USD a prompt. worth: USD per unit of quality that runs.
        note: why tau cannot trade here, or what limits the promise; None for nothing.
        cost_weights: the weights of a cost that is not USD alone, in words: the cheapest has the least of that; None for USD.
    """

    best: str
    cheapest: str
    best_quality: float
    cheapest_quality: float
    least_quality: float
    best_usd: float
    quality: float
    cost_usd: float
    worth: float
    note: str | None = None
    cost_weights: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON types."""
        return dict(vars(self))  # a decision's `to_dict` holds it: asdict takes 30 times as long

    @property
    def summary(self) -> str:
        """Return the quality and the cost that are promised, in one phrase."""
        return f"promises {self.quality:.3f} for {1000 * self.cost_usd:.4g} USD per 1,000 prompts"

    def __str__(self) -> str:
        text = (
            f"promised mean quality {self.quality:.3f} (best single {self.best} {self.best_quality:.3f}, cheapest "
            f"{self.cheapest} {self.cheapest_quality:.3f}), expected {1000 * self.cost_usd:.4g} USD per 1,000 prompts "
            f"({self.best} alone {1000 * self.best_usd:.4g})"
        )
        if self.cost_weights is not None:
            text += f"; cost is weighed ({self.cost_weights}, USD per unit): the cheapest has the least of that, money is told in USD"
        return text if self.note is None else f"{text}; {self.note}"


def trades(path: TauPath) -> bool:
    """Return whether there is a quality to lose: else every tau above 0 takes the cheapest on each prompt."""
    return path.told_apart or path.best_quality - path.least_quality >= max(path.choice_errors[0], 1e-12)


def point_at(path: TauPath, tau: float) -> PathPoint:
    """Return the point that runs at tau, in [0, 1]. The worth never rises with tau."""
    level = path.promise(tau)
    if tau == 0.0:
        return PathPoint(tau, min(level, path.dearest_choice_quality), 0.0, takes_best=True)
    return _point(path, tau, level, 0.0 if tau == 1.0 else _worth_at(path, level))


def _point(path: TauPath, tau: float, level: float, worth: float) -> PathPoint:
    """Return the point; at worth 0 it promises no more than the cheapest on each prompt came to."""
    return PathPoint(tau, level if worth else min(level, path.cheapest_choice_quality), worth)


def point_for(path: TauPath, target: Target) -> PathPoint:
    """Return the point that runs for a target in place of tau: `quality_share`, `max_usd_per_1k` or `max_share_strongest`.

    Raises:
        InvalidInputError: even the cheapest choice on every prompt is over the limit asked for.
    """
    name, value = target
    if name == "quality_share":
        floor = min(path.least_quality, path.cheapest_choice_quality)  # nobody need do worse than at tau 1
        level = max(value * path.best_quality, floor)
        return _point(path, _tau_of(path, level), level, _worth_at(path, level) if level > floor else 0.0)
    if name == "max_usd_per_1k":
        least, limit, reached = path.cheapest_choice_usd, value / 1000, path.cost_usd
        held = np.flatnonzero(reached <= limit)  # of a weighted cost USD may fall as the worth rises
        within = int(held[-1]) + 1 if len(held) else 0
        if len(held):
            least = min(least, float(reached[held].min()))
    else:
        least, limit, reached = float(path.cheapest_shares[path.best]), value, path.shares[:, path.best]
        over = np.flatnonzero(reached > limit)
        within = int(over[0]) if len(over) else len(reached)  # at it and at every smaller worth the limit holds
    if least > limit:
        shown = 1000 * least if name == "max_usd_per_1k" else least
        raise InvalidInputError(
            f"{name}: the least possible with these candidates is {shown:.6g}, got {value:g}; ask for more"
        )
    # where tau trades nothing the cheapest on each prompt runs, unless that costs more than the limit
    runs = trades(path) or (name == "max_usd_per_1k" and path.cheapest_choice_usd > limit)
    worth = float(path.worth[within - 1]) if within and runs else 0.0
    level = float(np.interp(np.log(worth), path.log_worth, path.level)) if worth else path.least_quality
    return _point(path, _tau_of(path, level), level, worth)


def make_promise(
    path: TauPath,
    names: Sequence[str],
    point: PathPoint,
    remarks: Sequence[str] = (),
    cost_weights: str | None = None,
) -> Promise:
    """Return the promise of a point. names: the candidates of the path, in its order. remarks: of the rows behind it."""
    notes = [*_notes(path, names, point), *remarks]
    return Promise(
        best=names[path.best],
        cheapest=names[path.cheapest],
        best_quality=path.best_quality,
        cheapest_quality=path.cheapest_quality,
        least_quality=path.least_quality,
        best_usd=float(path.single_usd[path.best]),
        quality=point.level,
        cost_usd=usd_at(path, point),
        worth=point.worth,
        note="; ".join(notes) or None,
        cost_weights=cost_weights,
    )


def usd_at(path: TauPath, point: PathPoint) -> float:
    """Return the mean predicted cost of a point, in USD a prompt."""
    if point.takes_best:
        return path.dearest_choice_usd
    if not point.worth:
        return path.cheapest_choice_usd
    return float(np.interp(np.log(point.worth), np.log(path.worth), path.cost_usd))


def _worth_at(path: TauPath, level: float) -> float:
    """Return the worth that keeps this mean quality, within the path's own; 0 where tau has nothing to trade."""
    if not trades(path) or not len(path.worth):
        return 0.0
    return float(np.clip(path.worth_at(level), path.worth[0], path.worth[-1]))


def _tau_of(path: TauPath, level: float) -> float:
    """Return the tau that promises this mean quality, clipped to [0, 1]; 1 where tau has nothing to trade."""
    if not trades(path):
        return 1.0
    return float(np.clip((path.best_quality - level) / (path.best_quality - path.least_quality), 0.0, 1.0))


def _notes(path: TauPath, names: Sequence[str], point: PathPoint) -> list[str]:
    best, cheapest = names[path.best], names[path.cheapest]
    found: list[str] = []
    if point.takes_best and path.single_usd[path.best] > 0:
        times = path.dearest_choice_usd / path.single_usd[path.best]
        found.append(f"the highest predicted quality on each prompt is expected to cost {times:.2f} times {best} alone")
    if point.takes_best and path.dearest_choice_quality < path.best_quality:
        found.append(f"it kept {path.dearest_choice_quality:.3f}, less than {best} alone")
    if len(names) == 1:
        return [*found, "it is the only candidate"]
    if not trades(path):
        runs = "every tau above 0 takes the cheapest on each prompt"
        if best == cheapest:
            return [*found, f"the cheapest is also the best ({best}): {runs}"]
        return [
            *found,
            f"the cheapest is also the best: {cheapest} is not told apart from {best} (mean quality lower by "
            f"{path.best_quality - path.cheapest_quality:.3f}, standard error {path.standard_error:.3f}); {runs}",
        ]
    kept = f"taking the cheapest on each prompt keeps {path.cheapest_choice_quality:.3f}, less than {cheapest} alone"
    if not path.told_apart:
        found.append(f"the cheapest is also the best ({best}), but {kept}: tau counts down to that")
    elif not path.cheapest_keeps and not point.worth and not point.takes_best:
        found.append(kept)
    if not len(path.worth):
        return [*found, "the cheapest has the highest predicted quality on every prompt: every tau takes it"]
    if point.level > path.level[-1] and not point.takes_best:
        found.append(
            f"this quality is never reached, the heads are weak: {path.level[-1]:.3f} at most, which tau "
            f"{_tau_of(path, float(path.level[-1])):.2f} promises; the greatest worth runs"
        )
    # few mixes: tau jumps between them, so most taus promise what another one does
    mixes = _mixes(path)
    if mixes < FEWEST_MIXES:
        found.append(
            f"tau has {mixes} distinct mixes of candidates over {', '.join(f'{tau:g}' for tau in TAUS)}: the heads order "
            f"{', '.join(names)} nearly the same on every prompt, or are weak"
        )
    return found


def _mixes(path: TauPath) -> int:
    """Count the different mixes of candidates that TAUS give on the path's own prompts."""
    points = [point_at(path, tau) for tau in TAUS]
    ends = [point.worth for point in points if not point.takes_best]
    at = np.searchsorted(path.worth, ends, side="right")
    shares = np.vstack([path.cheapest_shares, path.shares])[at]
    last = path.shares[-1]  # beyond the last move everyone has the highest predicted quality
    return len(set(map(tuple, np.round(np.vstack([last, shares]), 6).tolist())))
