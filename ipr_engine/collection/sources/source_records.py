"""`records_of` yields the records of a file one by one: objects of JSON lines or of a JSON list, rows of a CSV or Parquet table."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

from ipr_engine._extras import need
from ipr_engine.collection.sources.asked_row import UnaskableError
from ipr_engine.collection.sources.strict_json import parse_json
from ipr_engine.data.table_files import any_field_size
from ipr_engine.data.tables import shown_cell
from ipr_engine.errors import InvalidInputError
from ipr_engine.prompts import kind_of

_ENDINGS = (".jsonl", ".ndjson", ".json", ".csv")
ENDINGS = (*_ENDINGS, *(f"{ending}.gz" for ending in _ENDINGS), ".parquet")
_ROWS = 256  # of a Parquet file, read at once
_CHUNK = 1 << 16  # characters
_DAMAGE = (OSError, EOFError, zlib.error)


class SourceFile(NamedTuple):
    """A `SourceFile` is one file of a source. name: what errors call it."""

    path: Path
    name: str


class SourceRecord(NamedTuple):
    """A `SourceRecord` is one object or row of a file.

    Attributes:
        number: of the record, from 1; blank lines and headers are not counted.
        value: its fields, or why it has none. offset: the byte its line begins at; None where records are no lines of a plain file.
    """

    number: int
    value: Mapping[str, Any] | UnaskableError
    offset: int | None = None

    def __repr__(self) -> str:
        """Show the number alone: what is printed into a log shall hold no prompt."""
        return f"SourceRecord({self.number})"


def source_files(path: str) -> list[SourceFile]:
    """Return the file at a path, or every file of prompts or logs below a folder, by name.

    Raises:
        InvalidInputError: there is nothing, a name with another ending, or a folder without such files.
    """
    place = Path(path)
    if place.is_dir():
        found = sorted(file for file in place.rglob("*") if file.is_file() and _ending(file) is not None)
        if not found:
            raise InvalidInputError(f"{place}: holds no file that ends in {', '.join(ENDINGS)}")
        return [SourceFile(file, str(file)) for file in found]
    if not place.is_file():
        raise InvalidInputError(f"{place}: no such file or folder")
    if _ending(place) is None:
        raise InvalidInputError(f"{place}: expected a name that ends in {', '.join(ENDINGS)}")
    return [SourceFile(place, str(place))]


def records_of(file: SourceFile) -> Iterator[SourceRecord]:
    """Yield the records of a file; what cannot be read of it is a record whose value says why. Memory is flat in their number.

    Raises:
        InvalidInputError: the file is of a form in which nothing more of it can be read: no header, a column twice, no Parquet.
        BackendUnavailableError: Parquet without pyarrow.
    """
    ending = _ending(file.path)
    if ending == ".parquet":
        yield from _parquet(file)
        return
    count = 0
    try:
        with _opened(file.path) as raw:
            if ending == ".csv":
                records = _csv(file, raw)
            elif ending == ".json" and not _first_line_is_whole(raw):
                records = _listed(raw)
            else:
                records = _lines(raw)
            for count, record in enumerate(records, start=1):  # noqa: B007  read after a failure
                yield record
    except _DAMAGE as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "the file is damaged or cut"
        yield SourceRecord(count + 1, UnaskableError(f"cannot be read: {reason}"))


def line_at(file: SourceFile, offset: int) -> Any:
    """Return the JSON value of the line that begins at a byte of a plain file."""
    with open(file.path, "rb") as raw:
        raw.seek(offset)
        return parse_json(raw.readline())


def _ending(path: Path) -> str | None:
    """Return the ending that says what a file holds, ".gz" apart; None of any other file."""
    name = path.name.lower()
    found = next((ending for ending in ENDINGS if name.endswith(ending)), None)
    return None if found is None else found.removesuffix(".gz")


def _opened(path: Path) -> IO[bytes]:
    """Open a file for reading; the caller closes it."""
    if path.name.lower().endswith(".gz"):
        return io.BufferedReader(gzip.GzipFile(path, "rb"))
    return path.open("rb")


def _object(value: Any) -> Mapping[str, Any] | UnaskableError:
    if isinstance(value, dict):
        return value
    return UnaskableError(f"expected a JSON object, got {kind_of(value)}")


def _lines(raw: IO[bytes]) -> Iterator[SourceRecord]:
    """Yield one object a line."""
    number, offset = 0, 0
    plain = not isinstance(getattr(raw, "raw", None), gzip.GzipFile)
    for line in raw:
        start, offset = offset, offset + len(line)
        line = line.removeprefix(b"\xef\xbb\xbf") if start == 0 else line
        if not line.strip():
            continue
        number += 1
        try:
            value = _object(parse_json(line.strip(), "a JSON object"))
        except UnaskableError as error:
            value = error
        yield SourceRecord(number, value, start if plain else None)


def _first_line_is_whole(raw: IO[bytes]) -> bool:
    """Return whether a .json file holds JSON lines: its first line is an object, not the beginning of one or of a list."""
    first = raw.readline(1 << 24)
    raw.seek(0)
    try:
        return isinstance(parse_json(first.removeprefix(b"\xef\xbb\xbf")), dict)
    except UnaskableError:
        return False


def _listed(raw: IO[bytes]) -> Iterator[SourceRecord]:
    """Yield the objects of one list, or objects one after another, without reading the whole file first."""
    text = io.TextIOWrapper(raw, encoding="utf-8-sig")
    decoder = json.JSONDecoder()
    number, held, ended, place = 0, "", False, 0
    wanted, lists = _CHUNK, 0  # characters that are held at least; lists that have not ended
    try:
        while True:
            while not ended and len(held) - place < wanted:
                more = text.read(wanted)
                held, place, ended = held[place:] + more, 0, not more
            while place < len(held) and held[place] in " \t\r\n,[]":
                lists += {"[": 1, "]": -1}.get(held[place], 0)
                place += 1
            if place == len(held):
                if ended and lists:
                    yield SourceRecord(number + 1, UnaskableError("the list of objects does not end: the file is cut"))
                if ended:
                    return
                continue
            problem = None
            try:
                _, end = decoder.raw_decode(held, place)
            except (ValueError, RecursionError):
                problem = "a JSON object"
            if problem is not None and not ended:
                wanted *= 2  # the object may go on beyond what is held
                continue
            number += 1
            if problem is not None:
                yield SourceRecord(number, UnaskableError("expected a JSON object; what follows is none, or is cut"))
                return
            try:
                value = _object(parse_json(held[place:end], "a JSON object"))
            except UnaskableError as error:
                value = error
            yield SourceRecord(number, value)
            place, wanted = end, _CHUNK
    except UnicodeDecodeError:
        yield SourceRecord(number + 1, UnaskableError("expected UTF-8, it holds other bytes"))


def _csv(file: SourceFile, raw: IO[bytes]) -> Iterator[SourceRecord]:
    """Yield the rows of a table with a header; an empty cell is a missing one."""
    text = io.TextIOWrapper(raw, encoding="utf-8-sig", newline="")
    rows = csv.reader(text, strict=True)
    number = 0
    try:
        header = _next_row(rows)
        if header is None:
            return
        _require_distinct(file, header)
        while (row := _next_row(rows)) is not None:
            if not row:
                continue
            number += 1
            if len(row) != len(header):
                why = f"expected {len(header)} cells as in the header, got {len(row)}"
                yield SourceRecord(number, UnaskableError(why))
            else:
                yield SourceRecord(number, {name: cell for name, cell in zip(header, row, strict=True) if cell})
    except csv.Error as error:
        yield SourceRecord(number + 1, UnaskableError(f"line {rows.line_num} is not CSV: {error}"))
    except UnicodeDecodeError:
        yield SourceRecord(number + 1, UnaskableError("expected UTF-8, it holds other bytes"))


def _next_row(rows: Iterator[list[str]]) -> list[str] | None:
    with any_field_size():  # row by row: whoever reads between them keeps the limit that csv has
        return next(rows, None)


def _parquet(file: SourceFile) -> Iterator[SourceRecord]:
    parquet = need("pyarrow.parquet", f"reading {file.name}")
    number, problem = 0, ""
    try:
        table = parquet.ParquetFile(file.path)
        _require_distinct(file, table.schema_arrow.names)
        for batch in table.iter_batches(batch_size=_ROWS):
            for row in batch.to_pylist():
                number += 1
                yield SourceRecord(number, {name: cell for name, cell in row.items() if cell is not None})
    except UnicodeDecodeError:
        problem = "expected UTF-8, it holds other bytes"
    except InvalidInputError:
        raise
    except (OSError, ValueError) as error:  # pyarrow's own errors derive from these two
        problem = f"is no readable Parquet file ({type(error).__name__})"
    if problem:
        yield SourceRecord(number + 1, UnaskableError(problem))


def _require_distinct(file: SourceFile, header: list[str]) -> None:
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise InvalidInputError(f"{file.name}: expected distinct columns, {shown_cell(twice[0])} occurs twice")
