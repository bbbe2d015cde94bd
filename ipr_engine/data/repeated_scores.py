"""`RepeatedScores` are the scores of single samples, where candidates were asked a prompt several times: the table `samples.*`.

An outcome table holds their means. How much of these is the luck of the draw, `label_noise` says of the samples.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ipr_engine.data.table_files import FORMATS, read_table
from ipr_engine.data.table_stream import Kind
from ipr_engine.data.tables import BadRows, Table
from ipr_engine.errors import InvalidInputError

SAMPLES = "samples"
SAMPLE_COLUMNS: Mapping[str, Kind] = {"prompt_id": "text", "model": "text", "sample": "number", "quality": "number"}
MOST_SAMPLES = 100  # of one pair

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class RepeatedScores:
    """`RepeatedScores` hold what each sample scored.

    Attributes:
        prompt_ids, models: sorted by name.
        scores: (prompts, models, samples) in [0, 1]; NaN where there is no such sample.
    """

    prompt_ids: tuple[str, ...]
    models: tuple[str, ...]
    scores: Array

    def of(self, prompt_ids: Sequence[str], models: Sequence[str]) -> Array:
        """Return the scores of these models on those of the prompts that are here: (prompts, models, samples).

        Raises:
            InvalidInputError: a model is not here.
        """
        absent = sorted(set(models) - set(self.models))
        if absent:
            raise InvalidInputError(
                f"{SAMPLES}: expected samples of {absent[0]!r}, got those of {', '.join(map(repr, self.models))}"
            )
        wanted = set(prompt_ids)
        rows = [row for row, name in enumerate(self.prompt_ids) if name in wanted]
        return self.scores[np.ix_(rows, [self.models.index(name) for name in models])]


def read_repeated_scores(source: str | os.PathLike[str]) -> RepeatedScores:
    """Read a table of samples: prompt_id, model, sample (0 to 99), quality in [0, 1] or missing.

    Args:
        source: the file, or the folder that holds one samples.parquet (extra `[train]`), .csv or .jsonl.
    Raises:
        InvalidInputError: names file, row (counted from 1), column and reason.
        BackendUnavailableError: Parquet without pyarrow.
    """
    bad = BadRows()
    table = read_table(_file(Path(source)), bad)
    table.require(tuple(SAMPLE_COLUMNS))
    (row_codes, ids), (column_codes, models) = table.coded("prompt_id"), table.coded("model")
    row, column = row_codes.astype(np.int64), column_codes.astype(np.int64)  # codes are as narrow as a file has them
    if None in ids or None in models:
        for name in ("prompt_id", "model"):
            for at, cell in enumerate(table.text(name)):
                if cell is None:
                    table.complain(at, name, "expected text, it is missing")
    number, quality = _numbers(table), _qualities(table)
    _require_once(table, row, column, number)
    bad.refuse()
    known_ids, known_models = _named(ids), _named(models)
    row_of, column_of = _places(known_ids), _places(known_models)
    scores = np.full((len(known_ids), len(known_models), int(number.max(initial=-1)) + 1), np.nan)
    scores[row_of[row], column_of[column], number] = quality
    return RepeatedScores(tuple(sorted(known_ids)), tuple(sorted(known_models)), scores)


def _file(source: Path) -> Path:
    """Return the one table of samples in a folder, or the file itself."""
    if not source.is_dir():
        return source
    found = [file for ending in FORMATS if (file := source / f"{SAMPLES}.{ending}").exists()]
    if len(found) != 1:
        got = ", ".join(file.name for file in found) or "none"
        raise InvalidInputError(
            f"{source}: expected one {SAMPLES}.parquet, .csv or .jsonl, got {got}; "
            "`ipr collect` writes it where its plan says `samples: 2` or more"
        )
    return found[0]


def _named(texts: Sequence[str | None]) -> list[str]:
    return [text for text in texts if text is not None]  # missing ones were refused


def _places(names: Sequence[str]) -> npt.NDArray[np.int64]:
    """Return the place of each name among them sorted."""
    places = np.empty(len(names), np.int64)
    places[sorted(range(len(names)), key=names.__getitem__)] = np.arange(len(names))
    return places


def _numbers(table: Table) -> npt.NDArray[np.int64]:
    values, missing = table.numbers("sample")
    whole = ~missing & (values >= 0) & (values < MOST_SAMPLES) & (values == np.floor(values))
    for at in np.flatnonzero(~whole).tolist():
        table.complain(
            at, "sample", f"expected a whole number from 0 to {MOST_SAMPLES - 1}, got {_shown(values[at], missing[at])}"
        )
    return np.where(whole, values, 0).astype(np.int64)


def _qualities(table: Table) -> Array:
    values, missing = table.numbers("quality")
    for at in np.flatnonzero(~missing & ~((values >= 0) & (values <= 1))).tolist():
        table.complain(
            at, "quality", f"expected a number in [0, 1], or nothing where it is missing, got {values[at]:g}"
        )
    return values


def _shown(value: float, missing: bool) -> str:
    return "nothing" if missing else f"{value:g}"


def _require_once(
    table: Table, row: npt.NDArray[np.int64], column: npt.NDArray[np.int64], number: npt.NDArray[np.int64]
) -> None:
    """Complain of a sample that stands twice."""
    key = (row * (int(column.max(initial=0)) + 1) + column) * MOST_SAMPLES + number
    order = np.argsort(key, kind="stable")
    again = order[1:][key[order][1:] == key[order][:-1]]
    for at in again.tolist():
        table.complain(at, "sample", "expected each sample of a prompt and model once, this one stands before too")
