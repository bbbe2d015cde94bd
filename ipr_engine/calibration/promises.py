"""This file tests promises along a path in order, the safest point first (fixed-sequence testing).

A promise (b, c) is: mean quality of what is routed >= b * mean quality of `best` + c * mean quality of `cheapest`. tau promises
(1 - tau, tau), a share s promises (s, 0). For a point and a prompt, x = routed - b*best - c*cheapest lies in [-(b + c), 1], and the
promise holds iff E[x] >= 0: -x is the Z of the design. A promise's points are tested one after the other, each at the whole risk, up to
the first that cannot be certified; those before it are all certified, and the chance that any of them breaks the promise is at
most risk (Bauer 1991; Learn then Test, Angelopoulos et al. 2021). The last one, the cheapest, is taken.

What needs no test because it is true of any data: the single best keeps every share, and tau 0; the single cheapest keeps tau 1.
For 0 < tau < 1 the single best keeps the promise iff it is at least as good as the cheapest, the same question for every tau; it
is the first test of each, so a promise that is certified certifies this too, and with it that a stricter promise implies a looser one.

The points of tau's path are tested as well (`certify_path`): one point for one promise, at the whole risk (or its part, where all
taus are to hold together); no point is picked by what the sample shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ipr_engine.bundle import Knot
from ipr_engine.bundle.calibration import CERTAIN, CERTIFIED, INSUFFICIENT, TestedTau
from ipr_engine.calibration.bounds import TESTS, Test, lower_bounds
from ipr_engine.policy.policy import Policy

Array = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.int64]

NONE = -1  # no point is certified
BLOCK = 256  # rows whose excess over every promise is held at once

TAUS = (
    *(n / 100 for n in range(11)),
    *(n / 100 for n in range(12, 31, 2)),
    *(n / 100 for n in range(35, 101, 5)),
)  # each knot has the risk to itself, so that a fine grid costs nothing
SHARES = (1.0, 0.995, 0.99, 0.98, 0.97, 0.96, 0.95, 0.925, 0.9, 0.875, 0.85, 0.8, 0.7, 0.6)


@dataclass(frozen=True, eq=False)
class Promises:
    """`Promises` are those that are tested: weights of `best` and of `cheapest`, (promises,) each."""

    best: Array
    cheapest: Array

    @classmethod
    def of(cls, taus: Sequence[float], shares: Sequence[float]) -> Promises:
        """Make promises of taus, then of shares."""
        tau, share = np.asarray(taus, np.float64), np.asarray(shares, np.float64)
        return cls(np.concatenate([1 - tau, share]), np.concatenate([tau, np.zeros_like(share)]))

    def __len__(self) -> int:
        return len(self.best)

    def excess(self, routed: Array, best: Array, cheapest: Array) -> Array:
        """Return x of routed (..., points), best (...) and cheapest (...): (..., promises, points)."""
        owed = best[..., None] * self.best + cheapest[..., None] * self.cheapest
        return routed[..., None, :] - owed[..., None]

    def second_moment(self, routed: Array, best: Array, cheapest: Array) -> Array:
        """Return the mean of the squared excess over rows: routed (rows, points), best, cheapest (rows,) -> (promises, points)."""
        total = np.zeros((len(self), routed.shape[1]))
        for begin in range(0, len(routed), BLOCK):
            some = slice(begin, begin + BLOCK)
            total += (self.excess(routed[some], best[some], cheapest[some]) ** 2).sum(axis=0)
        return total / len(routed)

    def certain(self, points: int) -> Flags:
        """Mark the points that keep a promise on any data: (promises, points)."""
        result = np.zeros((len(self), points), np.bool_)
        result[:, 0] = (self.best <= 1) & (self.cheapest == 0)
        result[:, -1] = (self.cheapest == 1) & (self.best == 0)
        return result

    def floors(self, points: int) -> Array:
        """Return how far below 0 an excess can be: (promises, points)."""
        result = np.repeat((self.best + self.cheapest)[:, None], points, axis=1)
        result[:, 0] = self.cheapest  # routed = best: (1 - b)*best - c*cheapest
        result[:, -1] = self.best
        return np.maximum(result, 1e-9)


@dataclass(frozen=True, eq=False)
class ExcessDraws:
    """`ExcessDraws` yields the x of every (sample, promise, point) of one or many calibration samples, a draw at a time.

    Attributes:
        routed: (rows, points), best, cheapest: (rows,): realised quality of the rows that can be drawn.
        order: (n, samples) which row each draw is.
    """

    promises: Promises
    routed: Array
    best: Array
    cheapest: Array
    order: Indices

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, t: int, /) -> Array:
        rows = self.order[t]
        return self.promises.excess(self.routed[rows], self.best[rows], self.cheapest[rows])


def certified_points(draws: ExcessDraws, test: Test, *, second_moment: Array, risk: float) -> Indices:
    """Return the last certified point of every promise, (samples, promises); NONE where the first test already fails.

    Args:
        second_moment: (promises, points), a guess of E[x^2] from other data.
        risk: of each promise.
    """
    points = draws.routed.shape[1]
    certain = draws.promises.certain(points)
    floors = draws.promises.floors(points)
    rejected = test(draws, floor=floors, top=np.ones(1), second_moment=second_moment, risk=risk)
    # Fixed sequence: a point counts only where every safer one passed.
    passed = rejected | certain
    last = np.logical_and.accumulate(passed, axis=-1).sum(axis=-1) - 1
    return np.asarray(np.where(certain[:, -1], points - 1, last))


def monotone(last: Indices) -> Indices:
    """Make last certified points (..., promises), from the strictest promise to the loosest, never go back.

    A looser promise may be certified less far, by chance; then the stricter one, whose earlier points are certified as well, runs
    the earlier point. Promises without a certified point are left out of it.
    """
    filled = np.where(last == NONE, np.iinfo(np.int64).max, last)
    # Cumulative minimum from the loosest promise back to the strictest.
    least = np.minimum.accumulate(filled[..., ::-1], axis=-1)[..., ::-1]
    return np.asarray(np.where(last == NONE, NONE, least))


def knots_of(levels: Sequence[float], last: Indices, certain: npt.NDArray[np.bool_], costs: Array) -> tuple[Knot, ...]:
    """Make knots from the strictest promise on: of what is certified, else of what runs at the nearest safer one.

    Every point up to the last certified one is certified; the cheapest of them on the sample runs, the safer one of equals.

    Args:
        last: (promises,) last certified points. certain: (promises, points). costs: (points,) mean expected USD.
    """
    result: list[Knot] = []
    for level, point, sure in zip(levels, monotone(last).tolist(), certain, strict=True):
        before = result[-1] if result else None
        if point == NONE and before is not None:
            result.append(Knot(level=level, point=before.point, status=INSUFFICIENT))
        elif sure[point] and before is not None and costs[point] > costs[before.point]:
            # tau 1: what a stricter promise certified is better than the cheapest single, and on the sample it costs less
            result.append(Knot(level=level, point=before.point, status=before.status))
        elif sure[point]:
            result.append(Knot(level=level, point=point, status=CERTAIN))
        else:
            runs = int(costs[: point + 1].argmin())
            result.append(Knot(level=level, point=runs, status=CERTAIN if sure[runs] else CERTIFIED))
    return tuple(result)


class DecidedRows(Protocol):
    """`DecidedRows` are scored prompts to decide on: `names` are the candidates, and the columns of `quality` (rows, models)."""

    @property
    def names(self) -> tuple[str, ...]: ...
    @property
    def quality(self) -> Array: ...
    def __len__(self) -> int: ...
    def decided(self, **options: Any) -> tuple[Indices, Array]:
        """Return positions in `names` and expected USD, (rows,) each, of what is chosen under these options."""
        ...


def certify_path(
    rows: DecidedRows,
    other: DecidedRows,
    taus: Sequence[float],
    policies: Sequence[Policy],
    order: npt.NDArray[np.int64],
    *,
    risk: float,
    simultaneous: bool,
    test: str,
) -> tuple[TestedTau, ...]:
    """Test the points of tau's path: does what runs at a tau keep what that tau promises? (docs/calibration.md)

    For a prompt, x = routed - (1 - tau) * best - tau * cheapest; the promise is kept iff E[x] >= 0, and the test tries to reject
    E[x] <= 0.

    Args:
        rows: the calibration sample. other: other prompts of the same kind, for a guess of second moments alone.
        taus: in [0, 1], rising. policies: what runs at each of them, under rule "path".
        order: (rows,) in which the sample's prompts are tested.
        risk, simultaneous, test: see `calibrate.CertifyOptions`.
    """
    tau = np.asarray(taus, np.float64)
    routed, promised, costs = _at(rows, policies, tau)
    seen, owed, _ = _at(other, policies, tau)
    kept = TESTS[test](
        (routed - promised)[order],
        floor=np.ones(len(tau)),  # x lies in [-1, 1]: a quality minus a mean of two
        top=np.ones(len(tau)),
        second_moment=np.square(seen - owed).mean(axis=0),
        risk=risk / len(tau) if simultaneous else risk,
    )
    lower = lower_bounds(routed[order], TESTS[test], risk=risk)
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


def _at(rows: DecidedRows, policies: Sequence[Policy], tau: Array) -> tuple[Array, Array, Array]:
    """Return what the policies route to and what they promise, (rows, taus) each, and mean expected USD (taus,)."""
    promise = policies[0].promise
    assert promise is not None  # of rule `path`
    decided = [rows.decided(policy=policy) for policy in policies]
    best, cheapest = (rows.quality[:, rows.names.index(name)] for name in (promise.best, promise.cheapest))
    every = np.arange(len(rows))
    routed = np.stack([rows.quality[every, chosen] for chosen, _ in decided], axis=1)
    promised = best[:, None] * (1 - tau) + cheapest[:, None] * tau
    return routed, promised, np.array([paid.mean() for _, paid in decided])
