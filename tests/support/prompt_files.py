"""Files of prompts and logs for the tests of `ipr_engine.collection.sources`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ipr_engine.collection.question import Question
from ipr_engine.collection.sources import PromptSource, SourceReport, read_questions
from tests.support.places import ROOT

LOGS = ROOT / "tests" / "collection" / "sources" / "logs"  # written by the packages' own code: its README.md


def write_lines(path: Path, rows: list[Any]) -> Path:
    """Write one JSON value a line; a text or bytes as they are."""
    lines = [
        row if isinstance(row, bytes) else (row if isinstance(row, str) else json.dumps(row)).encode() for row in rows
    ]
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def questions(path: Path, report: SourceReport | None = None, **options: Any) -> list[Question]:
    """Read one source."""
    return list(read_questions(PromptSource(path=str(path), **options), report=report))


def said(question: Question) -> list[tuple[str, Any]]:
    """Return (role, content) of each message of a question."""
    return [(message["role"], message.get("content")) for message in question.body["messages"]]
