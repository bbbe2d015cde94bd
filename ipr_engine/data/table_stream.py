"""A `TableStream` writes a table piece by piece, in Parquet, CSV or JSONL: memory does not grow with its rows."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol

from ipr_engine._extras import need
from ipr_engine._files import replacing
from ipr_engine.errors import InvalidInputError

Kind = Literal["text", "number", "whole", "missing"]  # missing: no row has any


class TableStream(Protocol):
    """A `TableStream` takes the columns of a table, some rows at a time; None is a missing cell."""

    def write(self, columns: Mapping[str, Sequence[Any]]) -> None:
        """Write more rows. columns: each of the table's, of equal length."""
        ...


@contextmanager
def table_stream(path: Path, kinds: Mapping[str, Kind]) -> Iterator[TableStream]:
    """Write a table by the ending of `path`'s name: the whole file appears at the end, or not at all.

    Args:
        kinds: column -> what its cells are, in the order of the table.
    Raises:
        InvalidInputError: another ending.
        BackendUnavailableError: Parquet without pyarrow.
    """
    makers = {".parquet": _parquet, ".csv": _csv, ".jsonl": _jsonl}
    if path.suffix not in makers:
        raise InvalidInputError(f"{path.name}: expected a name that ends in .parquet, .csv or .jsonl")
    with replacing(path) as temp, makers[path.suffix](temp, kinds) as stream:
        yield stream


class _RowStream:
    """Rows of text, a line each."""

    def __init__(self, file: Any, kinds: Mapping[str, Kind], *, as_csv: bool) -> None:
        self._names, self._file = tuple(kinds), file
        self._rows = csv.writer(file) if as_csv else None
        if self._rows is not None:
            self._rows.writerow(self._names)

    def write(self, columns: Mapping[str, Sequence[Any]]) -> None:
        rows = zip(*(columns[name] for name in self._names), strict=True)
        if self._rows is not None:
            self._rows.writerows(rows)
            return
        for row in rows:
            # nulls too: a column that no row has would not be there
            cells = dict(zip(self._names, row, strict=True))
            self._file.write(json.dumps(cells, ensure_ascii=False, allow_nan=False) + "\n")


@contextmanager
def _csv(path: Path, kinds: Mapping[str, Kind]) -> Iterator[TableStream]:
    with open(path, "w", encoding="utf-8", newline="") as file:
        yield _RowStream(file, kinds, as_csv=True)


@contextmanager
def _jsonl(path: Path, kinds: Mapping[str, Kind]) -> Iterator[TableStream]:
    with open(path, "w", encoding="utf-8") as file:
        yield _RowStream(file, kinds, as_csv=False)


class _ParquetStream:
    """Row groups of a Parquet file."""

    def __init__(self, arrow: Any, writer: Any, schema: Any) -> None:
        self._arrow, self._writer, self._schema = arrow, writer, schema

    def write(self, columns: Mapping[str, Sequence[Any]]) -> None:
        self._writer.write_table(
            self._arrow.table({name: columns[name] for name in self._schema.names}, schema=self._schema)
        )


@contextmanager
def _parquet(path: Path, kinds: Mapping[str, Kind]) -> Iterator[TableStream]:
    arrow, parquet = need("pyarrow", "writing Parquet"), need("pyarrow.parquet", "writing Parquet")
    types = {"text": arrow.string(), "number": arrow.float64(), "whole": arrow.int64(), "missing": arrow.null()}
    schema = arrow.schema([(name, types[kind]) for name, kind in kinds.items()])
    with parquet.ParquetWriter(path, schema) as writer:
        yield _ParquetStream(arrow, writer, schema)
