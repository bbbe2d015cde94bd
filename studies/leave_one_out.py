"""Leave-one-candidate-out trials show what a candidate added to frozen heads reaches from ever more prompts, and its rivals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ipr_engine.evaluation.baselines import NEIGHBOURS
from ipr_engine.measures.resampling import grouped_folds, one_thread
from ipr_engine.measures.sweeps import worth_sweep
from ipr_engine.training.add.candidate_row import fit_row
from ipr_engine.training.estimators.ridge import PENALTIES, fit_ridge
from ipr_engine.training.fitted_heads import FittedHeads, HeadRows, fit_heads, predict
from ipr_engine.training.platt import fit_platt, sigmoid
from studies.cases import FOLDS, Case
from studies.headline import SHIPPED, VIEW
from studies.study import Study
from studies.trials import NANO, area

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

SIZES = (50, 100, 200, 400, 800, 1600)
DRAWS = 3  # subsets of each size
FRESH = 400  # prompts in the comparison of seen and fresh ones
ADDED, SCRATCH, SIMILAR, KNN = "add-model", "own ridge from scratch", "most similar candidate's head", "kNN"
METHODS = (ADDED, SCRATCH, SIMILAR, KNN)


@dataclass
class Curves:
    """`Curves` is one source: Brier score and area by method and size, a column a candidate, and what they are measured
    against.

    Attributes:
        brier, areas: method -> (sizes, models), means over subsets.
        constant: (models,) Brier score of the training mean. full_brier, full_area: of heads refitted on everything.
        area_without: (models,) area with the candidate away. prior: (models,) Brier score without any prompt.
        fresh, seen: (models,) Brier scores from prompts the heads were fitted on and from others.
    """

    models: tuple[str, ...]
    sizes: tuple[int, ...]
    brier: dict[str, Array]
    areas: dict[str, Array]
    constant: Array
    full_brier: Array
    full_area: Array
    area_without: Array
    prior: Array
    fresh: Array
    seen: Array

    def gain(self, method: str) -> Array:
        """Return (sizes,) share of the full data's gain in Brier score over the constant, all candidates together."""
        total = float((self.constant - self.full_brier).sum())
        return np.asarray((self.constant - self.brier[method]).sum(axis=1) / total)

    def area_gain(self, method: str) -> Array:
        """Return (sizes,) share of what the candidates add to the area when everything is refitted, all together."""
        total = float((self.full_area - self.area_without).sum())
        return np.asarray((self.areas[method] - self.area_without).sum(axis=1) / total)


def measure(case: Case, study: Study) -> Curves:
    train_x, test_x = (study.views.see(VIEW, rows.data.prompts) for rows in (case.train, case.test))
    count = len(case.models)
    sizes = (*(size for size in SIZES if size < len(train_x)), len(train_x))
    blank = [np.full(count, np.nan) for _ in range(7)]
    tables = [{method: np.full((len(sizes), count), np.nan) for method in METHODS} for _ in range(2)]
    found = Curves(case.models, sizes, *tables, *blank)  # type: ignore[arg-type]  # seven arrays, then two tables
    with one_thread():
        everyone = fit_columns(case, train_x, list(range(count)), None)
        quality, cost = predict(everyone.tensors, test_x, everyone.activation)
        found.full_brier[:] = np.square(quality - case.test.quality).mean(axis=0)
        found.full_area[:] = _area(case, quality, cost)
        found.constant[:] = np.square(case.train.quality.mean(axis=0) - case.test.quality).mean(axis=0)
        for m in range(count):
            study.progress(f"{case.name}: without {case.models[m]} ...")
            _leave_out(found, case, m, train_x, test_x)
    return found


def _leave_out(found: Curves, case: Case, m: int, train_x: Array, test_x: Array) -> None:
    others = [k for k in range(len(case.models)) if k != m]
    heads = fit_columns(case, train_x, others, None)
    quality, cost = predict(heads.tensors, test_x, heads.activation)
    truth, y = case.test.quality[:, m], case.train.quality[:, m]
    nearest = int(np.abs(np.log(case.train.cost[:, others].mean(axis=0) / case.train.cost[:, m].mean())).argmin())
    found.prior[m] = np.square(quality[:, nearest] - truth).mean()
    alone = worth_sweep(quality, cost / NANO)
    found.area_without[m] = area(case, np.array(others)[alone])[0]
    seen_logit, test_logit = (_logit(predict(heads.tensors, x, heads.activation)[0]) for x in (train_x, test_x))
    keys = np.array(case.train.data.question_keys)
    for i, size in enumerate(found.sizes):
        draws = []
        for rows in _subsets(len(train_x), size, m):
            row = fit_row(
                heads.tensors,
                heads.activation,
                train_x[rows],
                y[rows],
                case.train.cost[rows, m] * NANO,
                keys[rows].tolist(),
            )
            joined = {name: np.concatenate([heads.tensors[name], part[None]]) for name, part in row.tensors.items()}
            both = predict({**heads.tensors, **joined}, test_x, heads.activation)
            folds = grouped_folds(keys[rows].tolist(), FOLDS, 0)
            predicted = {
                ADDED: both[0][:, -1],
                SCRATCH: _scratch(train_x[rows], y[rows], folds, test_x),
                SIMILAR: _similar(seen_logit[rows], y[rows], test_logit),
                KNN: _knn(train_x[rows], y[rows], folds, test_x),
            }
            costs = np.insert(cost, m, both[1][:, -1], axis=1)
            draws.append(
                [
                    (np.square(p - truth).mean(), _area(case, np.insert(quality, m, p, axis=1), costs))
                    for p in predicted.values()
                ]
            )
        for method, (score, covered) in zip(METHODS, np.mean(draws, axis=0), strict=True):
            found.brier[method][i, m], found.areas[method][i, m] = score, covered
    _seen_and_fresh(found, case, m, others, train_x, test_x)


def _seen_and_fresh(found: Curves, case: Case, m: int, others: list[int], train_x: Array, test_x: Array) -> None:
    """Fit heads on one half of the train split; add the new candidate from prompts of that half, and from the other."""
    first = grouped_folds(case.train.data.question_keys, 2, 1) == 0
    heads = fit_columns(case, train_x, others, first)
    for scores, half in ((found.seen, first), (found.fresh, ~first)):
        at = np.flatnonzero(half)
        losses = []
        for part in _subsets(len(at), min(FRESH, len(at)), m):
            rows = at[part]
            keys = [case.train.data.question_keys[r] for r in rows]
            row = fit_row(heads.tensors, heads.activation, train_x[rows], case.train.quality[rows, m], None, keys)
            alone = {name: part[None] for name, part in row.tensors.items()}
            shared = {name: heads.tensors[name] for name in ("trunk",) if name in heads.tensors}
            logits = predict({**alone, **shared, **_no_tokens(test_x.shape[1])}, test_x, heads.activation)[0]
            losses.append(np.square(logits[:, 0] - case.test.quality[:, m]).mean())
        scores[m] = np.mean(losses)


def _no_tokens(dim: int) -> dict[str, npt.NDArray[np.float32]]:
    return {"len_skip": np.zeros((1, dim), np.float32), "len_bias": np.zeros(1, np.float32)}


def fit_columns(case: Case, x: Array, columns: list[int], rows: npt.NDArray[np.bool_] | None) -> FittedHeads:
    part = case.train if rows is None else case.train.take(rows)
    return fit_heads(
        HeadRows(
            x if rows is None else x[rows],
            part.quality[:, columns],
            part.cost[:, columns] * NANO,
            part.data.question_keys,
        ),
        estimator=SHIPPED,
        folds=FOLDS,
    )


def _subsets(rows: int, size: int, m: int) -> list[Indices]:
    if size == rows:
        return [np.arange(rows)]
    return [np.random.default_rng([size, m, draw]).choice(rows, size, replace=False) for draw in range(DRAWS)]


def _area(case: Case, quality: Array, cost_nano: Array) -> float:
    return float(area(case, worth_sweep(quality, cost_nano / NANO))[0])


def _scratch(x: Array, y: Array, folds: Indices, test_x: Array) -> Array:
    fit = fit_ridge(x, y[:, None], folds, penalties=PENALTIES)
    slope, offset = fit_platt(fit.out_of_fold[:, 0], y)
    return sigmoid(slope * (test_x @ fit.weights[0] + fit.bias[0]) + offset)


def _similar(logits: Array, y: Array, test_logits: Array) -> Array:
    maps = [fit_platt(column, y) for column in logits.T]
    scores = [slope * column + offset for (slope, offset), column in zip(maps, logits.T, strict=True)]
    k = int(np.argmin([(np.logaddexp(0, score) - y * score).mean() for score in scores]))
    return sigmoid(maps[k][0] * test_logits[:, k] + maps[k][1])


def _knn(x: Array, y: Array, folds: Indices, test_x: Array) -> Array:
    ks = [k for k in NEIGHBOURS if k <= len(x) // 2] or [1]

    def means(fit: Array, of: Array, at: Array) -> Array:
        near = np.argsort(-(at @ fit.T), axis=1, kind="stable")[:, : max(ks)]  # static embeddings have norm 1
        return np.asarray(np.cumsum(of[near], axis=1)[:, [min(k, len(fit)) - 1 for k in ks]] / np.array(ks))

    held = np.empty((len(x), len(ks)))
    for fold in np.unique(folds):
        out = folds == fold
        held[out] = means(x[~out], y[~out], x[out])
    best = int(np.square(held - y[:, None]).mean(axis=0).argmin())
    return np.asarray(means(x, y, test_x)[:, best])


def _logit(quality: Array) -> Array:
    inside = np.clip(quality, 1e-9, 1 - 1e-9)
    return np.asarray(np.log(inside / (1 - inside)))
