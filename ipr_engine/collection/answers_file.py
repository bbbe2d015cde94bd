"""`write_answers` writes the answers of a ledger into one table, beside their grades: to read, and to label (docs/collecting.md)."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ipr_engine.collection.ledger import PAGE, Ledger
from ipr_engine.data.table_stream import Kind, table_stream

_COLUMNS: dict[str, Kind] = {
    "prompt_id": "text",
    "prompt": "text",
    "reference": "text",
    "candidate": "text",
    "answer": "text",
    "finish_reason": "text",
    "score": "number",
    "reason": "text",
}
_ANSWERS = """
SELECT question.prompt_id, question.prompt, question.reference, cell.candidate, answer.text, answer.finish_reason,
    (SELECT score FROM grade WHERE grade.key = answer.key LIMIT 1), (SELECT reason FROM grade WHERE grade.key = answer.key LIMIT 1)
FROM question JOIN cell ON cell.question = question.id JOIN answer ON answer.key = cell.key
WHERE question.id IN ({marks}) ORDER BY question.id, cell.candidate, cell.sample
"""


def write_answers(folder: Path, path: Path) -> int:
    """Write the answers to the prompts of a collection's last run, by the ending of the file's name; return how many there are.

    Args:
        folder: of the ledger. path: .jsonl, .csv or .parquet.
    Raises:
        InvalidInputError: another ending, or the ledger is in use.
    """
    count, last = 0, -1
    with Ledger(folder / "ledger.sqlite") as ledger, table_stream(path, _COLUMNS) as table:
        run = ledger.do(lambda of: of.execute("SELECT max(run) FROM question").fetchone()[0])
        while ids := ledger.do(lambda of, last=last: _questions(of, run, last)):  # type: ignore[misc]
            last = ids[-1]
            rows = ledger.do(lambda of, ids=ids: _answers(of, ids))  # type: ignore[misc]
            if rows:
                table.write({name: [row[place] for row in rows] for place, name in enumerate(_COLUMNS)})
            count += len(rows)
    return count


def _questions(connection: sqlite3.Connection, run: int, last: int) -> list[int]:
    found = connection.execute(
        "SELECT id FROM question WHERE run = ? AND id > ? ORDER BY id LIMIT ?", (run, last, PAGE)
    )
    return [number for (number,) in found]


def _answers(connection: sqlite3.Connection, ids: Sequence[int]) -> list[tuple[Any, ...]]:
    return connection.execute(_ANSWERS.format(marks=",".join("?" * len(ids))), list(ids)).fetchall()
