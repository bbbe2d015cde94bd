"""`measured_parts` says what a step loses that is taken on a part of the prompts (docs/scale.md): half and a quarter stand beside."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ipr_engine.bundle.candidates_file import read_candidates
from ipr_engine.data import Outcomes, embed_prompts, load_outcomes, split_outcomes
from ipr_engine.evaluation.baselines import knn
from ipr_engine.evaluation.evaluate import MOST_TRAIN
from ipr_engine.measures.resampling import Resamples, drawn_questions, grouped_folds, one_thread
from ipr_engine.measures.routing import Axis, WeightedOutcomes, bounded_arqgc, single_curve, sweep_curve
from ipr_engine.measures.sweeps import worth_grid, worth_sweep
from ipr_engine.prompts.parsed import bill_floors
from ipr_engine.training.fitted_heads import FOLDS, HeadRows
from ipr_engine.training.fitted_parts import SUPPORT_ROWS, fit_support
from ipr_engine.training.selection import MOST_COMPARED, compare_estimators, prompt_costs, winner
from ipr_engine.training.train_options import EncoderChoice

from ..harness.results import Line
from .edited_source import CANDIDATES

Array = npt.NDArray[np.float64]
CENTROIDS = 64
SEED = 0


def measured_parts(folder: Path, say: Callable[[str], None]) -> Line:
    """Take three steps on a quarter, on half and on all of the prompts that they are taken on at most, and kNN on twice as many.

    Args:
        folder: a source of `make_source`, of some 5 prompts for each that a step takes at most.
    Returns:
        a figure for each number of prompts: the area, judged on the most, of the estimator that wins there; by how much a percentile of
        the support's distances is off at most, in their standard deviations; kNN's area on the test split.
    """
    outcomes, _ = split_outcomes(load_outcomes(folder), {"train": 0.7, "test": 0.3})
    train, test = outcomes.of_split("train"), outcomes.of_split("test")
    encoder = EncoderChoice().open().encoder
    encoded = embed_prompts(encoder, train.prompts)
    with one_thread():
        return {
            "estimators": _estimators(folder, train, encoded.x, bill_floors(train.prompts, encoded.billed_tokens), say),
            "support": _support(encoded.x, grouped_folds(train.question_keys, FOLDS, SEED), say),
            "knn": _knn(train, test, encoded.x, embed_prompts(encoder, test.prompts).x, say),
        }


def _estimators(
    folder: Path,
    train: Outcomes,
    x: npt.NDArray[np.float32],
    billed: npt.NDArray[np.integer],
    say: Callable[[str], None],
) -> Line:
    asked = read_candidates(folder / CANDIDATES)
    rows = HeadRows(x, train.quality, train.output_tokens, train.question_keys)
    costs = prompt_costs(asked.candidates, asked.prices, billed.astype(np.float64), None, train.output_tokens)
    won, area = {}, {}
    for prompts in (MOST_COMPARED // 4, MOST_COMPARED // 2, MOST_COMPARED):
        drawn = drawn_questions(train.question_keys, prompts, seed=SEED)
        scores = compare_estimators(rows.take(drawn), costs.take(drawn))
        won[prompts], area = winner(scores), {score.estimator: score.area for score in scores}
        say(f"estimators on {prompts} prompts: {won[prompts]}")
    return {
        "area_of_all": {name: round(value, 4) for name, value in area.items()},
        **{str(prompts): {"winner": name, "area": round(area[name], 4)} for prompts, name in won.items()},
    }


def _support(x: npt.NDArray[np.float32], folds: npt.NDArray[np.int64], say: Callable[[str], None]) -> Line:
    found = {}
    order = np.random.default_rng(SEED).permutation(len(x))
    for rows in (SUPPORT_ROWS // 4, SUPPORT_ROWS // 2, SUPPORT_ROWS):
        drawn = np.sort(order[:rows])
        found[rows] = fit_support(x[drawn], folds[drawn], CENTROIDS, SEED)["distances"].astype(np.float64)
        say(f"support of {rows} prompts")
    most = found[SUPPORT_ROWS]
    return {str(rows): round(float(np.abs(most - at)[1:-1].max() / most.std()), 4) for rows, at in found.items()}


def _knn(
    train: Outcomes,
    test: Outcomes,
    x: npt.NDArray[np.float32],
    test_x: npt.NDArray[np.float32],
    say: Callable[[str], None],
) -> Line:
    judged, worths = WeightedOutcomes.complete(test.quality, test.cost_usd), worth_grid(train.cost_usd)
    axis, once = Axis.of(WeightedOutcomes.complete(train.quality, train.cost_usd)), Resamples(len(test), draws=0)
    areas = {}
    for prompts in (MOST_TRAIN // 4, MOST_TRAIN // 2, MOST_TRAIN, 2 * MOST_TRAIN):
        drawn = drawn_questions(train.question_keys, prompts, seed=SEED)
        part = WeightedOutcomes.complete(train.quality[drawn], train.cost_usd[drawn])
        folds = grouped_folds(train.take(drawn).question_keys, FOLDS, SEED)
        told = knn(x[drawn].astype(np.float64), part, folds, test_x.astype(np.float64))
        curve = sweep_curve(worth_sweep(told.quality, told.cost, worths), judged, once)
        areas[str(prompts)] = round(float(bounded_arqgc(curve, axis, single_curve(judged, once))[0]), 4)
        say(f"kNN on {prompts} prompts: area {areas[str(prompts)]}, {told.setting}")
    return areas
