"""`impute_quality` says how well a new candidate would have done on prompts that it was not asked, from how others did there.

Candidates fail on much the same prompts. Some answers locate the newcomer among the others:

    logit = b + s * (mean quality of the others) + sum over k of d[k] * (quality k - mean) + w . z

where z are the leading directions of the embeddings, and the prior is Gaussian: s ~ N(4, 1), d ~ N(0, 0.5^2), w ~ N(0, 0.15^2), b
free. The others' outcomes on the rest of the table then say what the newcomer would have scored there, and its row is fitted on the
whole table in place of a few prompts (`fit_on_table`; docs/studies/chosen_prompts.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ipr_engine.bundle import Bundle
from ipr_engine.data import Outcomes
from ipr_engine.errors import InvalidInputError
from ipr_engine.measures.resampling import grouped_folds
from ipr_engine.training.add.candidate_row import (
    CandidateRow,
    ImputedQuality,
    fit_row,
    most_probable,
    platt_targets,
)
from ipr_engine.training.add.frozen_logits import Tensors
from ipr_engine.training.add.interface import old_quality
from ipr_engine.training.fitted_heads import predict
from ipr_engine.training.platt import sigmoid

Array = npt.NDArray[np.float64]

LEVEL_SHARE, LEVEL_WIDTH = 4.0, 1.0  # prior mean and standard deviation of s
OTHERS_WIDTH = 0.5  # of each d
MOST_PROMPTS = 1000  # of a table, those judged first: more tell little more of a newcomer, and a fit takes longer
FOLDS = 5
COVERED = 0.5  # of the prompts that are not judged: an old candidate with fewer outcomes there says little of them
TOLD_APART = 2.0  # standard errors of a mean difference
DIRECTIONS, DIRECTION_WIDTH = 16, 0.15  # of z, each scaled to a standard deviation of about 1


def impute_quality(x: Array, quality: Array, others: Array, folds: npt.NDArray[np.int64]) -> ImputedQuality:
    """Impute the quality of a candidate where it is not judged.

    Args:
        x: (rows, dim) embeddings. quality: (rows,) in [0, 1], NaN where not judged.
        others: (rows, K) realised quality of other candidates, in [0, 1]. folds: (rows,) fold numbers.
    Raises:
        InvalidInputError: shapes disagree, a value is out of range, or a fold holds every judged row.
    """
    if x.ndim != 2 or others.ndim != 2 or not others.size or not len(x) == len(quality) == len(others) == len(folds):
        raise InvalidInputError(
            f"x, quality, others, folds: expected equal rows and some others, got {x.shape}, {quality.shape}, {others.shape} and "
            f"{folds.shape}"
        )
    if not np.isfinite(x).all() or not ((others >= 0) & (others <= 1)).all() or ((quality < 0) | (quality > 1)).any():
        raise InvalidInputError("x, quality, others: expected finite x, and qualities in [0, 1]")
    judged = ~np.isnan(quality)
    level = others.mean(axis=1, keepdims=True)
    columns = np.concatenate([level, others - level, _directions(x)], axis=1)
    directions = columns.shape[1] - 1 - others.shape[1]
    prior = np.zeros(columns.shape[1])
    prior[0] = LEVEL_SHARE
    widths = np.repeat([LEVEL_WIDTH, OTHERS_WIDTH, DIRECTION_WIDTH], [1, others.shape[1], directions])

    def imputed(rows: npt.NDArray[np.bool_]) -> Array:
        if not rows.any():
            raise InvalidInputError("folds: expected judged rows in more than one fold")
        weights, bias = most_probable(
            columns[rows], platt_targets(quality[rows]), prior, 1 / np.square(widths), None, prior, 0.0
        )
        return np.where(rows, quality, sigmoid(columns @ weights + bias))

    unseen = np.stack([imputed(judged & (folds != fold)) for fold in range(int(folds.max()) + 1)])
    return ImputedQuality(judged, imputed(judged), unseen)


def rows_to_impute(quality: Array, *, seed: int = 0) -> npt.NDArray[np.int64]:
    """Return rising rows of a table to impute on: where `quality` (rows,) is judged, and others, `MOST_PROMPTS` in all if there are."""
    judged = ~np.isnan(quality)
    rest = np.random.default_rng(seed).permutation(np.flatnonzero(~judged))
    return np.sort(np.concatenate([np.flatnonzero(judged), rest[: max(0, MOST_PROMPTS - int(judged.sum()))]]))


def _directions(x: Array) -> Array:
    """Return x (rows, dim) along its leading directions, scaled by the root mean square of all of them."""
    centred = x - x.mean(axis=0)
    vectors = np.linalg.eigh(centred.T @ centred)[1][:, ::-1][:, :DIRECTIONS]  # eigh sorts by rising eigenvalue
    along = centred @ vectors
    return np.asarray(along / max(float(along.std()), 1e-12))


def imputed_row(
    tensors: Tensors,
    activation: str,
    x: Array,
    quality: Array,
    others: Array,
    tokens: Array | None,
    keys: Sequence[str],
    *,
    seed: int,
) -> CandidateRow:
    """Impute a candidate's quality and fit its row on it.

    Its `out_of_fold_quality` is of the judged rows alone, each by answers of other folds.

    Args:
        quality, others: as for `impute_quality`. tensors, activation, x, tokens, keys: as for `fit_row`.
    Raises:
        InvalidInputError: an argument is not as these two expect it.
    """
    imputed = impute_quality(x, quality, others, grouped_folds(keys, FOLDS, seed))
    row = fit_row(tensors, activation, x, imputed, tokens, keys, folds=FOLDS, seed=seed)
    return replace(row, out_of_fold_quality=row.out_of_fold_quality[imputed.judged])


def own_tells_more(own: Array, imputed: Array, quality: Array) -> bool:
    """Return whether a row of the candidate's own outcomes predicts them better than one of imputed outcomes, told apart from chance.

    Others' outcomes may say little of a newcomer that x says much of.

    Args:
        own, imputed: (rows,) each row's predictions out of fold. quality: (rows,) the outcomes, in [0, 1].
    """
    worse = np.square(imputed - quality) - np.square(own - quality)
    return bool(worse.mean() > TOLD_APART * worse.std(ddof=1) / np.sqrt(len(worse)))


@dataclass(frozen=True)
class TableFit:
    """A `TableFit` is a row fitted on a table.

    Attributes:
        row: its out_of_fold_quality is of the judged prompts alone, each by answers of other folds.
        rows: the prompts that it was fitted on, judged ones and others.
        imputed: how many of them are not judged.
    """

    row: CandidateRow
    rows: Outcomes
    imputed: int


def fit_on_table(
    base: Bundle,
    part: Outcomes,
    called: str,
    embed: Callable[[Outcomes], Array],
    *,
    with_tokens: bool,
    seed: int,
) -> TableFit | None:
    """Fit the row of the candidate that `part` calls `called`, with its quality imputed where old candidates are judged and it is not.

    Args:
        part: every prompt of the split. embed: rows -> x (rows, dim). with_tokens: whether output tokens are fitted.
    Returns:
        None where the table has fewer such prompts than those on which the candidate is judged: then these say more.
    """
    column = part.models.index(called)
    judged = ~np.isnan(part.quality[:, column])
    outcome = old_quality(part, base)
    told = ~np.isnan(outcome)
    # (models,): who has outcomes where the newcomer has none
    columns = np.flatnonzero(told[~judged].mean(axis=0) >= COVERED) if not judged.all() else np.zeros(0, np.int64)
    usable = judged | (told[:, columns].mean(axis=1) >= COVERED if len(columns) else False)
    if int(usable.sum()) < 2 * int(judged.sum()):
        return None
    at = np.flatnonzero(usable)
    rows = part.take(at[rows_to_impute(part.quality[at, column], seed=seed)])
    x, heads = embed(rows), base.quality_heads
    others = old_quality(rows, base)[:, columns]
    # An outcome that is missing is as likely as its head says.
    others = np.where(np.isnan(others), predict(heads.tensors, x, heads.activation)[0][:, columns], others)
    quality, tokens = rows.quality[:, column], rows.output_tokens[:, column]
    known = ~np.isnan(quality)
    spent = np.where(known, tokens, np.nan) if with_tokens else None
    row = imputed_row(heads.tensors, heads.activation, x, quality, others, spent, rows.question_keys, seed=seed)
    return TableFit(row, rows, int(len(rows) - known.sum()))
