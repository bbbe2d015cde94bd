"""`take_answers` copies answers from the ledgers of other collections, so that what was paid there is not paid again."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ipr_engine.collection.ledger import FROM_ANOTHER, LEDGER, PAGE, Ledger
from ipr_engine.errors import InvalidInputError

Rows = list[tuple[Any, ...]]
_COLUMNS = (
    *(
        "key",
        "candidate",
        "text",
        "finish_reason",
        "input_tokens",
        "output_tokens",
        "cached_tokens",
        "reasoning_tokens",
    ),
    *("cost_usd", "seconds", "served_model"),
)
_PAGE = (
    f"SELECT {', '.join(_COLUMNS)}, CASE WHEN attempt IS NULL THEN NULL ELSE {FROM_ANOTHER} END "
    "FROM answer WHERE key > ? ORDER BY key LIMIT ?"
)
_COPY = f"INSERT OR IGNORE INTO answer ({', '.join(_COLUMNS)}, attempt) VALUES ({', '.join('?' * (len(_COLUMNS) + 1))})"


def check_ledgers(folders: Sequence[Path], own: Path) -> None:
    """Check that each folder is another collection's.

    Raises:
        InvalidInputError: one holds no ledger, or is the collection's own.
    """
    for number, folder in enumerate(folders):
        if not (folder / LEDGER).is_file():
            raise InvalidInputError(
                f"ledgers[{number}]: expected the folder of another collection, its `out`, with {LEDGER} in it, got {folder}"
            )
        if (own / LEDGER).exists() and (folder / LEDGER).samefile(own / LEDGER):
            raise InvalidInputError(f"ledgers[{number}]: {folder} is this collection's own; leave it out")


def take_answers(ledger: Ledger, folder: Path) -> None:
    """Copy the answers that a ledger lacks from that of another collection, a page at a time; its calls stay that one's spending.

    Raises:
        InvalidInputError: another process writes that one, or it cannot be read.
    """
    with Ledger(folder / LEDGER) as other:
        last = b""
        while rows := other.do(lambda of, last=last: _page(of, last)):  # type: ignore[misc]
            ledger.do(lambda of, rows=rows: of.executemany(_COPY, rows))  # type: ignore[misc]
            last = rows[-1][0]


def _page(connection: sqlite3.Connection, after: bytes) -> Rows:
    return connection.execute(_PAGE, (after, PAGE)).fetchall()
