"""A `TaskColumns` holds a column of x for each task; a prompt's text does not tell its task, so whoever knows it marks the column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from ipr_engine.bundle import task_identity
from ipr_engine.bundle.task_names import MOST_TASKS, AskedTask, task_problem
from ipr_engine.encoders.base import Encoded, Encoder, as_prompt_list
from ipr_engine.errors import InvalidInputError


@runtime_checkable
class HasTasks(Protocol):
    """A `HasTasks` is an encoder with columns of tasks in its x: task -> its column."""

    @property
    def task_columns(self) -> Mapping[str, int]: ...


class TaskColumns:
    """A `TaskColumns` gives each prompt a column of 0 for each task that heads tell apart; `mark_tasks` writes a 1 where one is known.

    It reads no text and has no bill: it stands beside an encoder that counts tokens, behind every embedding. Immutable.

    Attributes:
        names: of the tasks, in the order of their columns; dim: how many.
        max_tokens: 0: no token is read. identity: see `ipr_engine.bundle.task_identity`.
        native: None: it does not encode a prompt alone. tier: None.
    """

    native = None
    tier = None
    max_tokens = 0

    def __init__(self, names: Sequence[str]) -> None:
        """Take the names; InvalidInputError where they are not 1 to 256 different texts of 1 to 200 characters."""
        problem = next((problem for name in names if (problem := task_problem(name)) is not None), None)
        if problem is not None:
            raise InvalidInputError(f"tasks: expected each to be {problem}, got another")
        if not 1 <= len(names) <= MOST_TASKS or len(set(names)) < len(names):
            raise InvalidInputError(
                f"tasks: expected 1 to {MOST_TASKS} different names, got {len(names)}, {len(set(names))} of them different"
            )
        self.names = tuple(names)
        self.dim = len(self.names)
        self.identity = task_identity(self.names)

    @property
    def summary(self) -> str:
        """How many tasks."""
        return f"{self.dim} tasks"

    def encode(self, prompts: Sequence[str]) -> Encoded:
        """Return columns of 0; see `Encoder.encode`. Bills are 0: the encoder that it stands beside has them."""
        batch = len(as_prompt_list(prompts))
        return Encoded(np.zeros((batch, self.dim), np.float32), np.zeros(batch, np.int64), np.zeros(batch, np.bool_))

    def count_tokens(self, text: str) -> int:
        """Raise InvalidInputError: tasks are of no tokenizer."""
        raise InvalidInputError(
            "tasks count no tokens; put them behind an encoder that does: ConcatenatedEncoder([encoder, tasks])"
        )

    def __repr__(self) -> str:
        return f"TaskColumns({self.dim} names, identity={self.identity[:12]}...)"


def columns_of(encoder: Encoder) -> Mapping[str, int]:
    """Return task -> its column in the x of an encoder that was made here; empty where it has none."""
    return encoder.task_columns if isinstance(encoder, HasTasks) else {}


def with_tasks(columns: Mapping[str, int], encoded: Encoded, tasks: Sequence[AskedTask | None]) -> Encoded:
    """Return what an encoder made of prompts that are for these tasks. columns: task -> its column in x."""
    names = [None if task is None else task.name for task in tasks]
    return replace(encoded, x=mark_tasks(columns, encoded.x, names), tasks=tuple(tasks))


def mark_tasks(
    columns: Mapping[str, int], x: npt.NDArray[np.float32], tasks: Sequence[str | None]
) -> npt.NDArray[np.float32]:
    """Return x (batch, dim) with a 1 in the column of each row's task, and 0 in those of others.

    A row whose task is None, or has no column, has 0 in all of them. x itself comes back where there are no columns.
    columns: task -> its column, one after the other.
    """
    if not columns:
        return x
    marked = np.array(x)
    places = slice(min(columns.values()), max(columns.values()) + 1)
    marked[:, places] = np.where(np.isnan(x[:, :1]), np.float32("nan"), np.float32(0))
    for row, task in enumerate(tasks):
        column = None if task is None else columns.get(task)
        if column is not None and marked[row, column] == 0:  # a prompt that could not be encoded stays without numbers
            marked[row, column] = 1
    return marked
