"""`read_table` reads a table in Parquet, CSV or JSONL as columns; `write_table` writes one whole."""

from __future__ import annotations

import csv
import json
import sys
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine._extras import need
from ipr_engine._files import replacing
from ipr_engine._validate import lone_surrogate
from ipr_engine.data.tables import BadRows, Table, shown_cell
from ipr_engine.errors import InvalidInputError

FORMATS = ("parquet", "csv", "jsonl")


class _ParquetTable(Table):
    """A `_ParquetTable` reads a column when it is asked for, so that no two columns of Arrow are in memory at once."""

    def __init__(self, path: Path, names: Mapping[str, str], rows: int) -> None:
        """Take the file. names: column -> its name there, in the file's order."""
        super().__init__(path.name, {})
        self._path, self._names = path, dict(names)
        self.rows = rows

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(self._names)

    def _with_names(self, names: Sequence[str]) -> Table:
        return _ParquetTable(self._path, dict(zip(names, self._names.values(), strict=True)), self.rows)

    def _arrow(self, column: str, *, coded: bool = False) -> Any:
        """Return a column as Arrow has it; texts that are `coded`, as codes of the distinct ones."""
        there = self._names[column]
        # Strings are kept once each where codes are wanted: an outcome table repeats an id for every candidate.
        repeated = [there] if coded else None
        with _readable(self._path) as parquet, parquet.ParquetFile(self._path, read_dictionary=repeated) as file:
            return file.read(columns=[there])[there]

    def values(self, column: str) -> Sequence[Any]:
        try:
            cells: list[Any] = self._arrow(column).to_pylist()
        except UnicodeDecodeError:
            raise self._not_utf8(column) from None
        _free_arrow()
        return cells

    def text(self, column: str) -> list[str | None]:
        types = need("pyarrow", "reading Parquet").types
        kind = self._kind(column)
        # What was UTF-8 holds no surrogate: nothing is left to check.
        if types.is_string(kind) or types.is_large_string(kind):
            return list(self.values(column))
        return super().text(column)

    def _kind(self, column: str) -> Any:
        """Return the type of a column."""
        with _readable(self._path) as parquet:
            return parquet.read_schema(self._path).field(self._names[column]).type

    def _not_utf8(self, column: str) -> InvalidInputError:
        """Return the error of a column that holds bytes which are not UTF-8."""
        return InvalidInputError(f"{self.name}, column {column!r}: expected UTF-8, it holds other bytes")

    def coded(self, column: str) -> tuple[npt.NDArray[np.integer], list[str | None]]:
        types = need("pyarrow", "reading Parquet").types
        kind = self._kind(column)
        # Other types, and columns with missing cells, take the checked way, which names bad cells.
        if not (types.is_string(kind) or types.is_large_string(kind)):
            return super().coded(column)
        whole = self._arrow(column, coded=True)
        if whole.null_count:
            return super().coded(column)
        if not types.is_dictionary(whole.type):  # a large string is read as it is
            whole = whole.dictionary_encode()
        whole = whole.unify_dictionaries().combine_chunks()
        if hasattr(whole, "chunks"):  # some versions of pyarrow return a chunked array of one
            whole = whole.chunk(0)
        try:
            codes, texts = whole.indices.to_numpy().copy(), whole.dictionary.to_pylist()
        except UnicodeDecodeError:
            raise self._not_utf8(column) from None
        del whole
        _free_arrow()
        return codes, texts

    def numbers(self, column: str) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        types = need("pyarrow", "reading Parquet").types
        cells = self._arrow(column)
        if types.is_null(cells.type):
            return np.full(self.rows, np.nan), np.ones(self.rows, dtype=np.bool_)
        if not (types.is_floating(cells.type) or types.is_integer(cells.type)):
            return super().numbers(column)
        values, missing = cells.to_numpy().astype(np.float64), cells.is_null().to_numpy().astype(np.bool_)
        del cells
        _free_arrow()
        return values, missing


def _free_arrow() -> None:
    """Give back what Arrow holds of columns that are no longer needed: it keeps as much as the largest one for the next."""
    need("pyarrow", "reading Parquet").default_memory_pool().release_unused()


def read_table(path: Path, bad: BadRows | None = None) -> Table:
    """Read a table by the ending of its name: .parquet (extra `[train]`), .csv or .jsonl.

    Args:
        bad: collects rows that cannot be read, which are left out; None raises at the first one.
    Raises:
        InvalidInputError: no such file, another ending, a damaged file, a ragged row, a column twice.
        BackendUnavailableError: Parquet without pyarrow.
    """
    reader = {".parquet": _read_parquet, ".csv": _read_csv, ".jsonl": _read_jsonl}.get(path.suffix.lower())
    if reader is None:
        raise InvalidInputError(f"{path.name}: expected a name that ends in .parquet, .csv or .jsonl")
    if not path.is_file():
        raise InvalidInputError(f"{path}: no such file")
    table = reader(path, bad)
    if not table.rows and bad is not None:
        bad.refuse()
    for name in table.columns:
        if lone_surrogate(name) is not None:
            raise InvalidInputError(f"{path.name}: expected Unicode column names, {name!r} holds a lone surrogate")
    # From here on cells are collected as rows were.
    table.bad = bad
    return table


def _read_parquet(path: Path, bad: BadRows | None) -> Table:
    """Open a Parquet file; its columns are read when they are asked for."""
    with _readable(path) as parquet, parquet.ParquetFile(path) as file:
        names, rows = file.schema_arrow.names, file.metadata.num_rows
    _require_distinct(path, names)
    return _ParquetTable(path, {name: name for name in names}, rows)


@contextmanager
def _readable(path: Path) -> Iterator[Any]:
    """Give `pyarrow.parquet`; InvalidInputError names the file where it cannot be read."""
    parquet = need("pyarrow.parquet", f"reading {path.name}")
    try:
        yield parquet
    except (OSError, ValueError) as error:  # pyarrow's own errors derive from these two
        raise InvalidInputError(f"{path.name}: not a readable Parquet file: {error}") from error


def _read_csv(path: Path, bad: BadRows | None) -> Table:
    """Read a CSV file with a header; empty cells are missing, blank lines are passed over and not counted."""
    with _text_file(path) as file, any_field_size():
        rows = csv.reader(file, strict=True)
        try:
            header = next(rows, None)
            if header is None:
                raise InvalidInputError(f"{path.name}: expected a header line, the file is empty")
            _require_distinct(path, header)
            columns: list[list[str | None]] = [[] for _ in header]
            numbers = array("q")  # of the rows that were read, from 1
            count = 0
            for row in rows:
                if not row:
                    continue
                count += 1
                if len(row) != len(header):
                    _bad_row(bad, path, count, f"expected {len(header)} cells as in the header, got {len(row)}")
                    continue
                numbers.append(count)
                for column, cell in zip(columns, row, strict=True):
                    column.append(cell or None)
        except csv.Error as error:
            raise InvalidInputError(f"{path.name}, line {rows.line_num}: not CSV: {error}") from None
    # Numbers are kept only where rows were left out: else a row's number is its place.
    return Table(path.name, dict(zip(header, columns, strict=True)), numbers=None if len(numbers) == count else numbers)


def _bad_row(bad: BadRows | None, path: Path, number: int, reason: str) -> None:
    """Collect a row that cannot be read in `bad`; raise where there is none."""
    if bad is None:
        raise InvalidInputError(f"{path.name}, row {number}: {reason}")
    bad.add(f"{path.name}, row {number}", f": {reason}")


def _read_jsonl(path: Path, bad: BadRows | None) -> Table:
    """Read one JSON object a line; a key that a line lacks is a missing cell."""
    columns: dict[str, list[Any]] = {}
    numbers = array("q")  # of the rows that were read, from 1
    count = 0
    with _text_file(path) as file:
        for line in file:
            if not line.strip():
                continue
            count += 1
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                _bad_row(bad, path, count, f"expected a JSON object, got {error}")
                continue
            if not isinstance(record, dict):
                _bad_row(bad, path, count, f"expected a JSON object, got {shown_cell(record)}")
                continue
            numbers.append(count)
            for name, value in record.items():
                if name not in columns:
                    # A column first met here was missing in the rows before.
                    columns[name] = [None] * (len(numbers) - 1)
                columns[name].append(value)
            for column in columns.values():
                if len(column) < len(numbers):
                    column.append(None)
    return Table(path.name, columns, numbers=None if len(numbers) == count else numbers)


def write_table(path: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """Write columns (None = missing) by the ending of `path`'s name: the whole file appears at once, or not at all."""
    with replacing(path) as temp:
        if path.suffix == ".parquet":
            arrow, parquet = need("pyarrow", "writing Parquet"), need("pyarrow.parquet", "writing Parquet")
            parquet.write_table(arrow.table(dict(columns)), temp)
        elif path.suffix == ".csv":
            with open(temp, "w", encoding="utf-8", newline="") as file:
                writer = csv.writer(file)  # its line end \r\n also makes it quote cells that hold a bare \r or \n
                writer.writerow(columns)
                writer.writerows(zip(*columns.values(), strict=True))
        elif path.suffix == ".jsonl":
            with open(temp, "w", encoding="utf-8") as file:
                for row in zip(*columns.values(), strict=True):
                    kept = {name: cell for name, cell in zip(columns, row, strict=True) if cell is not None}
                    file.write(json.dumps(kept, ensure_ascii=False, allow_nan=False) + "\n")
        else:
            raise InvalidInputError(f"{path.name}: expected a name that ends in .parquet, .csv or .jsonl")


@contextmanager
def _text_file(path: Path) -> Iterator[Any]:
    """Open a UTF-8 file, with or without a byte order mark; InvalidInputError names the file where it cannot be read as such."""
    try:
        with open(path, encoding="utf-8-sig", newline="" if path.suffix.lower() == ".csv" else "\n") as file:
            yield file
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{path.name}: expected UTF-8: {error}") from None
    except OSError as error:
        raise InvalidInputError(f"{path.name}: cannot be read: {error.strerror}") from None


@contextmanager
def any_field_size() -> Iterator[None]:
    """Lift the limit of csv, which refuses cells above 128 Ki characters: prompts may be longer."""
    before = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _require_distinct(path: Path, header: Sequence[str]) -> None:
    """Raise InvalidInputError for a column that stands in the header twice."""
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise InvalidInputError(f"{path.name}: expected distinct columns, {twice[0]!r} occurs twice")
