"""`read_questions` reads sources of prompts: what stands there twice is one question, and nothing is yielded before every row was checked.

The sources are read twice, and a third time where a prompt stands in them more than once. What is held meanwhile is a hash a prompt, the
ids that were given, and of prompts that stand there more than once all that is known, from their first row to their last.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from ipr_engine._read_only import read_only
from ipr_engine._validate import lone_surrogate
from ipr_engine.collection.question import LoggedAnswer, Question
from ipr_engine.collection.sources.asked_row import AskedRow, SourceReport, UnaskableError
from ipr_engine.collection.sources.chat_body import ChatBody, chat_body
from ipr_engine.collection.sources.ordered_sources import OpenSource, Placed, open_sources, placed_rows
from ipr_engine.collection.sources.prompt_source import PromptsArgument, PromptsGiven, PromptSource, prompt_sources
from ipr_engine.collection.sources.stated_task import stated_task
from ipr_engine.data.tables import BadRows, shown_cell
from ipr_engine.errors import InvalidInputError

_FIELDS = ("prompt_id", "reference", "grader", "dataset", "split", "question_key")
_TEXTS = ("prompt_id", "grader", "dataset", "split", "question_key")
_SEVERAL_TASKS = "prompts that are asked for another task as well, of which the first is taken"
_SKIP = "; skip_bad_rows: true at their source leaves them out and counts them"


def read_questions(
    prompts: PromptsArgument,
    *,
    folder: str | os.PathLike[str] | None = None,
    report: SourceReport | None = None,
) -> Iterator[Question]:
    """Return the questions of one source or several, in the order of their first rows.

    Args:
        prompts: a path, a source or several, as `prompts:` of a plan states them.
        folder: the one that relative paths are taken from; None is the current one.
        report: takes what was passed over, and bad rows that were left out.
    Raises:
        InvalidInputError: a source cannot be read, rows are bad and their source does not say to skip them, or there is no prompt.
            Ten bad rows are told by file, row and reason, the others counted; nothing tells the text of a prompt.
        KeyMismatchError: a record of ours was sealed under another key.
        BackendUnavailableError: a package is missing, for Parquet or for sealed records.
    """
    report = SourceReport() if report is None else report
    opened = open_sources(prompt_sources(prompts, folder))
    scan = _scan(opened, report)
    return _questions(opened, scan)


class AsksPrompts(Protocol):
    """An `AsksPrompts` is a plan, or what else states prompts. folder: the one that relative paths are taken from."""

    @property
    def prompts(self) -> PromptsGiven: ...

    @property
    def folder(self) -> Path: ...


def read_prompts(plan: AsksPrompts, report: SourceReport | None = None) -> Iterator[Question]:
    """Return the questions of a plan, as `read_questions` does, which tells the arguments and errors."""
    return read_questions(plan.prompts, folder=plan.folder, report=report)


class _Asked(NamedTuple):
    """An `_Asked` is a good row: its number among all rows, where it stands, and what it asks."""

    number: int
    placed: Placed
    row: AskedRow
    chat: ChatBody


@dataclass
class _Scan:
    """A `_Scan` is what one reading of all rows tells.

    Attributes:
        first: hash of a body -> the number of its first row.
        count: of bodies that stand in more than one row, how many rows.
        left_out: numbers of rows that are bad, or contradict another one.
        records: of each file, how many were read.
    """

    first: dict[bytes, int] = field(default_factory=dict)
    count: dict[bytes, int] = field(default_factory=dict)
    left_out: set[int] = field(default_factory=set)
    records: dict[Path, int] = field(default_factory=dict)


def _scan(opened: Sequence[OpenSource], report: SourceReport) -> _Scan:
    """Read every row once; refuse bad ones, or count them in the report."""
    scan, refused = _Scan(), BadRows()
    ids: dict[str, int] = {}  # given id -> the number of the first row of its body
    clashes: list[tuple[Placed, str, int]] = []  # a row, what is wrong with it, the row that it contradicts

    def wrong(placed: Placed, reason: str) -> None:
        bad = report.bad if opened[placed.source].source.skip_bad_rows else refused
        bad.add(placed.where, f": {reason}")

    for one in _asked_rows(opened, report, wrong, scan):
        row, chat = one.row, one.chat
        number = scan.first.get(chat.digest, one.number)
        if row.prompt_id is not None and ids.setdefault(row.prompt_id, number) != number:
            scan.left_out.add(one.number)
            reason = f"prompt_id: {shown_cell(row.prompt_id)} is that of another prompt, in"
            clashes.append((one.placed, reason, ids[row.prompt_id]))
            continue
        report.rows += 1
        for name in chat.left_out:
            report.note(f"requests with {name}, which is left out")
        if number == one.number:
            scan.first[chat.digest] = number
        else:
            scan.count[chat.digest] = scan.count.get(chat.digest, 1) + 1
    if scan.count:
        clashes += _contradictions(opened, scan, report)
    places = _places(opened, scan, {number for _, _, number in clashes})
    for placed, reason, number in clashes:
        wrong(placed, f"{reason} {places[number]}")
    refused.refuse(_SKIP)
    report.questions = len(scan.first)
    if not scan.first:
        paths = ", ".join(one.source.path for one in opened)
        raise InvalidInputError("; ".join([f"prompts: no prompt is in {paths}", *report.lines]))
    return scan


def _contradictions(opened: Sequence[OpenSource], scan: _Scan, report: SourceReport) -> list[tuple[Placed, str, int]]:
    """Return the rows that say of one prompt what another row does not; they are left out."""
    merged: dict[bytes, _Merged] = {}
    found = []
    for one in _again(opened, scan):
        if one.chat.digest in scan.count:
            known = merged.setdefault(one.chat.digest, _Merged())
            said = _of_source(one.row, opened[one.placed.source].source)
            if known.is_for_another(said["task"]):
                report.note(_SEVERAL_TASKS)
            clash = known.add(said, one.number, answers=False)
            if clash is not None:
                found.append((one.placed, clash[0], clash[1]))
                scan.left_out.add(one.number)
                scan.count[one.chat.digest] -= 1
                report.rows -= 1
    return found


def _questions(opened: Sequence[OpenSource], scan: _Scan) -> Iterator[Question]:
    """Yield the questions, each when its last row was read."""
    held: dict[bytes, _Merged] = {}
    for one in _again(opened, scan):
        digest = one.chat.digest
        rest = scan.count.get(digest, 1) - 1
        known = held.pop(digest, None) or _Merged()
        known.add(_of_source(one.row, opened[one.placed.source].source), one.number, answers=True)
        if rest:
            scan.count[digest] = rest
            held[digest] = known
        else:
            scan.count.pop(digest, None)
            yield known.question(one.chat)


def _asked_rows(opened: Sequence[OpenSource], report: SourceReport, wrong: Any, scan: _Scan) -> Iterator[_Asked]:
    """Yield the good rows but those that are left out; `wrong` is told of each bad one, with the reason, and it is left out."""
    for number, placed in enumerate(placed_rows(opened, report, scan.records)):
        row = placed.row
        if number in scan.left_out:
            continue
        if isinstance(row, UnaskableError):
            scan.left_out.add(number)
            wrong(placed, str(row))
            continue
        try:
            _require_unicode(row)
            chat = chat_body(row.request)
        except UnaskableError as error:
            scan.left_out.add(number)
            wrong(placed, str(error))
            continue
        yield _Asked(number, placed, replace(row, task=stated_task(row, report)), chat)


def _again(opened: Sequence[OpenSource], scan: _Scan) -> Iterator[_Asked]:
    """Yield the good rows that the scan has seen: a log may have grown meanwhile.

    Raises:
        InvalidInputError: a row is another one now.
    """
    for one in _asked_rows(opened, SourceReport(), _changed, scan):
        if one.chat.digest not in scan.first:
            _changed(one.placed, "")
        yield one


def _changed(placed: Placed, reason: str) -> None:
    raise InvalidInputError(f"{placed.where}: the file was changed while it was read; read it again")


def _places(opened: Sequence[OpenSource], scan: _Scan, numbers: set[int]) -> dict[int, str]:
    """Return where the rows of these numbers stand."""
    if not numbers:
        return {}
    rows = enumerate(placed_rows(opened, SourceReport(), scan.records))
    return {number: placed.where for number, placed in rows if number in numbers}


def _of_source(row: AskedRow, source: PromptSource) -> dict[str, Any]:
    """Return what a row states, and its source where the row does not."""
    stated = {name: getattr(row, name) for name in (*_FIELDS, "task")}
    for name, value in (("dataset", source.dataset), ("split", source.split), ("task", source.task)):
        stated[name] = value if stated[name] is None else stated[name]
    return {**stated, "labels": row.labels, "answers": row.answers}


def _require_unicode(row: AskedRow) -> None:
    for name in _TEXTS:
        value = getattr(row, name)
        if value is not None and lone_surrogate(value) is not None:
            raise UnaskableError(f"{name}: expected Unicode text, it holds a lone surrogate")
    for model in (*row.labels, *row.answers):
        if lone_surrogate(model) is not None:
            raise UnaskableError("model: expected Unicode text, its name holds a lone surrogate")


class _Merged:
    """A `_Merged` is what all rows of one prompt say of it."""

    __slots__ = ("_answers", "_from", "_labels", "_stated")

    def __init__(self) -> None:
        self._stated: dict[str, Any] = {}
        self._labels: dict[str, float] = {}
        self._answers: dict[str, LoggedAnswer] = {}
        self._from: dict[str, int] = {}  # what is stated -> the row that says so

    def add(self, said: dict[str, Any], number: int, *, answers: bool) -> tuple[str, int] | None:
        """Add what a row says; return what contradicts an earlier row, and its number, in which case nothing of the row is added."""
        labels = said["labels"]
        for name in _FIELDS:
            value = said[name]
            if value is not None and self._stated.get(name, value) != value:
                return f"{name}: another one is stated for the same prompt in", self._from[name]
        for model, label in labels.items():
            if self._labels.get(model, label) != label:
                return f"label of {shown_cell(model)}: another one is given for the same prompt in", self._from[
                    f"|{model}"
                ]
        for name in (*_FIELDS, "task"):
            if said[name] is not None and name not in self._stated:
                self._stated[name], self._from[name] = said[name], number
        for model, answer in said["answers"].items() if answers else ():
            # the first answer stays, but for one that brings the label of its own
            if model not in self._answers or (model in labels and model not in self._labels):
                self._answers[model] = answer
        for model, label in labels.items():
            if model not in self._labels:
                self._labels[model], self._from[f"|{model}"] = label, number
        return None

    def is_for_another(self, task: str | None) -> bool:
        """Whether an earlier row says that the prompt is for another task. That is no contradiction: two apps may ask one thing."""
        return task is not None and self._stated.get("task", task) != task

    def question(self, chat: ChatBody) -> Question:
        stated = {name: value for name, value in self._stated.items() if name != "prompt_id"}
        return Question(
            prompt_id=self._stated.get("prompt_id") or chat.digest.hex(),
            prompt=chat.encoded,
            body=chat.body,
            labels=read_only(self._labels),
            answers=read_only(self._answers),
            **stated,
        )
