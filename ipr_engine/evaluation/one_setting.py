"""`one_setting_lines` holds routers of one setting against ours at their own cost; the area of a lone point is low."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine.evaluation.contenders import Contender
from ipr_engine.evaluation.markdown import number, per_1000, table
from ipr_engine.measures.resampling import difference, estimate
from ipr_engine.measures.routing import Curve

Array = npt.NDArray[np.float64]


def one_setting_lines(contenders: Sequence[Contender], curves: Mapping[str, Curve]) -> list[dict[str, Any]]:
    """Return cost and quality of every other router that has one setting, and how much more our curves have at that cost."""
    ours = [contender.name for contender in contenders if contender.kind == "router"]
    alone = [c.name for c in contenders if c.kind == "other router" and curves[c.name].points == 1]
    return [
        {
            "name": name,
            "cost_usd": estimate(curves[name].cost[:, 0]).to_json(),
            "quality": estimate(curves[name].quality[:, 0]).to_json(),
            "router_minus_this": {
                router: difference(
                    quality_at(curves[router], curves[name].cost[:, 0]), curves[name].quality[:, 0]
                ).to_json()
                for router in ours
            },
        }
        for name in alone
    ]


def quality_at(curve: Curve, cost: Array) -> Array:
    """Return the quality of a curve at a cost of each draw, (1 + draws,), straight between its settings: a mix of two of them.

    Above its dearest setting it is that setting's; below its cheapest one it is NaN.
    """
    result = np.full(len(cost), np.nan)
    for draw, (c, q, at) in enumerate(zip(curve.cost, curve.quality, cost, strict=True)):
        if at >= c.min():
            order = np.argsort(c, kind="stable")
            result[draw] = np.interp(at, c[order], q[order])
    return result


def render_one_setting(lines: Sequence[Mapping[str, Any]]) -> str:
    """Return the section of the report."""
    routers = list(lines[0]["router_minus_this"])
    rows = [
        [
            line["name"],
            number(per_1000(line["cost_usd"])),
            number(line["quality"]),
            *(number(line["router_minus_this"][router], signed=True) for router in routers),
        ]
        for line in lines
    ]
    return (
        "## Routers of one setting, at their own cost\n\nOne setting is a point, and its area counts as if nothing more could be bought "
        "beyond it. Here our curves are read where they cost the same: their quality minus the other router's, paired.\n\n"
        + table(["", "USD per 1,000", "quality", *(f"{router} minus this" for router in routers)], rows)
    )
