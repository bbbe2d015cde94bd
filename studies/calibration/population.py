"""A `Population` is what the studies share: a bundle, its path, and held-out prompts whose means are known exactly."""

from __future__ import annotations

import argparse
import platform
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ipr_engine._version import __version__
from ipr_engine.calibration.observed import Observed, OperatingPath, fit_path, observe
from ipr_engine.data import load_outcomes, overlap, prompt_hashes
from ipr_engine.engine import Engine
from ipr_engine.errors import InvalidInputError
from ipr_engine.evaluation.embedded import embed_rows

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Population:
    """A `Population` holds held-out prompts and what every point of the path does on them.

    Attributes:
        routed, paid: (rows, points) realised quality and realised USD.
        best, cheapest: (rows,) realised quality of the two single candidates.
        cost_usd: (rows, models) realised USD.
    """

    path: OperatingPath
    path_rows: Observed
    rows: Observed
    routed: Array
    paid: Array
    best: Array
    cheapest: Array
    cost_usd: Array


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bundle", required=True, metavar="ROOT", help="trained on the path's split")
    parser.add_argument("--outcomes", required=True, type=Path, metavar="DIR")
    parser.add_argument("--split", default="test", help="the population (default test)")
    parser.add_argument("--path-split", default="train", help="where the path is laid out (default train)")
    parser.add_argument("--seed", type=int, default=0)


def load_population(arguments: argparse.Namespace) -> Population:
    """Load held-out prompts that share no question with the path's, on which every candidate has quality and cost."""
    engine = Engine.load(arguments.bundle)
    sources = dict(engine.bundle.provenance.get("sources", {}))
    path_data = load_outcomes(arguments.outcomes, split=arguments.path_split)
    held_out = load_outcomes(arguments.outcomes, split=arguments.split)
    held_out = held_out.take(~overlap(held_out, prompt_hashes(path_data.prompts, path_data.question_keys)))
    bundle, names = engine.bundle, engine.bundle.names
    path_rows, rows = (
        observe(bundle, partial(embed_rows, engine), part, names, sources, label=f"{part.source}, split {split}")
        for part, split in ((path_data, arguments.path_split), (held_out, arguments.split))
    )
    cost = rows.outcomes.cost_usd
    if np.isnan(cost).any():
        raise InvalidInputError(
            f"outcomes: expected cost_usd of every candidate, {int(np.isnan(cost).sum())} are missing"
        )
    path = fit_path(path_rows)
    singles = [path.single(point) for point in range(len(path))]
    chosen = np.stack(
        [
            rows.choices(float(worth), None if single is None else [names[single]])[0]
            for worth, single in zip(path.worth, singles, strict=True)
        ]
    )
    row = np.arange(len(rows))
    return Population(
        path=path,
        path_rows=path_rows,
        rows=rows,
        routed=rows.quality[row, chosen].T,
        paid=cost[row, chosen].T,
        best=rows.quality[:, path.best],
        cheapest=rows.quality[:, path.cheapest],
        cost_usd=cost,
    )


def about(population: Population) -> str:
    """Say in one line: what, on how many, with which versions."""
    bundle = population.rows.bundle
    return (
        f"{population.rows.source}: {len(population.rows)} prompts; path of {len(population.path)} points on "
        f"{len(population.path_rows)} of {population.path_rows.source}; best {bundle.names[population.path.best]} "
        f"{population.best.mean():.4f}, cheapest {bundle.names[population.path.cheapest]} {population.cheapest.mean():.4f}; "
        f"bundle {bundle.hash[:12]}; ipr_engine {__version__}, numpy {np.__version__}, "
        f"Python {platform.python_version()}"
    )


def say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
