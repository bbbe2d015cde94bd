"""These functions read the answers of a ledger that a grader grades, and note its grades."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from ipr_engine.collection.collection_plan import CollectionPlan
from ipr_engine.collection.gradable import Gradable
from ipr_engine.collection.ledger import PAGE, Ledger, grade_key
from ipr_engine.grading.grade import AnswerToGrade, Grade

_ANSWERS = """
SELECT question.id, cell.candidate, cell.sample, answer.key, answer.text, answer.finish_reason, question.prompt, question.body,
    question.reference
FROM question JOIN cell ON cell.question = question.id JOIN answer ON answer.key = cell.key
WHERE question.id IN ({marks}) ORDER BY question.id, cell.candidate, cell.sample
"""


def pages_of_gradable(
    ledger: Ledger, plan: CollectionPlan, run: int, grader: str, only: Collection[int] | None = None
) -> Iterator[list[Gradable]]:
    """Yield the answers that a grader of the plan grades, graded or not, those of some prompts together.

    only: numbers of the prompts that are looked at; None: all.
    """
    first, names, last = next(iter(plan.graders), ""), {one.name for one in plan.asked}, -1
    while True:
        ids = ledger.do(lambda of, last=last: _questions(of, run, (first, grader), last, only))  # type: ignore[misc]
        if not ids:
            return
        last = ids[-1]
        rows = ledger.do(lambda of, ids=ids: of.execute(_ANSWERS.format(marks=_marks(ids)), ids).fetchall())  # type: ignore[misc]
        bodies: dict[int, Any] = {}
        page = []
        for question, candidate, sample, key, text, finish, prompt, body, reference in rows:
            if candidate in names and sample < plan.samples and plan.counts_as_outcome(finish):
                answer = AnswerToGrade(
                    prompt=prompt,
                    body=bodies.setdefault(question, json.loads(body)),
                    answer=text,
                    reference=None if reference is None else json.loads(reference),
                    finish_reason=finish,
                )
                one = Gradable(
                    key=key, question=question, candidate=candidate, sample=sample, reference=reference, answer=answer
                )
                page.append(one)
        yield page


def ungraded(ledger: Ledger, page: Sequence[Gradable], filed: bytes) -> list[Gradable]:
    """Return the answers of a page that have no grade yet. filed: what the grader's grades are filed under."""
    keys = {one.key: grade_key(filed, one.reference) for one in page}
    known = ledger.do(lambda of: _known(of, keys))
    return list({one.key: one for one in page if (one.key, keys[one.key]) not in known}.values())


def note_grades(ledger: Ledger, page: Sequence[Gradable], grades: Sequence[Grade], filed: bytes) -> None:
    """Write grades into the ledger; one without a score and without a raw score is not written, and tried again the next time."""
    rows = [
        (one.key, grade_key(filed, one.reference), grade.score, grade.raw, grade.reason)
        for one, grade in zip(page, grades, strict=True)
        if grade.score is not None or grade.raw is not None
    ]
    ledger.do(lambda of: of.executemany("INSERT OR REPLACE INTO grade VALUES (?, ?, ?, ?, ?)", rows) and None)


def _questions(
    connection: sqlite3.Connection, run: int, graders: tuple[str, str], last: int, only: Collection[int] | None
) -> list[int]:
    """Return the numbers of the next prompts. graders: the plan's first, which grades prompts that name none, and the one at work."""
    some = "" if only is None else f"AND id IN ({_marks(only)}) "
    found = connection.execute(
        f"SELECT id FROM question WHERE run = ? AND id > ? AND coalesce(grader, ?) = ? {some}ORDER BY id LIMIT ?",
        (run, last, *graders, *(only or ()), PAGE),
    )
    return [number for (number,) in found]


def _known(connection: sqlite3.Connection, keys: Mapping[bytes, bytes]) -> set[tuple[bytes, bytes]]:
    listed, found = list(keys), set[tuple[bytes, bytes]]()
    for start in range(0, len(listed), 1000):
        some = listed[start : start + 1000]
        rows = connection.execute(f"SELECT key, grader FROM grade WHERE key IN ({_marks(some)})", some)
        found |= {(key, filed) for key, filed in rows}
    return found


def _marks(values: Collection[object]) -> str:
    return ",".join("?" * len(values))
