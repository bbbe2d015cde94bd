"""This file says what a task may be called: the app, template or endpoint that a prompt comes from, as its caller knows it."""

from __future__ import annotations

from typing import NamedTuple

from ipr_engine._validate import lone_surrogate

MOST_TASKS = 256  # of an encoder: each is a column of x
LONGEST_TASK = 200  # characters


class AskedTask(NamedTuple):
    """An `AskedTask` is the task that a caller says a prompt is for. known: whether the heads that decide tell it apart."""

    name: str
    known: bool


def task_problem(name: object) -> str | None:
    """Return what a task's name should have been; None where it is one: any Unicode text of 1 to 200 characters, not blank."""
    if isinstance(name, str) and name.strip() and len(name) <= LONGEST_TASK and lone_surrogate(name) is None:
        return None
    return f"a text of 1 to {LONGEST_TASK} characters that is not blank"
