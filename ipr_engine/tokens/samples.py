"""A profile is fitted on texts from a JSONL file: {"text": ..., "group": ..., "kind": ...} a line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from ipr_engine._validate import lone_surrogate
from ipr_engine.errors import InvalidInputError


class Sample(NamedTuple):
    """A `Sample` is one text. group: its language or notation; kind: where it is from. Both are for the table of errors."""

    text: str
    group: str = "all"
    kind: str = "all"


def read_samples(path: str | Path) -> list[Sample]:
    """Read every line; lines whose text is empty are left out.

    Raises:
        InvalidInputError: a line is not of that form, its number named, never its text; or there is none.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"texts: expected a JSONL file in UTF-8, {path}: {type(error).__name__}") from None
    found = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            found.append(_sample(line, f"{path}:{number}"))
    kept = [sample for sample in found if sample.text]
    if not kept:
        raise InvalidInputError(f"texts: expected at least one text in {path}")
    return kept


def _sample(line: str, where: str) -> Sample:
    try:
        document = json.loads(line)
    except (ValueError, RecursionError):
        document = None
    good = (
        isinstance(document, dict)
        and "text" in document
        and set(document) <= {"text", "group", "kind"}
        and all(isinstance(value, str) and lone_surrogate(value) is None for value in document.values())
    )
    if not good or not isinstance(document, dict):
        raise InvalidInputError(f'texts: {where}: expected {{"text": ..., "group": ..., "kind": ...}}, texts all')
    return Sample(**document)
