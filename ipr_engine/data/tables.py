"""Tables in Parquet, CSV or JSONL, read as columns. Every error names the file, the row and the column.

Rows are counted from 1, headers and blank lines left out. An empty CSV cell, a JSON null, an absent JSON key and a Parquet null all
mean "missing"; a written NaN does not, it is a value and a wrong one.
"""

from __future__ import annotations

import csv
import json
import os
import secrets
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from ipr_engine.errors import InvalidInputError
from ipr_engine.extras import need

FORMATS = ("parquet", "csv", "jsonl")


class Table:
    """Columns of equal length.

    Attributes:
        name: the file's name, for errors.
        columns: names in file order.
        rows: how many.
    """

    def __init__(self, name: str, columns: Mapping[str, Sequence[Any]], *, labels: Sequence[str] | None = None) -> None:
        self.name = name
        self._columns = dict(columns)
        self._labels = labels  # where each row came from, if it is not a row of `name`
        self.rows = len(next(iter(self._columns.values()), ()))

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(self._columns)

    def fail(self, row: int, column: str, reason: str) -> NoReturn:
        """Raise for a cell; `row` is an index from 0."""
        where = f"{self.name}, row {row + 1}" if self._labels is None else self._labels[row]
        raise InvalidInputError(f"{where}, column {column!r}: {reason}")

    def require(self, columns: Sequence[str]) -> None:
        absent = [column for column in columns if column not in self.columns]
        if absent:
            raise InvalidInputError(
                f"{self.name}: expected column {absent[0]!r}, got {', '.join(map(repr, self.columns)) or 'none'}"
            )

    def values(self, column: str) -> Sequence[Any]:
        """The cells as they were read, None where missing."""
        return self._columns[column]

    def text(self, column: str) -> list[str | None]:
        """The cells as text; whole numbers count as text, anything else is refused."""
        cells = self.values(column)
        result: list[str | None] = []
        for row, cell in enumerate(cells):
            if cell is not None and not isinstance(cell, str):
                if type(cell) is not int:
                    self.fail(row, column, f"expected text, got {_shown(cell)}")
                cell = str(cell)
            result.append(cell)
        return result

    def coded(self, column: str) -> tuple[npt.NDArray[np.int64], list[str | None]]:
        """(code of every row, the distinct texts in order of appearance)."""
        code_of: dict[str | None, int] = {}
        cells = self.text(column)
        codes = np.fromiter((code_of.setdefault(cell, len(code_of)) for cell in cells), np.int64, len(cells))
        return codes, list(code_of)

    def numbers(self, column: str) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        """(values, missing): NaN where missing, and where NaN was written."""
        cells = self.values(column)
        values, missing = np.full(len(cells), np.nan), np.zeros(len(cells), dtype=np.bool_)
        for row, cell in enumerate(cells):
            if cell is None:
                missing[row] = True
                continue
            try:
                if isinstance(cell, (bool, list, dict)):
                    raise ValueError
                values[row] = float(cell)
            except ValueError:
                self.fail(row, column, f"expected a number, got {_shown(cell)}")
        return values, missing


class _ParquetTable(Table):
    """Keeps Arrow's columns, so that a million rows become arrays without a Python object each."""

    def __init__(self, name: str, table: Any) -> None:
        super().__init__(name, {})
        self._table = table
        self.rows = table.num_rows

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(self._table.column_names)

    def values(self, column: str) -> Sequence[Any]:
        cells: list[Any] = self._table[column].to_pylist()
        return cells

    def coded(self, column: str) -> tuple[npt.NDArray[np.int64], list[str | None]]:
        types = need("pyarrow", "reading Parquet").types
        kind = self._table[column].type
        if not (types.is_string(kind) or types.is_large_string(kind)) or self._table[column].null_count:
            return super().coded(column)
        whole = self._table[column].combine_chunks().dictionary_encode()
        if hasattr(whole, "chunks"):  # some versions of pyarrow return a chunked array of one
            whole = whole.unify_dictionaries().combine_chunks()
        return whole.indices.to_numpy().astype(np.int64), whole.dictionary.to_pylist()

    def numbers(self, column: str) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        types = need("pyarrow", "reading Parquet").types
        cells = self._table[column]
        if types.is_null(cells.type):
            return np.full(self.rows, np.nan), np.ones(self.rows, dtype=np.bool_)
        if not (types.is_floating(cells.type) or types.is_integer(cells.type)):
            return super().numbers(column)
        return cells.to_numpy().astype(np.float64), cells.is_null().to_numpy().astype(np.bool_)


def read_table(path: Path) -> Table:
    """Read a table by the ending of its name: .parquet (extra `[train]`), .csv or .jsonl.

    Raises:
        InvalidInputError: no such file, another ending, a damaged file, a ragged row, a column twice.
        BackendUnavailableError: Parquet without pyarrow.
    """
    reader = {".parquet": _read_parquet, ".csv": _read_csv, ".jsonl": _read_jsonl}.get(path.suffix.lower())
    if reader is None:
        raise InvalidInputError(f"{path.name}: expected a name that ends in .parquet, .csv or .jsonl")
    if not path.is_file():
        raise InvalidInputError(f"{path}: no such file")
    return reader(path)


def _read_parquet(path: Path) -> Table:
    parquet = need("pyarrow.parquet", f"reading {path.name}")
    try:
        table = parquet.read_table(path)
    except (OSError, ValueError) as error:  # pyarrow's own errors derive from these two
        raise InvalidInputError(f"{path.name}: not a readable Parquet file: {error}") from error
    _require_distinct(path, table.column_names)
    return _ParquetTable(path.name, table)


def _read_csv(path: Path) -> Table:
    with _text_file(path) as file, _any_field_size():
        rows = csv.reader(file, strict=True)
        try:
            header = next(rows, None)
            if header is None:
                raise InvalidInputError(f"{path.name}: expected a header line, the file is empty")
            _require_distinct(path, header)
            columns: list[list[str | None]] = [[] for _ in header]
            count = 0
            for row in rows:
                if not row:
                    continue
                count += 1
                if len(row) != len(header):
                    raise InvalidInputError(
                        f"{path.name}, row {count}: expected {len(header)} cells as in the header, got {len(row)}"
                    )
                for column, cell in zip(columns, row, strict=True):
                    column.append(cell or None)
        except csv.Error as error:
            raise InvalidInputError(f"{path.name}, line {rows.line_num}: not CSV: {error}") from None
    return Table(path.name, dict(zip(header, columns, strict=True)))


def _read_jsonl(path: Path) -> Table:
    columns: dict[str, list[Any]] = {}
    count = 0
    with _text_file(path) as file:
        for line in file:
            if not line.strip():
                continue
            count += 1
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise InvalidInputError(f"{path.name}, row {count}: expected a JSON object, got {error}") from None
            if not isinstance(record, dict):
                raise InvalidInputError(f"{path.name}, row {count}: expected a JSON object, got {_shown(record)}")
            for name, value in record.items():
                if name not in columns:
                    columns[name] = [None] * (count - 1)
                columns[name].append(value)
            for column in columns.values():
                if len(column) < count:
                    column.append(None)
    return Table(path.name, columns)


def write_table(path: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """Write columns (None = missing) by the ending of `path`'s name: the whole file appears at once, or not at all."""
    temp = path.with_name(f".tmp-{os.getpid()}-{secrets.token_hex(6)}")
    try:
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
        os.replace(temp, path)
    finally:
        temp.unlink(missing_ok=True)


@contextmanager
def _text_file(path: Path) -> Iterator[Any]:
    try:
        with open(path, encoding="utf-8-sig", newline="" if path.suffix.lower() == ".csv" else "\n") as file:
            yield file
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{path.name}: expected UTF-8: {error}") from None
    except OSError as error:
        raise InvalidInputError(f"{path.name}: cannot be read: {error.strerror}") from None


@contextmanager
def _any_field_size() -> Iterator[None]:
    """csv refuses cells above 128 Ki characters unless told otherwise; prompts may be longer."""
    before = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _require_distinct(path: Path, header: Sequence[str]) -> None:
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise InvalidInputError(f"{path.name}: expected distinct columns, {twice[0]!r} occurs twice")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"
