"""Bad rows of a source, all of them: where each stands and what is wrong with it. No prompt's text is kept."""

from __future__ import annotations

from ipr_engine.errors import InvalidInputError

SHOWN = 10  # rows named in an error or a notice; the others are counted


class BadRows:
    """Collects what checks find, a row once, by the first thing wrong with it.

    Attributes:
        skip: whether an importer may leave such rows out; else `refuse` raises.
    """

    def __init__(self, *, skip: bool = False) -> None:
        self.skip = skip
        self._found: dict[str, str] = {}

    def add(self, where: str, reason: str, *, row: str | None = None) -> None:
        """where: for the reader, such as "mine.csv, row 3, model 'a'". row: the row it is of, by default `where`."""
        self._found.setdefault(where if row is None else row, f"{where}{reason}")

    def __len__(self) -> int:
        return len(self._found)

    def __contains__(self, row: str) -> bool:
        return row in self._found

    @property
    def summary(self) -> str:
        """One line for one row; else their number, and the first of them a line each."""
        told = list(self._found.values())
        if len(told) == 1:
            return told[0]
        more = [f"and {len(told) - SHOWN} more"] if len(told) > SHOWN else []
        return "\n  ".join([f"{len(told)} bad rows:", *told[:SHOWN], *more])

    def refuse(self, hint: str = "") -> None:
        """Raise InvalidInputError where there is any."""
        if self._found:
            raise InvalidInputError(self.summary + hint)
