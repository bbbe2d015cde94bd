"""Recorded answers are routed as the weight on seconds rises: bundles of other folds, policies of the public API, realised figures."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine.decision.decisions import Decisions
from ipr_engine.engine import Engine
from ipr_engine.errors import InvalidInputError
from ipr_engine.measures.resampling import Estimate, Resamples, estimate, grouped_folds
from ipr_engine.performance import Refusal, TimingFit, fit_timing
from ipr_engine.training.train import train
from ipr_engine.training.train_options import BundleTarget, FitOptions, TrainingData
from studies.performance_answers import RatedAnswers

Array = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

FOLDS = 5
ESTIMATOR = "auto"
# Beside the weights, a policy asks for a tau under rule path, or for a fixed worth of quality.
ASKED: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "tau 0.2": {"tau": 0.2},
        "tau 1": {"tau": 1.0},
        "worth 0.2 USD": {"tau": 1.0, "rule": "minmax", "worth": 0.2},
    }
)
WEIGHTS = (0.0, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 1.0)  # USD per second
MEASURES = ("quality", "USD per 1,000", "seconds")


@dataclass(frozen=True, eq=False)
class TradePoint:
    """A `TradePoint` is what one weight gives on the prompts that every model answered.

    Attributes:
        quality, usd, seconds: realised means, with intervals. expected_s: mean of the seconds that the decisions expected.
        shares: of each model.
    """

    weight: float
    quality: Estimate
    usd: Estimate
    seconds: Estimate
    expected_s: float
    shares: Array


@dataclass(frozen=True, eq=False)
class Trade:
    """A `Trade` is all that was routed.

    Attributes:
        lines: (set of candidates, what of ASKED) -> a point a weight. singles: a point a model, chosen always.
        constant: how many heads of the folds' bundles are constant, and of how many.
        tokens: (prompts, models), output tokens predicted out of fold.
    """

    lines: dict[tuple[str, str], list[TradePoint]] = field(default_factory=dict)
    singles: list[TradePoint] = field(default_factory=list)
    constant: tuple[int, int] = (0, 0)
    tokens: Array = field(default_factory=lambda: np.zeros((0, 0)))


def timing_of(answers: RatedAnswers, rows: Rows) -> list[TimingFit]:
    """Return the fit of every model on these prompts."""
    made = []
    for m, name in enumerate(answers.models):
        own = rows[~np.isnan(answers.seconds[rows, m])]
        fit = fit_timing(answers.output_tokens[own, m], answers.seconds[own, m])
        if isinstance(fit, Refusal):
            raise InvalidInputError(f"outcomes: {name}: {fit.reason}")
        made.append(fit)
    return made


def folds_of(answers: RatedAnswers) -> Rows:
    return grouped_folds(answers.prompt_ids, FOLDS, 0)


def route_by_weight(
    answers: RatedAnswers, sets: Mapping[str, Sequence[str]], draws: int, progress: Callable[[str], None]
) -> Trade:
    """Train a bundle without each fold, with figures fitted without it, and route the fold.

    Args:
        sets: name -> the candidates it leaves out.
    """
    fold = folds_of(answers)
    shape = answers.seconds.shape
    tokens = np.full(shape, np.nan)
    choice = {
        key: np.zeros((len(WEIGHTS), shape[0]), np.int64) for key in ((s, asked) for s in sets for asked in ASKED)
    }
    expected = {key: np.zeros((len(WEIGHTS), shape[0])) for key in choice}
    constant = 0
    with tempfile.TemporaryDirectory() as folder:
        for number in range(FOLDS):
            progress(f"fold {number + 1} of {FOLDS}: training and routing ...")
            inside, outside = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
            engine = _engine(answers, inside, Path(folder) / str(number))
            constant += len(engine.bundle.provenance.get("constant", {}))
            prompts = [answers.prompts[row] for row in outside]
            for (name, asked), chosen in choice.items():
                for w, weight in enumerate(WEIGHTS):
                    policy = engine.policy(
                        **ASKED[asked],
                        exclude=list(sets[name]) or None,
                        cost_weights={"usd": 1.0, "ttft_s": weight, "generation_s": weight},
                    )
                    decisions = engine.route_many(prompts, policy)
                    chosen[w, outside] = decisions.index
                    expected[name, asked][w, outside] = _expected(engine, decisions)
            tokens[outside] = decisions.tokens_out
    kept = answers.complete
    resamples = Resamples(len(kept), draws=draws)
    trade = Trade(constant=(constant, FOLDS * shape[1]), tokens=tokens)
    for key, chosen in choice.items():
        trade.lines[key] = [
            _point(answers, resamples, weight, chosen[w, kept], float(expected[key][w, kept].mean()))
            for w, weight in enumerate(WEIGHTS)
        ]
    for m in range(shape[1]):
        trade.singles.append(_point(answers, resamples, 0.0, np.full(len(kept), m), float("nan")))
    return trade


def _engine(answers: RatedAnswers, inside: Rows, folder: Path) -> Engine:
    folder.mkdir()
    answers.write(folder / "outcomes", inside)
    listed = answers.candidates(folder / "candidates.json", timing_of(answers, inside))
    made = train(
        TrainingData(outcomes=folder / "outcomes", candidates=listed),
        BundleTarget(root=folder / "bundles", name="performance study", created="2026-11-28"),
        fit=FitOptions(estimator=ESTIMATOR, allow_constant=True),
    )
    return Engine.load(made.folder)


def _expected(engine: Engine, decisions: Decisions) -> Array:
    """Return (rows,) the seconds that the chosen candidates' figures tell of the predicted output tokens."""
    names, chosen = engine.bundle.names, np.asarray(decisions.index)
    known = [engine.performance[name] for name in names]
    ttft, tpot = (np.array([getattr(own, key) for own in known], np.float64) for key in ("ttft_s", "tpot_s"))
    found: Array = ttft[chosen] + tpot[chosen] * decisions.tokens_out[np.arange(len(chosen)), chosen]
    return found


def _point(answers: RatedAnswers, resamples: Resamples, weight: float, chosen: Rows, expected: float) -> TradePoint:
    rows, shares = answers.complete, np.bincount(chosen, minlength=len(answers.models)) / len(chosen)
    quality, usd, seconds = (
        estimate(resamples.means(part[rows, chosen])) for part in (answers.quality, answers.usd * 1000, answers.seconds)
    )
    return TradePoint(weight, quality, usd, seconds, expected, shares)
