"""A `Table` holds columns of cells; every error of a cell names the file, the row and the column.

Rows are counted from 1, headers and blank lines left out. An empty CSV cell, a JSON null, an absent JSON key and a Parquet null all
mean "missing"; a written NaN does not, it is a value and a wrong one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine._validate import lone_surrogate
from ipr_engine.errors import InvalidInputError

SHORT_CELL = 24  # characters


class Table:
    """A `Table` holds columns of equal length, and collects or raises what is wrong with their cells.

    Attributes:
        name: the file's name, for errors.
        columns: names in file order.
        rows: how many.
        bad: collects bad cells; None raises at the first one.
    """

    def __init__(
        self,
        name: str,
        columns: Mapping[str, Sequence[Any]],
        *,
        labels: Sequence[str] | None = None,
        origins: Sequence[str] | None = None,
        numbers: Sequence[int] | None = None,
    ) -> None:
        """Take the columns.

        Args:
            labels: what errors call each row, by default its number.
            origins: the row of a file that each came from, by default labels.
            numbers: of the rows, where not all of a file are here.
        """
        self.name = name
        self.bad: BadRows | None = None
        self._columns = dict(columns)
        self._labels, self._origins, self._numbers = labels, origins, numbers
        self.rows = len(next(iter(self._columns.values()), ()))

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns, in file order."""
        return tuple(self._columns)

    def where(self, row: int) -> str:
        """Return what errors call a row; `row` is an index from 0."""
        if self._labels is not None:
            return self._labels[row]
        return f"{self.name}, row {row + 1 if self._numbers is None else self._numbers[row]}"

    def complain(self, row: int, column: str, reason: str) -> None:
        """Collect a bad cell in `bad`, or raise for it; `row` is an index from 0. The caller goes on as if it were missing."""
        reason = f", column {column!r}: {reason}"
        if self.bad is None:
            raise InvalidInputError(self.where(row) + reason)
        self.bad.add(self.where(row), reason, row=None if self._origins is None else self._origins[row])

    def require(self, columns: Sequence[str], hint: str = "") -> None:
        """Raise InvalidInputError for the first of the columns that is not there, and what to do about it (`hint`)."""
        absent = [column for column in columns if column not in self.columns]
        if absent:
            raise InvalidInputError(
                f"{self.name}: expected column {absent[0]!r}, got {', '.join(map(repr, self.columns)) or 'none'}{hint}"
            )

    def renamed(self, columns: Mapping[str, str]) -> Table:
        """Return the table with columns under other names: {new: old}.

        Raises:
            InvalidInputError: an old name is not there, or a new one is already, or is given to two.
        """
        for new, old in columns.items():
            if old not in self.columns:
                raise InvalidInputError(
                    f"column: {self.name} has no column {old!r} to take for {new!r}; it has {', '.join(map(repr, self.columns))}"
                )
            if new in self.columns and new not in columns.values():
                raise InvalidInputError(f"column: {self.name} has a column {new!r} already; leave out {new}={old}")
        if len(set(columns.values())) < len(columns):
            raise InvalidInputError(f"column: expected one new name for each column, got {dict(columns)}")
        new_of = {old: new for new, old in columns.items()}
        return self._with_names([new_of.get(name, name) for name in self.columns])

    def _with_names(self, names: Sequence[str]) -> Table:
        """Return the same cells under these names, in file order."""
        renamed = dict(zip(names, self._columns.values(), strict=True))
        return Table(self.name, renamed, labels=self._labels, origins=self._origins, numbers=self._numbers)

    def values(self, column: str) -> Sequence[Any]:
        """Return the cells as they were read, None where missing."""
        return self._columns[column]

    def text(self, column: str) -> list[str | None]:
        """Return the cells as text; whole numbers count as text, anything else is bad, a lone surrogate too."""
        cells = self.values(column)
        result: list[str | None] = []
        for row, cell in enumerate(cells):
            if cell is not None and not isinstance(cell, str):
                # Not bool: True is no text that anybody wrote.
                if type(cell) is int:
                    cell = str(cell)
                else:
                    self.complain(row, column, f"expected text, got {shown_cell(cell)}")
                    cell = None
            elif cell is not None and lone_surrogate(cell) is not None:
                self.complain(row, column, "expected Unicode text, it holds a lone surrogate")
                cell = None
            result.append(cell)
        return result

    def coded(self, column: str) -> tuple[npt.NDArray[np.integer], list[str | None]]:
        """Return (rows,) codes and the distinct texts in order of appearance, which the codes count through."""
        code_of: dict[str | None, int] = {}  # text -> its code
        cells = self.text(column)
        codes = np.fromiter((code_of.setdefault(cell, len(code_of)) for cell in cells), np.int64, len(cells))
        return codes, list(code_of)

    def numbers(self, column: str) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        """Return the values and where they are missing, (rows,) each; a value is NaN where missing, and where NaN was written."""
        cells = self.values(column)
        values, missing = np.full(len(cells), np.nan), np.zeros(len(cells), dtype=np.bool_)
        for row, cell in enumerate(cells):
            if cell is None:
                missing[row] = True
                continue
            try:
                # float(True) is 1.0: a flag where a number is expected is a mistake.
                if isinstance(cell, (bool, list, dict)):
                    raise TypeError
                values[row] = float(cell)
            except OverflowError:
                self.complain(row, column, "expected a number, got one beyond float64 (1.8e308)")
            except (ValueError, TypeError):
                self.complain(row, column, f"expected a number, got {shown_cell(cell)}")
            else:
                continue
            missing[row] = True  # reported already
        return values, missing


def shown_cell(value: object) -> str:
    """Return a cell as an error tells it: itself where it is short and no sentence, else its kind and size: it may be a prompt."""
    text = repr(value)
    if isinstance(value, str):
        bare = len(text) <= SHORT_CELL and len(value.split()) <= 1
        return text if bare else f"a text of {len(value)} characters"
    if isinstance(value, (list, dict)):
        return text if len(text) <= SHORT_CELL // 2 else f"a {type(value).__name__} of {len(value)}"
    return text if len(text) <= SHORT_CELL else f"{text[:SHORT_CELL]}…"


SHOWN = 10  # rows named in an error or a notice; the others are counted


class BadRows:
    """`BadRows` collect what checks find, a row once, by the first thing wrong with it.

    Attributes:
        skip: whether an importer may leave such rows out; else `refuse` raises.
    """

    def __init__(self, *, skip: bool = False) -> None:
        self.skip = skip
        self._found: dict[str, str] = {}

    def add(self, where: str, reason: str, *, row: str | None = None) -> None:
        """Note a bad row.

        Args:
            where: for the reader, such as "mine.csv, row 3, model 'a'".
            row: the row it is of, by default `where`.
        """
        self._found.setdefault(where if row is None else row, f"{where}{reason}")

    def __len__(self) -> int:
        return len(self._found)

    def __contains__(self, row: str) -> bool:
        return row in self._found

    @property
    def summary(self) -> str:
        """Return what is wrong: one line for one row; else the number of rows, and the first of them a line each."""
        found = list(self._found.values())
        if len(found) == 1:
            return found[0]
        more = [f"and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
        return "\n  ".join([f"{len(found)} bad rows:", *found[:SHOWN], *more])

    def refuse(self, hint: str = "") -> None:
        """Raise InvalidInputError where there is any bad row."""
        if self._found:
            raise InvalidInputError(self.summary + hint)
