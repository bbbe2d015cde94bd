"""This file reads what `ipr set-performance` is given: figures by candidate, as JSON or as a CSV."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ipr_engine._files import as_path
from ipr_engine._validate import shown
from ipr_engine.bundle.bundle_files import read_regular
from ipr_engine.bundle.candidate_entry import parse_performance
from ipr_engine.bundle.checks import performance_problem
from ipr_engine.bundle.fields import fail, parse_json
from ipr_engine.bundle.performance import IN_SECONDS, UNITS, Performance, performance_of
from ipr_engine.bundle.spec import BundleSpec
from ipr_engine.errors import BundleFormatError, InvalidInputError

KEY = "performance"
_UNREAD = ("fits", "refused")  # what `ipr performance fit` says beside
_RENAME = "name it as the bundle does, or say what it is called there with --as NAME=KEY (called=)"
_KNOWN = ("model", *UNITS, "basis")


def read_new_performance(
    path: str | os.PathLike[str], bundle: BundleSpec, *, called: Mapping[str, str] = MappingProxyType({})
) -> dict[str, Performance | None]:
    """Return figures of some of the bundle's candidates; None where the file takes a candidate's away.

    Args:
        path: a .csv with a header of `model`, any of the figures' names and `basis`, an empty cell where not known and comments
            after "#"; else JSON: {"performance": {name: {...} or null}}.
        called: candidate -> its name in the file, where that is another.
    Raises:
        InvalidInputError: the CSV is not of that form, or a cell is no figure; an unknown candidate in `called`, or a name in it that the
            file lacks.
        BundleError: the JSON is not, the file is missing, or names a candidate that the bundle does not have.
    """
    file = as_path(path, "path")
    unknown = sorted(set(called) - set(bundle.names))
    if unknown:
        raise InvalidInputError(f"as: unknown candidate {', '.join(unknown)}; known: {', '.join(bundle.names)}")
    keys = {name: called.get(name, name) for name in bundle.names}
    read = _of_csv if file.suffix.lower() == ".csv" else _of_json
    found = read(file, read_regular(file, str(file)), tuple(dict.fromkeys(keys.values())))
    for name, key in called.items():
        if key not in found:
            raise InvalidInputError(f"as: {file.name} has no {key!r} for {name}; it has {', '.join(found)}")
    return {name: found[key] for name, key in keys.items() if key in found}


def _of_json(file: Path, data: bytes, names: Sequence[str]) -> dict[str, Performance | None]:
    """Return the figures of a JSON file, by the file's own names."""
    document = parse_json(data, str(file))
    reported = document.mapping()
    keys = document.object((KEY, *(key for key in _UNREAD if key in reported)))
    given = keys[KEY].mapping()
    if not given:
        keys[KEY].fail("at least one candidate's figures")
    for name, field in given.items():
        if name not in names:
            fail(BundleFormatError, field.where, f"one of {', '.join(names)}", repr(name), _RENAME)
    basis = f"given in {file.name}"
    return {
        name: None if field.value is None else parse_performance(field, basis=basis) for name, field in given.items()
    }


def _of_csv(file: Path, data: bytes, names: Sequence[str]) -> dict[str, Performance | None]:
    """Return the figures of a CSV, by the file's own names."""
    try:
        lines = [line for line in data.decode("utf-8-sig").splitlines() if line.strip() and not line.startswith("#")]
    except UnicodeDecodeError:
        raise InvalidInputError(f"file: expected UTF-8 text in {file}") from None
    # strict: a quote that is not closed is an error and not a long cell.
    reader = csv.DictReader(io.StringIO("\n".join(lines)), strict=True)
    try:
        header, rows = list(reader.fieldnames or []), list(reader)
    except csv.Error as error:
        raise InvalidInputError(f"file: {file} is not CSV: {error}") from None
    unknown = [name for name in header if name not in _KNOWN]
    if unknown or "model" not in header or len(set(header)) < len(header):
        reported = ", ".join(f"{name} ({unit})" for name, unit in UNITS.items())
        advice = f"; times are {IN_SECONDS}" if any(name.casefold().endswith("_ms") for name in unknown) else ""
        raise InvalidInputError(
            f"file: expected the column model and distinct others of {reported}, basis in {file}, got {shown(','.join(header))}{advice}"
        )
    found: dict[str, Performance | None] = {}
    for number, row in enumerate(rows, start=1):
        here = f"{file.name}, row {number}"
        # DictReader puts cells beyond the header under None, and None into those that a row lacks.
        if None in row or None in row.values():
            raise InvalidInputError(f"{here}: expected {len(header)} cells as in the header")
        name = row["model"]
        if name not in names:
            raise InvalidInputError(f"{here}: model: expected one of {', '.join(names)}, got {shown(name)}; {_RENAME}")
        if name in found:
            raise InvalidInputError(f"{here}: model: {shown(name)} stands twice; keep one row")
        found[name] = _of_row(row, here, f"given in {file.name}")
    if not found:
        raise InvalidInputError(f"file: expected at least one candidate's figures in {file}")
    return found


def _of_row(row: Mapping[str, str], here: str, basis: str) -> Performance:
    """Return the figures of one row of a CSV; an empty cell is not known."""
    stated: dict[str, Any] = {"basis": row.get("basis") or basis}
    for key in UNITS:
        cell = row.get(key, "").strip()
        if cell:
            try:
                stated[key] = float(cell)
            except ValueError:
                raise InvalidInputError(
                    f"{here}: {key}: expected a number of {UNITS[key]}, got {shown(cell)}"
                ) from None
    problem = performance_problem(stated)
    if problem is not None:
        raise InvalidInputError(f"{here}: {problem.key}: expected {problem.expected}, got {problem.got}")
    return performance_of(stated)
