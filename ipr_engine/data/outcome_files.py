"""This file reads outcome data, two tables, into `Outcomes`, checks them cell by cell, and writes them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine._files import writable_folder
from ipr_engine.bundle.task_names import task_problem
from ipr_engine.data.outcomes import MEASURES, Outcomes, question_keys, source_name
from ipr_engine.data.table_files import FORMATS, read_table
from ipr_engine.data.table_stream import Kind, table_stream
from ipr_engine.data.tables import BadRows, Table
from ipr_engine.errors import InvalidInputError

PROMPTS, OUTCOMES = "prompts", "outcomes"
WRITTEN = 16_384  # prompts whose outcomes are written at once: bounds the memory of their cells
_PROMPT_COLUMNS = {
    "prompt_id": "prompt_ids",
    "prompt": "prompts",
    "split": "splits",
    "dataset": "datasets",
    "question_key": "question_keys",
}  # column -> attribute of `Outcomes`
TASK = "task"  # a column that is written only where some prompt has a task

PathLike = str | os.PathLike[str]


def load_outcomes(
    source: PathLike | tuple[PathLike, PathLike],
    *,
    models: Sequence[str] | None = None,
    split: str | None = None,
) -> Outcomes:
    """Read and check outcome data (docs/outcome-data.md).

    Args:
        source: a folder that holds prompts.* and outcomes.*, or the two files; .parquet (extra `[train]`), .csv or
            .jsonl, each of its own.
        models: the candidates wanted, in the column order wanted; None takes all, sorted by name.
        split: keep the prompts of this split; None keeps all.
    Returns:
        Outcomes, sparse: NaN where a candidate has no outcome. Rows are sorted by prompt_id, whatever the file's order.
    Raises:
        InvalidInputError: names file, row (counted from 1), column and reason.
        BackendUnavailableError: Parquet without pyarrow.

    Example:
        >>> train = load_outcomes(folder, split="train")
        >>> train.complete(["a", "b"]).quality.shape
        (2, 2)
    """
    prompts_file, outcomes_file = _files(source)
    name = source_name(prompts_file.parent)
    bad = BadRows()
    loaded = assemble(name, read_table(prompts_file, bad), read_table(outcomes_file, bad), bad)
    if split is not None:
        loaded = loaded.of_split(split)
    return loaded if models is None else loaded.select(models)


def assemble(name: str, prompts: Table, outcomes: Table, bad: BadRows | None = None, hint: str = "") -> Outcomes:
    """Check two tables and join them into `Outcomes`; the only place where outcome data is judged.

    Args:
        bad: collects every bad row before any is refused; by default one of this call.
        hint: what to do about them, for the error.
    """
    bad = BadRows() if bad is None else bad
    prompts.bad = outcomes.bad = bad
    prompts.require(("prompt_id", "prompt"))
    outcomes.require(("prompt_id", "model", "quality"))
    ids, texts = _filled(prompts, "prompt_id"), _prompt_texts(prompts)
    if not ids:
        raise InvalidInputError(f"{prompts.name}: expected prompts, the table is empty")
    # Rows are sorted by id, so that the file's order changes nothing; equal ids come to lie side by side.
    in_order = all(a < b for a, b in pairwise(ids))
    order: Sequence[int] = range(len(ids)) if in_order else sorted(range(len(ids)), key=ids.__getitem__)
    row_of: dict[str, int] = {}
    for place, i in enumerate(order):
        if ids[i] in row_of:
            if ids[i]:
                twin = prompts.where(order[place - 1])
                prompts.complain(i, "prompt_id", f"expected distinct ids, {ids[i]!r} stands in {twin} too")
            continue
        row_of[ids[i]] = place

    row, column, models = _pairs(prompts, outcomes, row_of)
    shape = (len(ids), len(models))
    splits, datasets = _optional(prompts, "split"), _optional(prompts, "dataset")
    tasks, no_tasks = _task_cells(prompts)
    keys = prompts.text("question_key") if "question_key" in prompts.columns else [None] * len(ids)
    measures = {measure: _placed(outcomes, measure, shape, row, column) for measure in MEASURES}
    # Every check has run: all bad rows are told in one error.
    bad.refuse(hint)
    made = question_keys(texts) if None in keys else ()
    return Outcomes(
        source=name,
        models=tuple(models),
        prompt_ids=tuple(ids[i] for i in order),
        prompts=tuple(texts[i] for i in order),
        splits=tuple(splits[i] for i in order),
        datasets=tuple(datasets[i] for i in order),
        question_keys=tuple(made[i] if (key := keys[i]) is None else key for i in order),
        quality=measures["quality"],
        input_tokens=measures["input_tokens"],
        output_tokens=measures["output_tokens"],
        cost_usd=measures["cost_usd"],
        tasks=tuple(tasks[i] for i in order) if any(tasks) else (),
        no_tasks=no_tasks,
    )


def write_outcomes(outcomes: Outcomes, folder: PathLike, *, format: str = "parquet") -> Path:
    """Write prompts.* and outcomes.* into `folder`, which may not hold any yet; loading them gives the same arrays.

    Each file appears whole or not at all. Returns the folder.
    """
    if format not in FORMATS:
        raise InvalidInputError(f"format: expected one of {', '.join(FORMATS)}, got {format!r}")
    target = free_for_outcomes(folder)
    target.mkdir(parents=True, exist_ok=True)
    columns = {**_PROMPT_COLUMNS, **({TASK: "tasks"} if outcomes.tasks else {})}
    texts: dict[str, Kind] = dict.fromkeys(columns, "text")
    with table_stream(target / f"{PROMPTS}.{format}", texts) as table:
        for begin in range(0, len(outcomes), WRITTEN):
            some = slice(begin, begin + WRITTEN)
            table.write({name: getattr(outcomes, of_all)[some] for name, of_all in columns.items()})
    kinds: dict[str, Kind] = {"prompt_id": "text", "model": "text"}
    kinds |= {measure: _kind(getattr(outcomes, measure)) for measure in MEASURES}
    with table_stream(target / f"{OUTCOMES}.{format}", kinds) as table:
        for part in _outcome_parts(outcomes, kinds):
            table.write(part)
    return target


def _outcome_parts(outcomes: Outcomes, kinds: Mapping[str, Kind]) -> Iterator[dict[str, Sequence[Any]]]:
    """Yield the columns of the outcomes' table, some prompts at a time; an outcome is written where any measure is known."""
    for begin in range(0, len(outcomes), WRITTEN):
        some = slice(begin, begin + WRITTEN)
        tables = {measure: getattr(outcomes, measure)[some] for measure in MEASURES}
        row, column = np.nonzero(~np.logical_and.reduce([np.isnan(table) for table in tables.values()]))
        part: dict[str, Sequence[Any]] = {
            "prompt_id": [outcomes.prompt_ids[begin + i] for i in row.tolist()],
            "model": [outcomes.models[j] for j in column.tolist()],
        }
        yield part | {measure: _cells(table[row, column], kinds[measure]) for measure, table in tables.items()}


def free_for_outcomes(folder: PathLike) -> Path:
    """Return the folder as a path, once it is certain that outcome data can be written there.

    Raises:
        InvalidInputError: it is a file, cannot be written, or holds outcome data already.
    """
    target = writable_folder(folder, "folder")
    taken = [file.name for table in (PROMPTS, OUTCOMES) for file in _candidates(target, table)]
    if taken:
        raise InvalidInputError(f"folder: expected a folder without outcome data, {target} holds {taken[0]}")
    return target


def find_sources(folder: PathLike) -> list[Path]:
    """Return the folder itself or its subfolders that hold outcome data, sorted by name."""
    base = Path(folder)
    places = [base, *sorted(base.iterdir())] if base.is_dir() else []
    return [place for place in places if place.is_dir() and all(_candidates(place, t) for t in (PROMPTS, OUTCOMES))]


def _files(source: PathLike | tuple[PathLike, PathLike]) -> tuple[Path, Path]:
    """Return the prompts file and the outcomes file of a source; InvalidInputError where there is none, or more than one."""
    if isinstance(source, tuple):
        if len(source) != 2:
            raise InvalidInputError(f"source: expected a folder or (prompts file, outcomes file), got {source!r}")
        return Path(source[0]), Path(source[1])
    folder = Path(source)
    if not folder.is_dir():
        raise InvalidInputError(f"source: expected a folder with prompts.* and outcomes.*, got {folder}")
    found = []
    for table in (PROMPTS, OUTCOMES):
        files = _candidates(folder, table)
        if len(files) != 1:
            names = ", ".join(f"{table}.{ending}" for ending in FORMATS)
            held = " and ".join(file.name for file in files) or "none"
            raise InvalidInputError(f"source: expected one of {names} in {folder}, found {held}")
        found.append(files[0])
    return found[0], found[1]


def _candidates(folder: Path, table: str) -> list[Path]:
    """Return the files of a table that a folder holds, of any format."""
    return [file for ending in FORMATS if (file := folder / f"{table}.{ending}").is_file()]


def _filled(table: Table, column: str) -> list[str]:
    """Return a column of texts; a missing one is a bad cell."""
    cells = []
    for row, cell in enumerate(table.text(column)):
        if not cell:
            table.complain(row, column, "expected text, it is missing")
        cells.append(cell or "")
    return cells


def _prompt_texts(prompts: Table) -> list[str]:
    """Return the prompts; an empty text is one, a missing cell is bad."""
    texts = []
    for row, text in enumerate(prompts.text("prompt")):
        if text is None:
            prompts.complain(row, "prompt", "expected text, it is missing")
        texts.append(text or "")
    return texts


def _optional(table: Table, column: str) -> list[str]:
    """Return a column of texts, "" where a cell or the column is missing; one text is one object, in however many rows."""
    if column not in table.columns:
        return [""] * table.rows
    codes, texts = table.coded(column)
    return [texts[code] or "" for code in codes.tolist()]


def _task_cells(prompts: Table) -> tuple[list[str], str]:
    """Return the tasks, "" where a cell or the column is missing; and why the column holds none, "" where it does or is not there.

    Nobody may ask for tasks: a column of that name that says something else is left alone, and is an error of who asks.
    """
    taken, prompts.bad = prompts.bad, (bad := BadRows())
    cells = _optional(prompts, TASK)
    problems = {cell: task_problem(cell) for cell in set(cells) if cell}
    for row, cell in enumerate(cells):
        if (problem := problems.get(cell)) is not None:
            prompts.complain(row, TASK, f"expected {problem}, got {len(cell)} characters")
    prompts.bad = taken
    return ([""] * len(cells), bad.summary) if len(bad) else (cells, "")


def _pairs(
    prompts: Table, outcomes: Table, row_of: Mapping[str, int]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], list[str]]:
    """Return row and column of every outcome, and the models in column order; a pair that stands twice is a bad row."""
    id_codes, ids = outcomes.coded("prompt_id")
    model_codes, names = outcomes.coded("model")
    for code, name in enumerate(names):
        if not name:
            for i in np.flatnonzero(model_codes == code).tolist():
                outcomes.complain(i, "model", "expected text, it is missing")
    if not names:
        raise InvalidInputError(f"{outcomes.name}: expected outcomes, the table is empty")
    # (distinct ids,) the row of each, -1 where no prompt has it
    places = np.array([-1 if name is None else row_of.get(name, -1) for name in ids], dtype=np.int64)
    row = places[id_codes]
    for i in np.flatnonzero(row < 0).tolist():
        outcomes.complain(i, "prompt_id", f"expected an id of {prompts.name}, got {ids[id_codes[i]]!r}")
    models = sorted(str(name) for name in names)
    column = np.array([models.index(str(name)) for name in names], dtype=np.int64)[model_codes]
    # One number a (prompt, model) pair.
    pair = row * len(models) + column
    there = np.zeros((len(row_of) + 1) * len(models), np.bool_)
    there[pair[row >= 0]] = True
    if there.sum() == (row >= 0).sum():
        return row, column, models
    # Equal neighbours in sorted order are the same pair twice.
    order = np.argsort(pair, kind="stable")
    for at in np.flatnonzero((np.diff(pair[order]) == 0) & (row[order][1:] >= 0)).tolist():
        first, second = (int(i) for i in order[at : at + 2])
        what = f"{ids[id_codes[second]]!r} and {models[column[second]]!r}"
        outcomes.complain(
            second, "model", f"expected each prompt and model once, {what} stand in {outcomes.where(first)} too"
        )
    return row, column, models


def _placed(
    outcomes: Table,
    measure: str,
    shape: tuple[int, int],
    row: npt.NDArray[np.int64],
    column: npt.NDArray[np.int64],
) -> npt.NDArray[np.float64]:
    """Return the checked values of a measure as (prompts, models), NaN where there are none."""
    placed = np.full(shape, np.nan)
    if measure in outcomes.columns:
        placed[row, column] = _checked(outcomes, measure)
    return placed


def _checked(outcomes: Table, measure: str) -> npt.NDArray[np.float64]:
    """Return the values of a measure, one an outcome; a value out of range is a bad cell."""
    values, missing = outcomes.numbers(measure)
    with np.errstate(invalid="ignore"):
        good = (values >= 0) & (values <= 1 if measure == "quality" else np.isfinite(values))
    expected = "a number in [0, 1]" if measure == "quality" else "a finite number >= 0"
    for i in np.flatnonzero(~(good | missing)).tolist():
        outcomes.complain(i, measure, f"expected {expected}, or nothing where it is missing, got {values[i]:g}")
    return values


def _kind(values: npt.NDArray[np.float64]) -> Kind:
    """Return what the cells of a measure are: whole numbers where it has no other (1 and 1.0 load alike)."""
    # Counts stay counts in CSV and JSONL.
    parts = [part[~np.isnan(part)] for part in np.array_split(values, max(1, len(values) // WRITTEN))]
    if not any(len(part) for part in parts):
        return "missing"
    return "whole" if all((part == np.floor(part)).all() for part in parts) else "number"


def _cells(values: npt.NDArray[np.float64], kind: Kind) -> list[Any]:
    """Return Python numbers of this kind, None where NaN."""
    number = float if kind == "number" else int
    return [None if value != value else number(value) for value in values.tolist()]
