"""`make_map` makes a calibration map of known numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ipr_engine.bundle import Bundle, CalibratedPoint, CalibrationMap, CalibrationSample, Knot
from ipr_engine.bundle.calibration import CERTAIN, CERTIFIED, INSUFFICIENT


def make_map(bundle: Bundle, names: Sequence[str] | None = None) -> CalibrationMap:
    """Map these candidates, else all: point 1 costs 2, point 2 costs 1 USD per 1,000; nothing is certified at tau 0.3."""
    names = tuple(names or bundle.names)

    def point(
        worth: float, allowed: tuple[str, ...] | None, quality: float, usd: float, share: float
    ) -> CalibratedPoint:
        return CalibratedPoint(
            alpha_hi=0.0, alpha_lo=1.0, offset=0.0, worth=worth, allowed=allowed, quality=quality,
            quality_lower=quality - 0.02, cost_usd=usd / 1000, share_best=share,
        )  # fmt: skip

    return CalibrationMap(
        family=None,
        whole=names == bundle.names,
        candidates=names,
        heads=bundle.heads_key(names),
        prices=bundle.prices.key(bundle.candidates, names),
        best=names[0],
        cheapest=names[-1],
        risk=0.1,
        simultaneous=False,
        test="target",
        best_quality=0.8,
        cheapest_quality=0.4,
        sample=CalibrationSample(
            source="made", prompts=500, prompt_ids_sha256="0" * 64, path_source="made, split train", path_prompts=400,
            disjoint="checked", support=tuple(np.linspace(0, 1, 21).tolist()),
        ),
        points=(
            point(0.5, (names[0],), 0.8, 4.0, 1.0),
            point(0.1, None, 0.79, 2.0, 0.5),
            point(0.01, None, 0.7, 1.0, 0.1),
            point(0.0, (names[-1],), 0.4, 0.25, 0.0),
        ),
        knots=(
            Knot(level=0.0, point=0, status=CERTAIN),
            Knot(level=0.1, point=1, status=CERTIFIED),
            Knot(level=0.2, point=2, status=CERTIFIED),
            Knot(level=0.3, point=2, status=INSUFFICIENT),
            Knot(level=1.0, point=3, status=CERTAIN),
        ),
        shares=(
            Knot(level=1.0, point=0, status=CERTAIN),
            Knot(level=0.98, point=1, status=CERTIFIED),
            Knot(level=0.95, point=2, status=CERTIFIED),
        ),
    )  # fmt: skip
