"""`TableRows` reads tables of prompts: JSONL, CSV or Parquet with a prompt, or messages, a row.

Columns: `prompt` (a text) or `messages` (a list; in CSV its JSON), and, where there are any, `prompt_id`, `system`, `tools`,
`tool_choice`, `response_format`, `reference`, `grader`, `dataset`, `split`, `question_key`, `task` and `<model>|label`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from ipr_engine._validate import shown_each
from ipr_engine.collection.sources.asked_row import AskedRow, SourceReport, UnaskableError
from ipr_engine.collection.sources.owner_labels import to_quality
from ipr_engine.collection.sources.prompt_source import PromptSource
from ipr_engine.collection.sources.strict_json import maybe_json
from ipr_engine.data.tables import shown_cell
from ipr_engine.errors import InvalidInputError
from ipr_engine.prompts import kind_of

_TEXTS = ("prompt_id", "grader", "dataset", "split", "question_key")
_REQUEST = ("tools", "tool_choice", "response_format")
COLUMNS = ("prompt", "messages", "system", *_REQUEST, "reference", *_TEXTS, "task")
LABEL = "|label"
_MOST_NAMED = 16  # columns that are not read, in a report


class TableRows:
    """A `TableRows` reads the rows of one source."""

    def __init__(self, source: PromptSource, report: SourceReport) -> None:
        """Begin.

        Raises:
            InvalidInputError: `columns` names something that tables do not have, or one column twice.
        """
        for ours in source.columns:
            if ours not in COLUMNS and not (ours.endswith(LABEL) and len(ours) > len(LABEL)):
                known = f"{', '.join(COLUMNS)}, <model>{LABEL}"
                raise InvalidInputError(f"columns: {shown_cell(ours)} is no column of ours; known: {known}")
        if len(set(source.columns.values())) < len(source.columns):
            raise InvalidInputError("columns: expected one name of ours for each column")
        self._source = source
        self._report = report
        self._ours = {theirs: ours for ours, theirs in source.columns.items()}
        self._unread: set[str] = set()

    def rows(self, record: Mapping[str, Any], offset: int | None) -> Iterator[AskedRow]:
        """Yield the one prompt of a row.

        Raises:
            UnaskableError: names the column.
        """
        row = self._named(record)
        messages, prompt = row.get("messages"), row.get("prompt")
        if (messages is None) == (prompt is None):
            got = "neither" if prompt is None else "both"
            raise UnaskableError(
                f"expected a value in column 'prompt' or in column 'messages', got {got}{self._advice()}"
            )
        request: dict[str, Any]
        if prompt is not None:
            request = {"messages": [{"role": "user", "content": _text(prompt, "prompt")}]}
        else:
            request = {"messages": _json(messages, "messages")}
        if "system" in row:
            first = {"role": "system", "content": _text(row["system"], "system")}
            if not isinstance(request["messages"], list):
                raise UnaskableError(f"column 'messages': expected a list, got {kind_of(request['messages'])}")
            request["messages"] = [first, *request["messages"]]
        request |= {name: _json(row[name], name) for name in _REQUEST if name in row}
        texts: dict[str, Any] = {name: _text(row[name], name) for name in _TEXTS if name in row}
        labels: dict[str, float] = {}
        for name, value in row.items():
            if name.endswith(LABEL) and len(name) > len(LABEL):
                model = name.removesuffix(LABEL)
                labels[self._source.models.get(model, model)] = to_quality(
                    value, self._source.scale, f"column {shown_cell(name)}"
                )
        reference = _reference(row.get("reference"))
        yield AskedRow(request=request, reference=reference, labels=labels, task=row.get("task"), **texts)

    def end(self) -> Iterator[AskedRow]:
        """Tell which columns were not read."""
        if self._unread:
            self._report.note(f"columns that are not read: {shown_each(sorted(self._unread)[:_MOST_NAMED])}")
        return iter(())

    def _named(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Return the cells that hold something, under our names."""
        row = {}
        for theirs, value in record.items():
            ours = self._ours.get(theirs, theirs)
            if theirs not in self._ours and ours in self._source.columns:
                raise UnaskableError(f"column {shown_cell(ours)} is there, and columns gives another one for it")
            if value is None:
                continue
            if ours in COLUMNS or ours.endswith(LABEL):
                row[ours] = value
            elif len(self._unread) <= _MOST_NAMED:
                self._unread.add(theirs if len(theirs.split()) <= 1 else shown_cell(theirs))
        return row

    def _advice(self) -> str:
        return "" if self._source.columns else "; columns of other names are given as columns: {prompt: THEIRS}"


def _text(value: Any, column: str) -> str:
    """Return a cell as text; whole numbers count as text."""
    if type(value) is int:
        return str(value)
    if not isinstance(value, str):
        raise UnaskableError(f"column {column!r}: expected text, got {kind_of(value)}")
    return value


def _json(value: Any, column: str) -> Any:
    """Return a cell that may be JSON text as what it holds."""
    return maybe_json(value, f"JSON in column {column!r}")


def _reference(value: Any) -> Any:
    """Return a reference, which JSON can hold."""
    problem = ""
    try:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        problem = "Unicode text, it holds a lone surrogate"
    except (TypeError, ValueError, RecursionError):
        problem = "what JSON can hold, got a number that is not finite, a date, bytes or the like"
    if problem:
        raise UnaskableError(f"column 'reference': expected {problem}")
    return value
