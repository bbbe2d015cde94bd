"""The points of tau's path, tested on a calibration sample: does what runs at a tau keep what that tau promises? (docs/calibration.md)

For a prompt, x = routed - (1 - tau) * best - tau * cheapest; the promise is kept iff E[x] >= 0, and the test tries to reject
E[x] <= 0. One point is tested for one promise, at the whole risk (or its part, where all taus are to hold together); no point is
picked by what the sample shows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ipr_engine.bundle.calibration import CERTIFIED, INSUFFICIENT, TestedTau
from ipr_engine.calibration import bounds
from ipr_engine.calibration.observed import Observed
from ipr_engine.policy.paths import Paths
from ipr_engine.policy.policy import Policy

Array = npt.NDArray[np.float64]


def certify_path(
    rows: Observed,
    other: Observed,
    taus: Sequence[float],
    order: npt.NDArray[np.int64],
    *,
    risk: float,
    simultaneous: bool,
    test: str,
) -> tuple[TestedTau, ...]:
    """Test what rule `path` runs at these taus; nothing where the bundle has no path of the candidates.

    Args:
        rows: the calibration sample. other: other prompts of the same kind, for a guess of second moments alone.
        taus: in [0, 1], rising. order: (rows,) in which the sample's prompts are tested.
        risk, simultaneous, test: see `fit.calibrate`.
    """
    engine = rows.engine
    if Paths(engine.bundle).lacking(rows.names) is not None:
        return ()
    policies = [engine.policy(tau=tau, rule="path", allowed=list(rows.names)) for tau in taus]
    tau = np.asarray(taus, np.float64)
    routed, promised, costs = _at(rows, policies, tau)
    seen, owed, _ = _at(other, policies, tau)
    kept = bounds.TESTS[test](
        (routed - promised)[order],
        floor=np.ones(len(tau)),
        top=np.ones(len(tau)),
        second_moment=np.square(seen - owed).mean(axis=0),
        risk=risk / len(tau) if simultaneous else risk,
    )
    lower = bounds.lower_bounds(routed[order], bounds.TESTS[test], risk=risk)
    return tuple(
        TestedTau(
            tau=float(tau[i]),
            worth=float(policy.worth),
            status=CERTIFIED if kept[i] else INSUFFICIENT,
            promised=float(promised[:, i].mean()),
            quality=float(routed[:, i].mean()),
            quality_lower=float(lower[i]),
            cost_usd=float(costs[i]),
        )
        for i, policy in enumerate(policies)
    )


def _at(rows: Observed, policies: Sequence[Policy], tau: Array) -> tuple[Array, Array, Array]:
    """What the policies route to and what they promise, (rows, taus) each, and mean expected USD (taus,)."""
    promise = policies[0].promise
    assert promise is not None  # of rule `path`
    decided = [rows.decided(policy=policy) for policy in policies]
    best, cheapest = (rows.quality[:, rows.names.index(name)] for name in (promise.best, promise.cheapest))
    every = np.arange(len(rows))
    routed = np.stack([rows.quality[every, chosen] for chosen, _ in decided], axis=1)
    promised = best[:, None] * (1 - tau) + cheapest[:, None] * tau
    return routed, promised, np.array([paid.mean() for _, paid in decided])
