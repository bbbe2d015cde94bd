"""This study asks what the rules cost at equal realised quality.

    python -m studies.calibration.equal_quality --bundle ROOT --outcomes DIR

Every rule traces a line of mean quality over mean cost as its tau goes from 0 to 1, with the same predictions, on held-out prompts.
All are read at the same realised qualities: the cheapest place where a rule's line reaches it. The calibrated rule's map is not of
the prompts it is read on: they are dealt into five folds by question, and each fold runs the points that were certified on the other
four. Intervals: paired bootstrap over prompts (docs/metrics.md section 4); a rule that never reaches a quality is read at the best
single candidate's cost.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ipr_engine.calibration import bounds
from ipr_engine.calibration.promises import NONE, TAUS, ExcessDraws, Promises, certified_points, monotone
from ipr_engine.measures.resampling import Estimate, Resamples, estimate, grouped_folds
from ipr_engine.measures.routing import Curve, cost_at
from studies.calibration.population import Population, about, add_options, load_population

Array = npt.NDArray[np.float64]

LEVELS = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5)  # read at quality (1 - level) * best + level * cheapest
SETTINGS = np.linspace(0, 1, 201)  # of the paper's rules' tau
RULES = ("minmax", "max")
DRAWS = 1000
FOLDS = 5


class CostLine(NamedTuple):
    """A `CostLine` is one quality: the calibrated rule's cost as a share of the best single's, and other rules' cost over that."""

    level: str
    quality: float
    cost: float
    ratio: dict[str, Estimate]


def compare(population: Population, *, risk: float, draws: int, seed: int) -> list[CostLine]:
    """Return a line per level, and one of the geometric mean over them."""
    rows = np.arange(len(population.rows))
    resamples = Resamples(len(rows), draws=draws, seed=seed)
    best, cheapest = resamples.means(population.best), resamples.means(population.cheapest)  # (1 + draws,)
    level = np.asarray(LEVELS)
    wanted = (1 - level) * best[:, None] + level * cheapest[:, None]
    ceiling = resamples.means(population.paid[:, 0])
    realised, paid = (resamples.means(part) for part in _calibrated(population, risk, seed))
    mine = _costs_at(realised, paid, wanted, ceiling)
    logs: dict[str, Array] = {}
    for rule in RULES:
        chosen = _swept(population, rule)  # (settings, rows)
        quality = resamples.means(population.rows.quality[rows, chosen].T)
        cost = resamples.means(population.cost_usd[rows, chosen].T)
        logs[rule] = np.log(_costs_at(quality, cost, wanted, ceiling) / mine)
    lines = [
        CostLine(
            f"{name:g}", float(wanted[0, k]), float(mine[0, k] / ceiling[0]), {r: _ratio(logs[r][:, k]) for r in RULES}
        )
        for k, name in enumerate(LEVELS)
    ]
    mean = float(np.exp(np.log(mine[0] / ceiling[0]).mean()))
    return [
        *lines,
        CostLine("geometric mean", float(wanted[0].mean()), mean, {r: _ratio(logs[r].mean(axis=1)) for r in RULES}),
    ]


def _costs_at(quality: Array, cost: Array, wanted: Array, ceiling: Array) -> Array:
    """Return `routing.cost_at` of the line through settings (n, settings) for each of the qualities (n, k): (n, k)."""
    return np.stack([cost_at(Curve(cost, quality), goal, ceiling) for goal in wanted.T], axis=1)


def _ratio(log: Array) -> Estimate:
    found = estimate(log)
    value, low, high = (float(np.exp(part)) for part in found[:3])
    return Estimate(value, low, high, found.defined)


def _calibrated(population: Population, risk: float, seed: int) -> tuple[Array, Array]:
    """Return realised quality and cost (rows, taus) when each fold runs what the other folds certified."""
    promises = Promises.of(TAUS, ())
    path = population.path
    moment = (promises.excess(path.routed, path.best_quality, path.cheapest_quality) ** 2).mean(axis=0)
    folds = grouped_folds(population.rows.outcomes.question_keys, FOLDS, seed)
    quality, cost = np.empty((len(folds), len(TAUS))), np.empty((len(folds), len(TAUS)))
    for fold in range(FOLDS):
        held_out = folds == fold
        order = np.random.default_rng(seed).permutation(np.flatnonzero(~held_out))
        sample = ExcessDraws(promises, population.routed, population.best, population.cheapest, order[:, None])
        last = monotone(certified_points(sample, bounds.target, second_moment=moment, risk=risk))[0]
        points = np.maximum.accumulate(np.where(last == NONE, 0, last))
        quality[held_out], cost[held_out] = population.routed[held_out][:, points], population.paid[held_out][:, points]
    return quality, cost


def _swept(population: Population, rule: str) -> npt.NDArray[np.int64]:
    """Return the engine's choices (settings, rows) by one of the paper's rules."""
    rows = population.rows
    return np.stack([rows.embedded.decide(tau=float(t), rule=rule).index for t in SETTINGS]).astype(np.int64)


def render(lines: Sequence[CostLine]) -> str:
    """Return the table as Markdown."""

    def show(ratio: Mapping[str, Estimate], rule: str) -> str:
        return f"{ratio[rule].value:.2f} [{ratio[rule].low:.2f}, {ratio[rule].high:.2f}]"

    head = f"| level | quality | calibrated costs | {' | '.join(f'`{rule}` costs, times' for rule in RULES)} |"
    rows = [
        f"| {line.level} | {line.quality:.4f} | {line.cost:.1%} | {' | '.join(show(line.ratio, rule) for rule in RULES)} |"
        for line in lines
    ]
    return "\n".join([head, "|" + " --- |" * (3 + len(RULES)), *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser)
    parser.add_argument("--risk", type=float, default=0.1)
    parser.add_argument("--draws", type=int, default=DRAWS)
    arguments = parser.parse_args()
    population = load_population(arguments)
    print(f"{about(population)}; risk {arguments.risk:g}, {arguments.draws} resamples, seed {arguments.seed}\n")
    print(render(compare(population, risk=arguments.risk, draws=arguments.draws, seed=arguments.seed)))


if __name__ == "__main__":
    main()
