"""`read_answers` reads recorded answers: a table of model, output tokens, seconds and, where known, seconds to the first token."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from difflib import SequenceMatcher
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ipr_engine._files import as_path
from ipr_engine._validate import MOST, MOST_TOKENS
from ipr_engine.data.table_files import read_table
from ipr_engine.data.tables import BadRows, Table
from ipr_engine.errors import InvalidInputError

Array = npt.NDArray[np.float64]

ALIKE = 0.8  # of SequenceMatcher's ratio: two letters of ten changed
_SECONDS = {"seconds": 1.0, "latency_ms": 1e-3}  # columns of a whole answer's time, and what one of it is in seconds
_FIRST = {"ttft_seconds": 1.0, "ttft_ms": 1e-3}


class Answers(NamedTuple):
    """`Answers` hold one model's answers: output_tokens, seconds (answers,), and ttft_seconds (answers,), NaN where not recorded."""

    output_tokens: Array
    seconds: Array
    ttft_seconds: Array | None


def read_answers(
    path: str | os.PathLike[str],
    *,
    columns: Mapping[str, str] = MappingProxyType({}),
    report: Callable[[str], object] = lambda message: None,
) -> dict[str, Answers]:
    """Read the answers of a .jsonl, .csv or .parquet file by model, in order of appearance; other columns are not read.

    Args:
        path: its columns: model, output_tokens, seconds (or latency_ms), and optionally ttft_seconds (or ttft_ms).
        columns: {column: what the file calls it}.
        report: called with what the file may mean and does not say, such as a column that looks like the time of the first token.
    Raises:
        InvalidInputError: no such file or column, two columns of one time, or bad rows: every one is named.
    """
    file: Path = as_path(path, "path")
    bad = BadRows()
    table = read_table(file, bad).renamed(columns)
    table.bad = bad
    # Faults of the whole table (no such column) are raised at once; faults of rows are collected and raised together below.
    whole, first = _time(table, _SECONDS), _time(table, _FIRST)
    if whole is None:
        known = ", ".join(map(repr, table.columns)) or "none"
        raise InvalidInputError(
            f"{file.name}: expected column 'seconds' or 'latency_ms', got {known}; name yours: --column seconds=THEIRS, or "
            f"--column latency_ms=THEIRS{_looks_like(table, _SECONDS)}"
        )
    for column in ("model", "output_tokens"):
        table.require((column,), f"; name yours: --column {column}=THEIRS{_looks_like(table, (column,))}")
    if first is None:
        for other in _alike(table, _FIRST):
            report(
                f"column {other!r} is not read; if it is the time of the first token, say --column ttft_seconds={other}, or --column "
                f"ttft_ms={other} where it is in milliseconds"
            )
    tokens = _numbers(table, "output_tokens", MOST_TOKENS, 1.0, whole_numbers=True)
    seconds = _numbers(table, whole, MOST, _SECONDS[whole])
    ttft = None if first is None else _numbers(table, first, MOST, _FIRST[first], optional=True)
    if first is not None and ttft is not None:
        for row in np.flatnonzero(ttft > seconds):
            table.complain(int(row), first, f"expected at most {whole} of the answer, got more")
    codes, models = table.coded("model")
    for row in np.flatnonzero([models[code] is None or not str(models[code]).strip() for code in codes]):
        table.complain(int(row), "model", "expected a model's name, it is missing")
    bad.refuse("\ncorrect them, or leave them out of the file")
    if not table.rows:
        raise InvalidInputError(f"{file.name}: expected at least one answer, it has none")
    return {
        str(model): Answers(tokens[mine], seconds[mine], None if ttft is None else ttft[mine])
        for code, model in enumerate(models)
        if (mine := codes == code).any()
    }


def _looks_like(table: Table, known: Iterable[str]) -> str:
    """Return what an error adds where a column of the file looks like the one that is missing."""
    found = _alike(table, known)
    return f"; {' and '.join(map(repr, found))} may be meant" if found else ""


def _alike(table: Table, known: Iterable[str]) -> list[str]:
    """Return the file's columns of unknown names that look like one of these: begun alike, or a letter or two off."""
    # Columns that have a name of ours already are read, or are the other of two spellings.
    names, every = [_plain(name) for name in known], {*_SECONDS, *_FIRST, "model", "output_tokens"}
    return [
        column
        for column in table.columns
        if column not in every
        and (own := _plain(column))
        and any(
            (len(own) >= 4 and (name.startswith(own) or own.startswith(name)))
            or SequenceMatcher(None, own, name).ratio() >= ALIKE
            for name in names
        )
    ]


def _plain(name: str) -> str:
    """Return the letters and digits of a name, without case."""
    return "".join(letter for letter in name.casefold() if letter.isalnum())


def _time(table: Table, known: Mapping[str, float]) -> str | None:
    """Return the column that tells a time, None for none."""
    found = [name for name in known if name in table.columns]
    if len(found) > 1:
        raise InvalidInputError(
            f"{table.name}: expected one of the columns {' and '.join(found)}, got both; leave one out"
        )
    return found[0] if found else None


def _numbers(
    table: Table, column: str, most: float, unit: float, *, whole_numbers: bool = False, optional: bool = False
) -> Array:
    """Read the column in units of `unit`. A value that is missing where it must not be, or out of range, is reported as bad and NaN."""
    values, missing = table.numbers(column)
    kind = "a whole number >= 0" if whole_numbers else "a finite number >= 0"
    # NaN fails every comparison, so what is missing is not good; it is told apart below.
    good = (values >= 0) & (values <= most) & ((values == np.floor(values)) | (not whole_numbers))
    for row in np.flatnonzero(~good & ~missing):
        table.complain(int(row), column, f"expected {kind}, got {values[row]:g}")
    if not optional:
        for row in np.flatnonzero(missing):
            table.complain(int(row), column, f"expected {kind}, it is missing")
    return np.where(good, values * unit, np.nan)
