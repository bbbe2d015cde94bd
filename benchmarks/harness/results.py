"""Figures are written as lines: one JSON object each, appended to a file, strict JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

Line = dict[str, Any]
FOLDER = Path(__file__).resolve().parents[1] / "results"


def as_json(line: Mapping[str, Any]) -> str:
    """Return the line as it stands in a file. A figure that is no number is refused: it would be no JSON."""
    return json.dumps(line, allow_nan=False)


def append(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Write each line at the end of the file, which is made where it is missing.

    Raises:
        OSError: it cannot be written.
    """
    with path.open("a", encoding="utf-8") as file:
        file.writelines(as_json(line) + "\n" for line in lines)
