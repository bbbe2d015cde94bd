"""A `Case` is a source as the studies see it: its candidates, complete rows of both splits, the cost axis, one set of resamples."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from ipr_engine.data import Outcomes as OutcomeData
from ipr_engine.data import load_outcomes
from ipr_engine.errors import InvalidInputError
from ipr_engine.evaluation.contenders import Mix
from ipr_engine.measures.resampling import Resamples, grouped_folds
from ipr_engine.measures.routing import Axis, Curve, WeightedOutcomes, single_curve
from ipr_engine.measures.sweeps import hull_mix

Array = npt.NDArray[np.float64]

FOLDS = 5
DRAWS = 1000
COVERED = 0.97  # a candidate joins a case if it has an outcome on this share of the prompts

ZEROEVAL = (
    "claude-3-5-sonnet-20241022", "claude-3-5-haiku-20241022", "claude-3-haiku-20240307", "gpt-4o-2024-08-06",
    "gpt-4o-mini-2024-07-18", "gemini-1.5-pro", "gemini-1.5-flash", "Meta-Llama-3.1-405B-Instruct",
    "Meta-Llama-3.1-70B-Instruct", "Meta-Llama-3.1-8B-Instruct", "Mistral-Large-2",
)  # fmt: skip  # those of the default bundle


@dataclass(frozen=True)
class Recipe:
    """A `Recipe` says which candidates of a source make a case.

    Attributes:
        source: the folder of outcome data. models: by name; None takes every covered candidate that passes `keep`.
        ranked: the source has no cost: a candidate's cost is its rank by mean training quality, 1 for the worst.
        note: what a reader must know of its costs.
    """

    source: str
    note: str
    models: tuple[str, ...] | None = None
    keep: Callable[[str], bool] = lambda name: True
    ranked: bool = False


def _prompt_mode(name: str) -> bool:
    return re.search(r"-fc(-any|-auto)?$", name, re.IGNORECASE) is None


RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        "zeroeval": Recipe("zeroeval", "list price x estimated tokens; the default bundle's candidates", ZEROEVAL),
        "zeroeval_wide": Recipe("zeroeval", "list price x estimated tokens; every covered candidate with a price"),
        "routerbench_sub": Recipe("routerbench_sub", "recorded by RouterBench"),
        "cascade9": Recipe("cascade9", "recorded; its train and test differ in their mix of tasks"),
        "bfcl": Recipe("bfcl", "price x recorded tokens; candidates in prompt mode", keep=_prompt_mode),
        "mmlu_pro": Recipe("mmlu_pro", "list price x estimated tokens"),
        "openllm19": Recipe("openllm19", "input side only"),
        "czech_simpleqa": Recipe("czech_simpleqa", "list price x estimated tokens"),
        "routerdc7": Recipe("routerdc7", "none in the source: rank by training quality stands in", ranked=True),
    }
)
WITH_COSTS = ("zeroeval", "routerbench_sub", "cascade9", "bfcl", "mmlu_pro", "openllm19")


@dataclass(eq=False)
class Rows:
    """`Rows` are the complete rows of one split.

    Attributes:
        data: prompts, datasets and keys. quality, cost: (rows, models), cost in USD.
    """

    data: OutcomeData
    quality: Array
    cost: Array

    @cached_property
    def outcomes(self) -> WeightedOutcomes:
        return WeightedOutcomes.complete(self.quality, self.cost)

    def take(self, rows: npt.NDArray[np.int64] | npt.NDArray[np.bool_]) -> Rows:
        return Rows(self.data.take(rows), self.quality[rows], self.cost[rows])

    def columns(self, columns: Sequence[int]) -> Rows:
        chosen = list(columns)
        return Rows(
            self.data.select([self.data.models[m] for m in chosen]), self.quality[:, chosen], self.cost[:, chosen]
        )


@dataclass(eq=False)
class Case:
    """A `Case` is one source, ready for trials; every trial on it sees the same resamples, so differences are paired."""

    name: str
    note: str
    train: Rows
    test: Rows
    draws: int = DRAWS

    @property
    def models(self) -> tuple[str, ...]:
        return self.train.data.models

    @cached_property
    def folds(self) -> npt.NDArray[np.int64]:
        return grouped_folds(self.train.data.question_keys, FOLDS, 0)

    @cached_property
    def axis(self) -> Axis:
        return Axis.of(self.train.outcomes)

    @cached_property
    def resamples(self) -> Resamples:
        return Resamples(self.test.outcomes.rows, draws=self.draws)

    @cached_property
    def singles(self) -> Curve:
        return single_curve(self.test.outcomes, self.resamples)

    @cached_property
    def hull(self) -> Curve:
        """Return random mixes along the hull of single candidates; its vertices are picked on train."""
        train = self.train.outcomes
        return Mix.lines(hull_mix(train), train.cost.mean(axis=0)).curve(self.test.outcomes, self.resamples)

    def columns(self, models: Sequence[str]) -> Case:
        """Return the same rows with some of the candidates only."""
        at = [self.models.index(model) for model in models]
        return Case(self.name, self.note, self.train.columns(at), self.test.columns(at), self.draws)


def load_case(folder: Path, name: str, *, models: tuple[str, ...] | None = None, draws: int = DRAWS) -> Case:
    """Read a source of `folder` by its recipe, or with other candidates than the recipe's.

    Raises:
        InvalidInputError: no recipe of that name, the source is not in the folder, or a candidate is not in the source.
    """
    if name not in RECIPES:
        raise InvalidInputError(f"source: expected one of {', '.join(RECIPES)}, got {name!r}")
    recipe = RECIPES[name] if models is None else replace(RECIPES[name], models=models)
    data = load_outcomes(folder / recipe.source)
    measures = ("quality",) if recipe.ranked else ("quality", "cost_usd")
    if recipe.models is None:
        coverage = data.coverage(measures)
        data = data.select([model for model in data.models if coverage[model] >= COVERED and recipe.keep(model)])
    else:
        data = data.select(recipe.models)
    parts = [data.of_split(split).complete(measures=measures) for split in ("train", "test")]
    if recipe.ranked:
        rank = parts[0].quality.mean(axis=0).argsort(kind="stable").argsort(kind="stable") + 1.0
        costs = [np.tile(rank, (len(part), 1)) for part in parts]
    else:
        costs = [part.cost_usd for part in parts]
    train, test = (Rows(part, part.quality, cost) for part, cost in zip(parts, costs, strict=True))
    return Case(name, recipe.note, train, test, draws)
