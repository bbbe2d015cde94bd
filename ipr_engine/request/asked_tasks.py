"""This file reads the argument `task` of one call: what its prompts are for, as the caller knows it."""

from __future__ import annotations

from collections.abc import Container

from ipr_engine._validate import lone_surrogate, shown, shown_safely
from ipr_engine.bundle.task_names import AskedTask, task_problem
from ipr_engine.errors import InvalidInputError
from ipr_engine.prompts import kind_of


def asked_tasks(task: object, batch: int, known: Container[str]) -> tuple[AskedTask | None, ...] | None:
    """Return the task of each prompt; None where none is given.

    Args:
        task: a name for all, a list of names, one a prompt (None: nothing is said of it), or None.
        known: the tasks that the heads which decide tell apart.
    Raises:
        InvalidInputError: it is none of these, or a name is no text of 1 to 200 characters.
    """
    if task is None:
        return None
    if isinstance(task, (list, tuple)):
        if len(task) != batch:
            raise InvalidInputError(f"task: expected one a prompt, {batch} in all, got {len(task)}")
        return tuple(asked_task(name, f"task[{row}]", known) for row, name in enumerate(task))
    return (asked_task(task, "task", known),) * batch


def asked_task(name: object, where: str, known: Container[str]) -> AskedTask | None:
    """Return the task of one prompt, as `asked_tasks`. where: what errors call it."""
    if type(name) is str and name in known:  # its name was checked when the bundle was read
        return AskedTask(name, True)
    if name is None:
        return None
    problem = task_problem(name)
    if problem is not None:
        raise InvalidInputError(f"{where}: expected {problem}, or None, got {_told(name)}")
    return AskedTask(str(name), name in known)


def _told(name: object) -> str:
    """Return what is no task for an error: a text is not shown, since it may be a prompt."""
    if not isinstance(name, str):
        return kind_of(name)
    if not name.strip():
        return shown(name)
    return "one with a lone surrogate" if lone_surrogate(name) is not None else shown_safely(name)
