"""`take_answers` copies answers from the ledgers of other collections, so that what was paid there is not paid again."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ipr_engine.collection.calls import MOST_MARKS, settled_keys
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
_KEYS = "SELECT key FROM answer WHERE key > ? ORDER BY key LIMIT ?"
_ROWS = f"SELECT {', '.join(_COLUMNS)}, CASE WHEN attempt IS NULL THEN NULL ELSE {FROM_ANOTHER} END FROM answer WHERE key IN "
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


def take_answers(ledger: Ledger, folders: Sequence[Path]) -> dict[Path, int]:
    """Copy the answers that a ledger lacks from those of other collections, a page at a time; their calls stay their spending.

    Returns the folders that had some, and how many.

    Raises:
        InvalidInputError: another process writes one, or it cannot be read.
    """
    found: dict[Path, int] = {}
    for number, folder in enumerate(folders):
        try:
            taken = _take(ledger, folder)
        except InvalidInputError as error:
            raise InvalidInputError(f"ledgers[{number}]: {error}") from None
        if taken:
            found[folder] = taken
    return found


def _take(ledger: Ledger, folder: Path) -> int:
    """Copy what is lacking from one, and return how many that were: the texts of the others are not read."""
    last, taken = b"", 0
    with Ledger(folder / LEDGER) as other:
        while keys := other.do(lambda of, last=last: _keys(of, last)):  # type: ignore[misc]
            known = ledger.do(lambda of, keys=keys: settled_keys(of, keys, again=True))  # type: ignore[misc]
            lacking = [key for key in keys if key not in known]
            for start in range(0, len(lacking), PAGE):
                rows = other.do(lambda of, some=lacking[start : start + PAGE]: _rows(of, some))  # type: ignore[misc]
                ledger.do(lambda of, rows=rows: of.executemany(_COPY, rows))  # type: ignore[misc]
            last, taken = keys[-1], taken + len(lacking)
    return taken


def _keys(connection: sqlite3.Connection, after: bytes) -> list[bytes]:
    return [key for (key,) in connection.execute(_KEYS, (after, MOST_MARKS))]


def _rows(connection: sqlite3.Connection, keys: list[bytes]) -> Rows:
    return connection.execute(f"{_ROWS}({','.join('?' * len(keys))})", keys).fetchall()
