"""This file says what the prompts of outcome data are for, as the heads of a bundle were fitted to tell."""

from __future__ import annotations

from collections.abc import Callable

from ipr_engine.bundle import BundleSpec
from ipr_engine.bundle.origin import task_column
from ipr_engine.data.outcomes import Outcomes


def task_rows(
    bundle: BundleSpec, outcomes: Outcomes, progress: Callable[[str], None] = lambda message: None
) -> tuple[str | None, ...]:
    """Return the task of each row, by the column that the fit read; None where it is missing, and of a bundle without tasks.

    progress: is told where the source has no such column: its prompts are then decided without a task.

    Raises:
        InvalidInputError: the column holds what no task may be called.
    """
    column, nothing = task_column(bundle), (None,) * len(outcomes)
    if column is None:
        return nothing
    if len(outcomes) and not outcomes.tells_tasks(column):
        progress(f"{outcomes.source}: no prompt has a {column!r}, so all are decided without a task")
        return nothing
    return outcomes.tasks_by(column)
