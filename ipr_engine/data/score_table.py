"""A `ScoreTable` holds what decisions have scored, by the id of their record: JSONL, CSV or Parquet, one row a decision.

Columns: id; quality, what the answer scored, a number in [0, 1]; optionally model, who answered, where it is not who was asked;
input_tokens, output_tokens, cost_usd, as they were billed; conversation, what tells which decisions belong together.
"""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from ipr_engine.data.outcomes import MEASURES
from ipr_engine.data.table_files import read_table
from ipr_engine.data.tables import BadRows

NO_CANDIDATE = "expected a candidate of the record, or nothing for who was asked"
_TEXTS = ("id", "model", "conversation")


class Score(NamedTuple):
    """A `Score` is one row of a table of scores.

    Attributes:
        where: what errors call it. quality: NaN where it was not judged.
        model: who answered; None: whoever was asked. conversation: None where none is named.
        input_tokens, output_tokens, cost_usd: NaN where they are not known.
    """

    where: str
    quality: float
    model: str | None
    conversation: str | None
    input_tokens: float
    output_tokens: float
    cost_usd: float

    @property
    def measures(self) -> dict[str, float | None]:
        """Return what is known beside the quality; None where nothing is."""
        return {name: None if math.isnan(value := getattr(self, name)) else value for name in MEASURES[1:]}


class ScoreTable:
    """A `ScoreTable` gives each record its score, and knows which scores nobody has asked for.

    Attributes:
        name: of the file.
    """

    def __init__(self, path: Path, bad: BadRows) -> None:
        """Read the table. bad: collects bad rows; the caller refuses them, or leaves them out.

        Raises:
            InvalidInputError: the file cannot be read, or a column is missing.
        """
        table = read_table(path, bad)
        table.require(("id", "quality"))
        self.name = table.name
        texts = {name: table.text(name) if name in table.columns else [None] * table.rows for name in _TEXTS}
        numbers = {name: table.numbers(name) for name in MEASURES if name in table.columns}
        times = Counter(texts["id"])
        self._ids = frozenset(times)
        self._rows: dict[str, Score] = {}
        self._left: set[str] = set()
        for row, id in enumerate(texts["id"]):
            values = dict.fromkeys(MEASURES, math.nan)
            good = True
            for name, (cells, missing) in numbers.items():
                value = values[name] = math.nan if missing[row] else float(cells[row])
                if not missing[row] and not (0 <= value <= 1 if name == "quality" else 0 <= value < math.inf):
                    expected = "a number in [0, 1]" if name == "quality" else "a finite number >= 0"
                    table.complain(row, name, f"expected {expected}, or nothing where it is missing, got {value:g}")
                    good = False
            if not id:
                table.complain(row, "id", "expected the id of a record, it is missing")
            elif times[id] > 1:
                table.complain(row, "id", f"expected each id once, {id!r} stands {times[id]} times: which score holds?")
            elif good and table.where(row) not in bad:
                others = texts["model"][row] or None, texts["conversation"][row] or None
                measures = (values[name] for name in MEASURES[1:])
                self._rows[id] = Score(table.where(row), values["quality"], *others, *measures)
                self._left.add(id)

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, id: str) -> bool:
        """Return whether a record of this id has a score, good or bad."""
        return id in self._ids

    def of(self, id: str) -> Score | None:
        """Return the score of a record; None where it has none."""
        self._left.discard(id)
        return self._rows.get(id)

    @property
    def strangers(self) -> int:
        """Return how many scores are of no record that was asked for."""
        return len(self._left)
