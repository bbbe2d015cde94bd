"""`stand` says how far a router of these outcomes is: beside k-means, the hull of singles and a random mix, and with fewer prompts.

Every prompt is predicted by a fit that has not seen its question. The estimator is taken as it is: where it was chosen on the same
prompts, its figures are a little too good.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine.measures.curve_figures import CurveFigures, whether_more_help
from ipr_engine.measures.resampling import Estimate, difference, drawn_questions, estimate, grouped_folds
from ipr_engine.measures.routing import SHARE, WeightedOutcomes, complete_rows, degenerate_axis, mixture_curve
from ipr_engine.measures.sweeps import random_mix
from ipr_engine.training.cross_fitted import (
    Predicted,
    heads_cross_fitted,
    kmeans_cross_fitted,
    means_cross_fitted,
)
from ipr_engine.training.fitted_heads import HeadRows
from ipr_engine.training.selection import FEWEST_ROWS, PromptCosts

Array = npt.NDArray[np.float64]

FOLDS, SEED = 5, 2000  # a seed apart from those of folds that choose the estimator
MOST_ROWS = 2000  # prompts: more make it minutes
PARTS = (4, 2)  # fits on a quarter and on half of the prompts
DRAWN = 2  # such parts, whose figures are averaged
FEWEST_PART = 40  # prompts of the smallest part
FEWEST_JUDGED = 20  # questions, of every candidate; and in the smallest part
WIDTHS = (0, 17, 21, 17, 0)  # of the table's columns, at least: the same from run to run but for wide intervals
ROUTER, CLUSTERS, HULL, COIN = "router", "k-means", "hull of singles", "random mix"


@dataclass(frozen=True)
class Line:
    """A `Line` holds the figures of one way to choose.

    Attributes:
        cost: USD at `SHARE` of the best single candidate's quality, as a share of what that candidate costs. area: Bounded-ARQGC.
        cost_behind, area_behind: the router's figure minus this one's, paired; None of the router itself.
    """

    name: str
    cost: Estimate
    area: Estimate
    cost_behind: Estimate | None = None
    area_behind: Estimate | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the line as plain JSON."""
        beside = {"router_minus_cost": self.cost_behind, "router_minus_area": self.area_behind}
        return {
            "name": self.name,
            "cost": self.cost.to_json(),
            "area": self.area.to_json(),
            **{name: made.to_json() for name, made in beside.items() if made is not None},
        }


@dataclass(frozen=True)
class Standing:
    """A `Standing` says how far a router is.

    Attributes:
        prompts: judged on. best: the best single candidate. says: sentences.
        lines: the router first; none where nothing can be said.
        learning: prompts fitted on -> (cost, area), fewest first. doubling: by how much both change where prompts double; both empty
            where there are too few prompts.
    """

    prompts: int
    best: str
    says: tuple[str, ...]
    lines: tuple[Line, ...] = ()
    learning: Mapping[int, tuple[Estimate, Estimate]] = field(default_factory=dict)
    doubling: tuple[Estimate, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the figures as plain JSON."""
        learning = [
            {"fitted_on": rows, "cost": cost.to_json(), "area": area.to_json()}
            for rows, (cost, area) in self.learning.items()
        ]
        doubling = dict(zip(("cost", "area"), (made.to_json() for made in self.doubling), strict=False))
        return {
            "prompts": self.prompts,
            "share": SHARE,
            "best": self.best,
            "lines": [line.to_json() for line in self.lines],
            "learning": learning,
            "doubling": doubling or None,
            "says": list(self.says),
        }

    def text(self) -> list[str]:
        """Return the table and the sentences, a line each."""
        if not self.lines:
            return list(self.says)
        cells = [
            ("", f"cost at {SHARE:.0%}", "router minus it", "area", "router minus it"),
            *(
                (
                    line.name,
                    line.cost.shown(),
                    _or_nothing(line.cost_behind),
                    line.area.shown(),
                    _or_nothing(line.area_behind),
                )
                for line in self.lines
            ),
        ]
        widths = [max(least, *map(len, column)) for least, column in zip(WIDTHS, zip(*cells, strict=True), strict=True)]
        table = [
            "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells
        ]
        return [*table, *self.says]


def stand(
    rows: HeadRows,
    costs: PromptCosts,
    names: Sequence[str],
    *,
    estimator: str,
    options: Mapping[str, Any] = MappingProxyType({}),
    progress: Callable[[str], None] = lambda message: None,
) -> Standing:
    """Judge an estimator cross-fitted on these rows; of more than `MOST_ROWS` on as many, whole questions drawn by chance."""
    if len(rows.x) > MOST_ROWS:
        drawn = drawn_questions(rows.keys, MOST_ROWS, seed=SEED)
        progress(f"judged on {int(drawn.sum())} of {len(drawn)} prompts, whole questions drawn by chance")
        rows, costs = rows.take(drawn), costs.take(drawn)
    full = complete_rows(rows.quality, costs.realised) & rows.at_home
    keys = [key for key, kept in zip(rows.keys, full, strict=True) if kept]
    if full.sum() < FEWEST_ROWS or len(set(keys)) < FOLDS:
        why = f"{int(full.sum())} prompts have a quality and a cost of every candidate, fewer than {FEWEST_ROWS}"
        return Standing(int(full.sum()), "", (f"how far the router is cannot be told: {why}",))
    outcomes = WeightedOutcomes.complete(rows.quality[full], costs.realised[full])
    judge = CurveFigures(outcomes, keys)
    best = names[judge.axis.best]
    degenerate = degenerate_axis(judge.axis, judge.singles, names)
    if degenerate is not None:
        return Standing(outcomes.rows, best, (f"how far the router is cannot be told: {degenerate}",))
    judged = [_questions(rows, m) for m in range(outcomes.models)]
    if min(judged) < FEWEST_JUDGED:
        least = names[int(np.argmin(judged))]
        why = f"{least} is judged on {min(judged)} questions, fewer than {FEWEST_JUDGED}"
        return Standing(outcomes.rows, best, (f"how far the router is cannot be told: {why}",))
    outer = grouped_folds(rows.keys, FOLDS, seed=SEED)

    def heads(parts: int = 1, part: int = 0) -> Predicted:
        return heads_cross_fitted(rows, costs, outer, estimator=estimator, options=options, parts=parts, part=part)

    mine = heads()
    router = judge.figures(judge.swept(mine.quality[full], mine.cost[full]))
    clusters = kmeans_cross_fitted(rows.embedding[full], outcomes, keys, outer[full])
    means = means_cross_fitted(outcomes, outer[full])
    others = {
        CLUSTERS: judge.swept(clusters.quality, clusters.cost),
        HULL: judge.swept(means.quality, means.cost),
        COIN: mixture_curve(random_mix(judge.axis, outcomes.models), judge.singles),
    }
    lines = [Line(f"{ROUTER} ({estimator})", *map(estimate, router))]
    for name, curve in others.items():
        found = judge.figures(curve)
        behind = [difference(a, b) for a, b in zip(router, found, strict=True)]
        lines.append(Line(name, estimate(found[0]), estimate(found[1]), *behind))
    learned = {int(mine.fitted_on): router}
    share = (1 - 1 / FOLDS) / PARTS[0]
    if len(rows.x) * share >= FEWEST_PART and min(judged) * share >= FEWEST_JUDGED:
        for parts in PARTS:
            made = [heads(parts, part) for part in range(DRAWN)]
            figures = [judge.figures(judge.swept(one.quality[full], one.cost[full])) for one in made]
            learned[int(np.mean([one.fitted_on for one in made]))] = np.mean(figures, axis=0)
    learned = dict(sorted(learned.items()))
    # The least squares line through three points, a doubling apart.
    slopes = (router - next(iter(learned.values()))) / (len(learned) - 1) if len(learned) > 1 else ()
    doubling = tuple(estimate(slope) for slope in slopes)
    told = (_beside_hull(lines, best) + _beside_clusters(lines), _more_prompts(doubling, list(learned)))
    learning = {n: (estimate(figures[0]), estimate(figures[1])) for n, figures in learned.items()}
    return Standing(outcomes.rows, best, told, tuple(lines), learning, doubling)


def _questions(rows: HeadRows, column: int) -> int:
    """Return on how many questions a candidate has a quality and output tokens."""
    known = np.isfinite(rows.quality[:, column]) & np.isfinite(rows.tokens[:, column])
    return len({key for key, is_known in zip(rows.keys, known, strict=True) if is_known})


def _beside_hull(lines: Sequence[Line], best: str) -> str:
    """Say whether the router is told apart from the hull of singles."""
    router, hull = lines[0], next(line for line in lines if line.name == HULL)
    assert hull.cost_behind is not None
    assert hull.area_behind is not None
    costs = (
        f"at {SHARE:.0%} of {best}'s quality the router costs {router.cost.shown(percent=True)} of always asking {best}, the hull of "
        f"singles {hull.cost.shown(percent=True)}"
    )
    cost, area = hull.cost_behind, hull.area_behind
    if cost.high < 0:
        return f"{costs}: told apart, routing by the prompt saves"
    if cost.low > 0:
        return f"{costs}: told apart, routing by the prompt costs more than a mix of single candidates does"
    if area.low > 0:
        return f"{costs}: not told apart in this cost; in area the router is ahead of the hull"
    if area.high < 0:
        return f"{costs}: not told apart in this cost; in area the router is behind the hull"
    return f"{costs}: not told apart, neither in this cost nor in area; a mix of single candidates may do as well"


def _beside_clusters(lines: Sequence[Line]) -> str:
    """Say where k-means is ahead of the router, told apart or not; "" where it is ahead in neither figure."""
    clusters = next(line for line in lines if line.name == CLUSTERS)
    assert clusters.cost_behind is not None
    assert clusters.area_behind is not None
    cost, area = clusters.cost_behind, clusters.area_behind
    ahead = [name for name, is_ahead in (("cost", cost.value > 0), ("area", area.value < 0)) if is_ahead]
    if not ahead:
        return ""
    apart = [name for name, is_apart in (("cost", cost.low > 0), ("area", area.high < 0)) if is_apart]
    told = f"told apart{'' if apart == ahead else f' in {apart[0]} alone'}" if apart else "not told apart"
    return f"; {CLUSTERS} costs {clusters.cost.shown(percent=True)} there, and is ahead of the router in {' and in '.join(ahead)}: {told}"


def _more_prompts(doubling: Sequence[Estimate], fitted_on: Sequence[int]) -> str:
    """Say whether more prompts would help."""
    if not doubling:
        return (
            "whether more prompts would help cannot be told: a quarter of those that a fit sees are fewer than "
            f"{FEWEST_PART}, or fewer than {FEWEST_JUDGED} of some candidate"
        )
    cost, area = doubling
    grown = f"from {fitted_on[0]} to {fitted_on[-1]} prompts fitted on, a doubling changed"
    told = f"{grown} the cost by {cost.shown('+')}, the area by {area.shown('+')}"
    return f"{told}: {whether_more_help('prompts', cost, area)}"


def _or_nothing(difference: Estimate | None) -> str:
    return "" if difference is None else difference.shown("+")
