"""`write_answers` writes the answers of a ledger into one table, beside their qualities: to read, and to label (docs/collecting.md)."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ipr_engine.collection.collection_plan import CollectionPlan
from ipr_engine.collection.ledger import LEDGER, PAGE, Ledger
from ipr_engine.collection.outcome_tables import Filed, answers_of, scores_of
from ipr_engine.data.table_stream import Kind, table_stream

_COLUMNS: dict[str, Kind] = {
    "prompt_id": "text",
    "prompt": "text",
    "reference": "text",
    "candidate": "text",
    "answer": "text",
    "finish_reason": "text",
    "quality": "number",
}


def write_answers(plan: CollectionPlan, filed: Mapping[str, Filed], path: Path) -> None:
    """Write the answers to the prompts of a collection's last run, by the ending of the file's name; its owner alone can read it.

    Args:
        filed: grader -> where its grades are found, as `Collected.filed`. path: .jsonl, .csv or .parquet.
    Raises:
        InvalidInputError: another ending, or the ledger is in use.
    """
    with Ledger(plan.out_folder / LEDGER) as ledger, table_stream(path, _COLUMNS) as table:
        run, last = ledger.do(lambda of: of.execute("SELECT max(run) FROM question").fetchone()[0]), -1
        while page := ledger.do(lambda of, last=last: _page(of, run, last)):  # type: ignore[misc]
            last = page[-1][0]
            rows = ledger.do(lambda of, page=page: _rows(of, page, plan, filed))  # type: ignore[misc]
            if rows:
                table.write({name: [row[place] for row in rows] for place, name in enumerate(_COLUMNS)})
    os.chmod(path, 0o600)


def _page(connection: sqlite3.Connection, run: int, last: int) -> list[tuple[Any, ...]]:
    return connection.execute(
        "SELECT id, prompt_id, prompt, reference, grader FROM question WHERE run = ? AND id > ? ORDER BY id LIMIT ?",
        (run, last, PAGE),
    ).fetchall()


def _rows(
    connection: sqlite3.Connection, page: Sequence[tuple[Any, ...]], plan: CollectionPlan, filed: Mapping[str, Filed]
) -> list[tuple[Any, ...]]:
    """Return the rows of a page of prompts: quality as the outcome tables have it, labels left out."""
    answers, grades = answers_of(connection, [row[0] for row in page])
    names, rows = {one.name for one in plan.asked}, []
    for number, prompt_id, prompt, reference, grader in page:
        found = [one for one in answers.get(number, ()) if one.candidate in names]
        own = filed.get(grader or next(iter(plan.graders), ""))
        scores = {} if own is None else scores_of(found, grades, own, reference)
        for one in found:
            text = connection.execute("SELECT text FROM answer WHERE key = ?", (one.key,)).fetchone()[0]
            rows.append((prompt_id, prompt, reference, one.candidate, text, one.finish_reason, scores.get(one.key)))
    return rows
