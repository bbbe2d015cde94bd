"""`python -m studies.calibration.truth --bundle ROOT --outcomes DIR` asks whether the guarantee is true.

Held-out prompts are the population, so the mean of every point is known exactly. Calibration samples are drawn from it with replacement,
many times; each is calibrated as `ipr calibrate` would. Counted: how often a certified knot breaks its promise (at most risk, but
for chance), how often it certifies, and what the certified point costs beside the cheapest point of the path that really keeps
the promise.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ipr_engine.calibration import bounds
from ipr_engine.calibration.promises import NONE, ExcessDraws, Promises, certified_points, monotone
from studies.calibration.population import Population, about, add_options, load_population, say

Array = npt.NDArray[np.float64]

TAUS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.8)
SHARES = (0.99, 0.98, 0.95, 0.9)
SIZES = (300, 1000, 3000)
DRAWS = 1000
AT_ONCE = 25  # draws calibrated together: bounds the memory


@dataclass(frozen=True)
class TruthLine:
    """A `TruthLine` is one promise at one sample size; costs are mean realised USD as shares of the best single candidate's.

    Attributes:
        violated, certified, beyond: shares of the draws: certified but false; certified; certified beyond the single best.
        worst: the largest shortfall of mean quality among the violations.
        cost: mean over draws of what runs. oracle: of the cheapest point that keeps the promise.
    """

    promise: str
    n: int
    violated: float
    worst: float
    certified: float
    beyond: float
    cost: float
    oracle: float


def study_truth(
    population: Population, sizes: Sequence[int], draws: int, risk: float, test: str, seed: int
) -> list[TruthLine]:
    """Return a line per promise and size."""
    promises = Promises.of(TAUS, SHARES)
    path, points = population.path, len(population.path)
    moment = (promises.excess(path.routed, path.best_quality, path.cheapest_quality) ** 2).mean(axis=0)
    truth = promises.excess(population.routed, population.best, population.cheapest).mean(axis=0)  # (promises, points)
    cost = population.paid.mean(axis=0) / population.paid[:, 0].mean()
    keeps = (truth >= -1e-12) | promises.certain(points)
    oracle = np.where(keeps, cost, np.inf).min(axis=1)
    lines = []
    for n in sizes:
        last = _draw(population, promises, moment, n, draws, risk, test, seed)
        certified = last != NONE
        ran = np.maximum.accumulate(
            np.where(certified, last, 0), axis=1
        )  # as promises.knots_of: the nearest safer knot's
        ran[:, len(TAUS) :] = np.where(certified, last, 0)[:, len(TAUS) :]
        shortfall = np.where(certified, -np.take_along_axis(truth.T, np.maximum(last, 0), axis=0), 0.0)
        false = certified & ~np.take_along_axis(keeps.T, np.maximum(last, 0), axis=0)
        for k, name in enumerate([*(f"tau {t:g}" for t in TAUS), *(f"share {s:g}" for s in SHARES)]):
            lines.append(
                TruthLine(
                    promise=name,
                    n=n,
                    violated=float(false[:, k].mean()),
                    worst=float(np.where(false[:, k], shortfall[:, k], 0.0).max()),
                    certified=float(certified[:, k].mean()),
                    beyond=float((last[:, k] > 0).mean()),
                    cost=float(cost[ran[:, k]].mean()),
                    oracle=float(oracle[k]),
                )
            )
        say(f"n {n} done")
    return lines


def _draw(
    population: Population,
    promises: Promises,
    moment: Array,
    n: int,
    draws: int,
    risk: float,
    test: str,
    seed: int,
) -> npt.NDArray[np.int64]:
    """Return (draws, promises): the point each draw certifies, NONE for none."""
    random = np.random.default_rng((seed, n))
    found = []
    for start in range(0, draws, AT_ONCE):
        order = random.integers(0, len(population.rows), (n, min(AT_ONCE, draws - start)))
        sample = ExcessDraws(promises, population.routed, population.best, population.cheapest, order)
        last = certified_points(sample, bounds.TESTS[test], second_moment=moment, risk=risk)
        found.append(np.concatenate([monotone(last[:, : len(TAUS)]), monotone(last[:, len(TAUS) :])], axis=1))
    return np.concatenate(found)


def render(lines: Sequence[TruthLine], draws: int, risk: float) -> str:
    """Return the table as Markdown."""
    limit = risk + 2 * math.sqrt(risk * (1 - risk) / draws)
    head = "| promise | n | violated (limit {:.1%}) | worst shortfall | certified | beyond the single best | cost | oracle |"
    rows = [
        f"| {line.promise} | {line.n} | {line.violated:.1%} | {line.worst:.4f} | {line.certified:.1%} | {line.beyond:.1%} "
        f"| {line.cost:.1%} | {line.oracle:.1%} |"
        for line in lines
    ]
    return "\n".join([head.format(limit), "|" + " --- |" * 8, *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser)
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="sample sizes (default 300,1000,3000)")
    parser.add_argument("--draws", type=int, default=DRAWS, help="samples of each size (default 1000)")
    parser.add_argument("--risk", type=float, default=0.1)
    parser.add_argument("--test", default="target", choices=sorted(bounds.TESTS))
    arguments = parser.parse_args()
    population = load_population(arguments)
    sizes = [int(size) for size in arguments.sizes.split(",")]
    lines = study_truth(population, sizes, arguments.draws, arguments.risk, arguments.test, arguments.seed)
    print(f"{about(population)}; {arguments.draws} draws, risk {arguments.risk:g}, test {arguments.test}\n")
    print(render(lines, arguments.draws, arguments.risk))


if __name__ == "__main__":
    main()
