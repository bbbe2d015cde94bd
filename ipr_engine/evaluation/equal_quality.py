"""This file takes what contenders cost at equal quality: where each keeps a share of the best single candidate's quality.

The setting that keeps the share is chosen on prompts that it is not read on, and chosen anew in every resample: an interval holds the
luck of that choice too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine.evaluation.contenders import Choices, Contender, Sweep, rows_alone
from ipr_engine.evaluation.evaluation_inputs import Split
from ipr_engine.measures.resampling import Resamples, difference, estimate, resamples_of
from ipr_engine.measures.routing import Axis, Curve, WeightedOutcomes, degenerate_axis, single_curve

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

SHARES = (0.99, 0.98, 0.95)
PATH = "router, path"
BY_WORTH = "router, worth"
HULL, COIN = "hull of singles", "random mix"
SHOWN = (BY_WORTH, "k-means, worth", "kNN, worth", "ridge, worth", HULL, COIN)
FEWEST_QUESTIONS = 100


@dataclass(frozen=True, eq=False)
class KeptShares:
    """A `KeptShares` is what a contender costs and keeps at each of SHARES: of the best single's, (1 + draws, shares) each."""

    cost: Array
    kept: Array


def equal_quality_figures(
    contenders: Sequence[Contender],
    models: Sequence[str],
    axis: Axis,
    train: Split | None,
    test: Split,
    halves: Mask,
    resamples: Resamples,
) -> dict[str, Any]:
    """Return the section as plain JSON; `reason` says why nothing can be said of it, None where something can.

    Test prompts that the router was fitted on (`Split.seen`) are left out.

    Args:
        train: whose prompts choose the settings; None: each half of the test split chooses for the other. halves: (test rows,).
        test: its `path_choices` are read as they are: they were chosen on the path's own rows.
        resamples: of the test split; other prompts than all of it are drawn anew.
    """
    shown = [c for c in contenders if c.name in SHOWN or c.kind not in ("router", "baseline", "bound")]
    rows = np.ones(test.outcomes.rows, np.bool_) if test.seen is None else ~test.seen
    keys = [key for key, counts in zip(test.groups, rows, strict=True) if counts]
    prompts, questions = len(keys), len(set(keys))
    facts = {"best": models[axis.best], "cheapest": models[axis.cheapest], "prompts": prompts}
    few = None if questions >= FEWEST_QUESTIONS else _too_few(questions, test.outcomes.rows - prompts)
    if prompts == 0:
        return {"reason": few, **facts, "router": None, "contenders": []}
    if not rows.all():
        resamples = resamples_of(keys, draws=resamples.draws, seed=resamples.seed)
    outcomes, halves = test.outcomes.subset(rows), halves[rows]
    singles = single_curve(outcomes, resamples)
    kinds = {c.name: c.kind for c in shown}
    kept = {
        c.name: _at_shares(replace(c, test=c.test.subset(rows)), axis, train, outcomes, halves, resamples)
        for c in shown
    }
    if set(SHARES) <= set(test.path_choices):
        sweep = Choices(np.stack([test.path_choices[share][rows] for share in SHARES]))
        kept[PATH], kinds[PATH] = _of_best(sweep.curve(outcomes, resamples), axis, singles), "router"
    router = BY_WORTH if BY_WORTH in kept else next(iter(kept))
    order = sorted(kept, key=lambda name: (name != router, kinds[name] != "router"))
    return {
        "reason": degenerate_axis(axis, singles, models) if few is None else few,
        **facts,
        "router": router,
        "contenders": [
            {"name": name, "kind": kinds[name], "shares": _lines(kept[name], kept[router], name == router)}
            for name in order
        ],
    }


def _too_few(questions: int, seen: int) -> str:
    fitted = f"{seen} test prompts are among those that the router was fitted on; " if seen else ""
    left = " that are left" if seen else ""
    return f"{fitted}{questions} different questions{left} are too few, at least {FEWEST_QUESTIONS} are needed"


def _at_shares(
    contender: Contender,
    axis: Axis,
    train: Split | None,
    test: WeightedOutcomes,
    halves: Mask,
    resamples: Resamples,
) -> KeptShares:
    """Run a contender where other prompts say that it keeps each share, in every resample of both."""
    singles = single_curve(test, resamples)
    if train is not None and contender.validation is not None:
        # Of the training prompts other resamples: they are drawn apart from those of the test split.
        seen = resamples_of(train.groups, draws=resamples.draws, seed=resamples.seed + 1)
        chosen = _Chosen.on(contender.validation, train.outcomes, axis, seen)
        return _of_best(chosen.read(contender.test.curve(test, resamples), singles, axis), axis, singles)
    sides = [rows_alone(test, side) for side in (halves, ~halves)]
    chosen_on = [_Chosen.on(contender.test, side, axis, resamples) for side in sides]
    # Sums of both halves: each read at the setting that the other one chose.
    read = [
        chosen.read(contender.test.curve(side, resamples), single_curve(side, resamples), axis)
        for chosen, side in zip(reversed(chosen_on), sides, strict=True)
    ]
    return _of_best(Curve(read[0].cost + read[1].cost, read[0].quality + read[1].quality), axis, singles)


@dataclass(frozen=True, eq=False)
class _Chosen:
    """A `_Chosen` holds the settings chosen for each share in each resample: point and reached (1 + draws, shares)."""

    point: npt.NDArray[np.int64]
    reached: Mask

    @classmethod
    def on(cls, sweep: Sweep, outcomes: WeightedOutcomes, axis: Axis, resamples: Resamples) -> _Chosen:
        """Choose the cheapest setting that keeps the share (`routing.choose_operating_point`), in every resample."""
        curve, best = sweep.curve(outcomes, resamples), single_curve(outcomes, resamples).quality[:, [axis.best]]
        points, reached = [], []
        for share in SHARES:
            keeps = curve.quality >= share * best - 1e-12
            points.append(np.where(keeps, curve.cost, np.inf).argmin(axis=1))
            reached.append(keeps.any(axis=1))
        return cls(np.stack(points, axis=1), np.stack(reached, axis=1))

    def read(self, curve: Curve, singles: Curve, axis: Axis) -> Curve:
        """Read the settings on a curve of other prompts: a point a share. Where none was reached the best single answers."""
        cost, quality = (
            np.where(self.reached, np.take_along_axis(values, self.point, axis=1), single[:, [axis.best]])
            for values, single in ((curve.cost, singles.cost), (curve.quality, singles.quality))
        )
        return Curve(cost, quality)


def _of_best(at: Curve, axis: Axis, singles: Curve) -> KeptShares:
    """Divide by the best single candidate's; NaN where that is 0."""
    parts = []
    for values, single in ((at.cost, singles.cost), (at.quality, singles.quality)):
        whole = np.broadcast_to(single[:, [axis.best]], values.shape)
        parts.append(np.divide(values, whole, out=np.full_like(values, np.nan), where=whole > 0))
    return KeptShares(*parts)


def _lines(own: KeptShares, router: KeptShares, same: bool) -> list[dict[str, Any]]:
    """Return a line a share. same: this is the router, which is not held against itself.

    A ratio is undefined in draws where this one costs nothing; the difference of the costs is not.
    """
    ratio = np.divide(router.cost, own.cost, out=np.full_like(own.cost, np.nan), where=own.cost > 0)
    return [
        {
            "share": share,
            "cost": estimate(own.cost[:, i]).to_json(),
            "kept": estimate(own.kept[:, i]).to_json(),
            "router_cost_over_this": None if same else estimate(ratio[:, i]).to_json(),
            "router_cost_minus_this": None if same else difference(router.cost[:, i], own.cost[:, i]).to_json(),
            "router_kept_minus_this": None if same else difference(router.kept[:, i], own.kept[:, i]).to_json(),
        }
        for i, share in enumerate(SHARES)
    ]


def lines_at(figures: Mapping[str, Any], share: float) -> dict[str, Mapping[str, Any]]:
    """Return each contender's line at a share, by its name, in order."""
    return {
        contender["name"]: next(line for line in contender["shares"] if line["share"] == share)
        for contender in figures["contenders"]
    }
