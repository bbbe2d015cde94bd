"""This file reads the outcomes of the candidates of `ipr train` as rows to fit on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, compress
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ipr_engine.bundle.candidates_file import CandidatesFile
from ipr_engine.data import Outcomes, load_outcomes, name_in_source
from ipr_engine.errors import InvalidInputError

Array = npt.NDArray[np.float64]
FEWEST_JUDGED = 20  # prompts a candidate needs: fewer than this leave folds without any


@dataclass(frozen=True)
class TrainingRows:
    """`TrainingRows` are the rows that heads are fitted on; the columns are the candidates asked for, in their order.

    Attributes:
        names: the sources, the first one is home: heads speak of its level (see `fitted_heads.fit_heads`).
        source: (rows,) number of each row's source.
        prompts, prompt_ids, keys: one entry a row.
        quality, output_tokens, input_tokens: (rows, models), NaN where unknown.
        dropped: rows without any judged quality, and leaks (`leaked`).
        leaked: prompts of other sources whose question stands outside the split fitted on, in any source: dropped.
        tasks: what callers say each prompt is for, by the column asked for; None where nothing is said, or no column was named.
    """

    names: tuple[str, ...]
    source: npt.NDArray[np.int64]
    prompts: tuple[str, ...]
    prompt_ids: tuple[str, ...]
    keys: tuple[str, ...]
    quality: Array
    output_tokens: Array
    input_tokens: Array
    dropped: int
    leaked: int
    tasks: tuple[str | None, ...]

    def __len__(self) -> int:
        return len(self.prompts)


def read_training_rows(
    folders: Sequence[Path | str],
    asked: CandidatesFile,
    *,
    split: str | None,
    task_column: str | None = None,
    progress: Callable[[str], None] = lambda message: None,
) -> TrainingRows:
    """Read the split of every folder, and drop rows without a quality and rows that leak.

    Args:
        folders: outcome data (docs/outcome-data.md); the first is home.
        asked: the columns wanted and their names in the outcomes.
        split: the split to fit on; None takes every prompt, and then nothing can leak.
        task_column: one of `data.outcomes.TASK_COLUMNS`; None: no prompt has a task.
    Raises:
        InvalidInputError: a candidate is judged on fewer than 20 prompts, or a folder twice.
    """
    loaded = [load_outcomes(folder) for folder in folders]
    names = tuple(outcomes.source for outcomes in loaded)
    if len(set(names)) < len(names):
        raise InvalidInputError(f"outcomes: expected folders of distinct names, got {', '.join(names)}")
    parts, numbers, leaked = [], [], 0
    for number, outcomes in enumerate(loaded):
        part = outcomes if split is None else outcomes.of_split(split)
        if split is not None and number > 0:
            # A question that any source holds out must not be fitted on in another source.
            before = len(part)
            for other in loaded:
                held_out = np.array([name != split for name in other.splits])
                if held_out.any():
                    part = part.without_questions_of(other.take(held_out))
            leaked += before - len(part)
        parts.append(part)
        numbers.append(np.full(len(part), number, np.int64))
    tables = {
        measure: np.concatenate([_columns(part, asked, measure) for part in parts])
        for measure in ("quality", "output_tokens", "input_tokens")
    }
    judged = ~np.isnan(tables["quality"])
    for measure, fix in (
        ("quality", 'leave it out, or name what the outcomes call it with "source"'),
        ("output_tokens", "record how many tokens its answers had: costs are predicted from them; or leave it out"),
    ):
        counts = (~np.isnan(tables[measure])).sum(axis=0)
        if measure == "output_tokens" and not counts.any():
            raise InvalidInputError(
                f"outcomes: no candidate has output_tokens in {', '.join(names)}: record how many tokens the answers had; costs "
                "of answers to come are predicted from them, and a recorded cost_usd does not stand in"
            )
        for candidate, count in zip(asked.candidates, counts, strict=True):
            if count < FEWEST_JUDGED:
                raise InvalidInputError(
                    f"candidates: {candidate.name!r} has {measure} on {count} prompts of {', '.join(names)}, at least "
                    f"{FEWEST_JUDGED} are needed; {fix}"
                )
    keep = judged.any(axis=1)

    def kept(column: str) -> tuple[str, ...]:
        """Return a column over the parts, in the order of `tables`."""
        return tuple(compress(chain.from_iterable(getattr(part, column) for part in parts), keep.tolist()))

    told = [part.tasks_by(task_column) if task_column is not None else (None,) * len(part) for part in parts]
    if task_column is None and any(part.tasks for part in parts):
        progress("the prompts have a column 'task', which is not read; --task-column task lets heads tell tasks apart")
    progress(
        f"{int(keep.sum())} prompts of {', '.join(names)}, {judged[keep].mean():.0%} of their candidates judged; left out: "
        f"{int((~keep).sum())} without any outcome, {leaked} whose question is held out"
    )
    return TrainingRows(
        names,
        np.concatenate(numbers)[keep],
        kept("prompts"),
        kept("prompt_ids"),
        kept("question_keys"),
        tables["quality"][keep],
        tables["output_tokens"][keep],
        tables["input_tokens"][keep],
        dropped=int((~keep).sum()) + leaked,
        leaked=leaked,
        tasks=tuple(compress(chain.from_iterable(told), keep.tolist())),
    )


def _columns(part: Outcomes, asked: CandidatesFile, measure: str) -> Array:
    """Return one measure as (rows, candidates), with NaN columns for candidates this source does not have."""
    table = getattr(part, measure)
    result = np.full((len(part), len(asked.candidates)), np.nan)
    for column, candidate in enumerate(asked.candidates):
        name = name_in_source(asked.named, candidate.name, part.source)
        if name in part.models:
            result[:, column] = table[:, part.models.index(name)]
    return result
