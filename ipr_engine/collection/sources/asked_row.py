"""An `AskedRow` is what a record asks, an `UnaskableError` why it asks nothing; a `SourceReport` counts what was left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ipr_engine._read_only import read_only
from ipr_engine.collection.question import LoggedAnswer
from ipr_engine.data.tables import BadRows


class UnaskableError(Exception):
    """A record cannot be asked again. Its text is the reason, and holds no text of a prompt.

    Attributes:
        part: which part of the record it is about, such as ", span 2"; "" for the whole.
    """

    def __init__(self, reason: str, part: str = "") -> None:
        super().__init__(reason)
        self.part = part


@dataclass(frozen=True, kw_only=True)
class AskedRow:
    """An `AskedRow` is one prompt as a record of a file states it.

    Attributes:
        request: of OpenAI chat completions, OpenAI Responses or Anthropic Messages, as it was sent.
        part: which part of the record it is, such as ", span 2"; "" for the whole.
        prompt_id, reference, grader, dataset, split, question_key, labels, answers: as of `Question`; None, or empty, where not stated.
        task: what the prompt is for, as it stands there: a name or something else (`stated_task`).
    """

    request: Mapping[str, Any] = field(repr=False)
    part: str = ""
    prompt_id: str | None = None
    reference: Any = field(default=None, repr=False)
    grader: str | None = None
    dataset: str | None = None
    split: str | None = None
    question_key: str | None = None
    task: Any = field(default=None, repr=False)
    labels: Mapping[str, float] = field(default_factory=lambda: read_only({}))
    answers: Mapping[str, LoggedAnswer] = field(default_factory=lambda: read_only({}))


class SourceReport:
    """A `SourceReport` says what of the sources did not become questions.

    Attributes:
        bad: rows that were left out because the source says `skip_bad_rows`.
        questions, rows: how many questions there are, and rows that ask one of them.
    """

    def __init__(self) -> None:
        self.bad = BadRows(skip=True)
        self.questions = 0
        self.rows = 0
        self._notes: Counter[str] = Counter()

    def note(self, text: str, count: int = 1) -> None:
        """Count something that was passed over, or left out of a request, on purpose."""
        self._notes[text] += count

    @property
    def lines(self) -> list[str]:
        """Return what to tell the user: what was passed over, with how often it was, and the bad rows that were left out."""
        told = [f"{text} ({count} times)" if count > 1 else text for text, count in sorted(self._notes.items())]
        return [*told, *([f"left out: {self.bad.summary}"] if len(self.bad) else [])]
