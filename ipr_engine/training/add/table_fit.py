"""`fit_on_table` fits a new candidate's row on a whole outcome table, where it is judged on a small part of it (`imputed_quality`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ipr_engine.bundle import Bundle
from ipr_engine.data import Outcomes
from ipr_engine.measures.resampling import grouped_folds
from ipr_engine.training.add.candidate_row import CandidateRow, fit_row
from ipr_engine.training.add.imputed_quality import impute_quality, rows_to_impute
from ipr_engine.training.add.interface import old_quality
from ipr_engine.training.fitted_heads import predict

Array = npt.NDArray[np.float64]

FOLDS = 5
COVERED = 0.5  # of the prompts that are not judged: an old candidate with fewer outcomes there says little of them


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
    embed: Callable[[Sequence[str]], Array],
    *,
    with_tokens: bool,
    seed: int,
) -> TableFit | None:
    """Fit the row of the candidate that `part` calls `called`, with its quality imputed where old candidates are judged and it is not.

    Args:
        part: every prompt of the split. embed: prompts -> x (rows, dim). with_tokens: whether output tokens are fitted.
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
    x, heads = embed(rows.prompts), base.quality_heads
    others = old_quality(rows, base)[:, columns]
    # An outcome that is missing is as likely as its head says.
    others = np.where(np.isnan(others), predict(heads.tensors, x, heads.activation)[0][:, columns], others)
    quality, tokens = rows.quality[:, column], rows.output_tokens[:, column]
    known = ~np.isnan(quality)
    imputed = impute_quality(x, quality, others, grouped_folds(rows.question_keys, FOLDS, seed))
    row = fit_row(
        heads.tensors,
        heads.activation,
        x,
        imputed,
        np.where(known, tokens, np.nan) if with_tokens else None,
        rows.question_keys,
        folds=FOLDS,
        seed=seed,
    )
    return TableFit(
        replace(row, out_of_fold_quality=row.out_of_fold_quality[known]), rows, int(len(rows) - known.sum())
    )
