"""This file holds the arguments of an evaluation: which candidates, which baselines, and how figures are taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ipr_engine._validate import random_seed
from ipr_engine.audit.owner_key import Key
from ipr_engine.data.repeated_scores import RepeatedScores
from ipr_engine.evaluation.contenders import Contender
from ipr_engine.evaluation.router_interface import Fit
from ipr_engine.evaluation.router_names import require_free_names
from ipr_engine.measures.resampling import DRAWS
from ipr_engine.measures.routing import WeightedOutcomes
from ipr_engine.measures.sweeps import WORTHS

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.integer]


@dataclass(frozen=True, kw_only=True)
class EvaluatedCandidates:
    """`EvaluatedCandidates` say which candidates are evaluated.

    Attributes:
        names: candidate -> its names in the sources, where neither equal nor in the bundle's provenance (`ipr train`).
        allowed, family: only these candidates; of them those count that are in the source.
    """

    names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    allowed: Sequence[str] | None = None
    family: Sequence[str] | None = None


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """`EvaluationOptions` say how figures are taken.

    Attributes:
        validate_on_train: choose operating points on the training split (out of fold for the baselines; say so if the
            router was fitted on it); else on one half of the test split for the other.
        routers: others to judge beside, by the name that is shown; each a function as router_interface.py has it.
        cross_fit: judge the bundle's recipe by folds of all prompts (cross_fit.py), as is done where a source holds none out.
        edits: also decide on the test prompts written otherwise (robust_to_edits.py), which embeds them eleven times more.
        draws: of the bootstrap. seed: of bootstrap, halves, folds, k-means.
        repeated: scores of single samples (`ipr collect`), to say how much of the outcomes is luck; None: nothing is said of it.
        key: the owner's, under which the bundle hashed its fitting prompts; None reads ROOT/owner.key beside the bundle.
    """

    validate_on_train: bool = False
    routers: Mapping[str, Fit] = field(default_factory=dict)
    repeated: RepeatedScores | None = None
    key: Key | None = None
    cross_fit: bool = False
    edits: bool = False
    draws: int = DRAWS
    seed: int = 0

    def __post_init__(self) -> None:
        random_seed("seed", self.seed)
        require_free_names(self.routers)


@dataclass(frozen=True, eq=False)
class Baselines:
    """`Baselines` are the settings of the baselines' fits.

    Attributes:
        folds: (train rows,) fold numbers for their tuning.
        worths: of their sweeps, see `sweeps.worth_grid`.
        crossed: whether both splits are the same rows: then each fold is predicted by fits on the others.
        others: routers to stand beside them (`router_runs.contenders_of`).
    """

    folds: npt.NDArray[np.int64]
    worths: npt.NDArray[np.float64] = field(default_factory=lambda: WORTHS)
    others: Sequence[Contender] = ()
    crossed: bool = False


@dataclass(frozen=True, eq=False)
class Split:
    """A `Split` is one split of an evaluation: its outcomes, and what the router sees and believes. Every array has the split's rows.

    Attributes:
        x: (rows, dim) embeddings, without tasks and surface features, for the baselines that need some.
        groups: (rows,) question keys; copies of one question share one.
        predicted, predicted_cost: (rows, models) of the router under test.
        sweeps: name -> choices (points, rows) of the router under test, the cheap end first; the same in both splits.
        tokens, predicted_tokens: (rows, models) output tokens, None where unknown.
        path_choices: share of the best single's quality -> (rows,) what rule `path` chooses at the tau of that share; empty where
            there is no path.
        seen: (rows,) whether the router was fitted on the prompt or its question; None where that is not known.
    """

    outcomes: WeightedOutcomes
    x: Array
    groups: Sequence[str]
    predicted: Array
    predicted_cost: Array
    sweeps: Mapping[str, Indices]
    tokens: Array | None = None
    predicted_tokens: Array | None = None
    path_choices: Mapping[float, Indices] = field(default_factory=dict)
    seen: npt.NDArray[np.bool_] | None = None
