"""`stated_task` says what a row's prompt is for, as its caller told it: in a column, beside a logged call, or in the request itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ipr_engine.bundle.task_names import task_problem
from ipr_engine.collection.sources.asked_row import AskedRow, SourceReport
from ipr_engine.collection.sources.strict_json import json_or_text
from ipr_engine.request.controls import TASK_OF_METADATA


def stated_task(row: AskedRow, report: SourceReport) -> str | None:
    """Return the task of a row: what its reader found, else what its request says; None where there is none.

    A prompt is not refused for what stands there in place of a name: that is no task, and counted in the report.
    """
    task = _of_request(row.request) if row.task in (None, "") else row.task
    if type(task) is int:
        task = str(task)
    if task in (None, ""):
        return None
    problem = task_problem(task)
    if problem is not None:
        report.note(f"tasks that are not {problem}, taken for none")
        return None
    return str(task)


def task_of_metadata(metadata: Any) -> Any:
    """Return the task that metadata states, as `ipr_task` or as the control `ipr: {task}`; None where it states none."""
    told = json_or_text(metadata)
    if not isinstance(told, Mapping):
        return None
    plain = told.get(TASK_OF_METADATA)
    return _of_controls(told.get("ipr")) if plain is None else plain


def _of_request(request: Mapping[str, Any]) -> Any:
    own = _of_controls(request.get("ipr"))
    return task_of_metadata(request.get("metadata")) if own is None else own


def _of_controls(said: Any) -> Any:
    """Return the task of controls: an object, or its JSON as a text."""
    controls = json_or_text(said)
    return controls.get("task") if isinstance(controls, Mapping) else None
