"""An `AnswerToGrade` goes into a `Grader`, a `Grade` comes out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ipr_engine._files import sha256_hex
from ipr_engine.errors import InvalidInputError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

GRADING = 2  # raised whenever a grader gives another grade to the same answer


@dataclass(frozen=True, kw_only=True)
class AnswerToGrade:
    """An `AnswerToGrade` is one answer of one candidate, beside what it was asked.

    Attributes:
        prompt: the text that was routed. body: the request in the form of OpenAI chat completions, `messages` above all.
        answer: its text, graded as it is, cut off or refused too.
        reference: what a right answer is, as the grader's kind takes it; None where not known.
        finish_reason: as the provider gave it. No grade depends on it: who asks for grades marks such answers.
    """

    prompt: str
    body: Mapping[str, Any]
    answer: str
    reference: Any = None
    finish_reason: str | None = None

    def __repr__(self) -> str:
        """Show sizes alone: what is printed into a log shall hold no prompt and no answer."""
        return f"AnswerToGrade(prompt of {len(self.prompt)} characters, answer of {len(self.answer)})"


class Grade(NamedTuple):
    """A `Grade` is what a grader says of one answer.

    Attributes:
        score: quality in [0, 1]; None where there is none (yet).
        raw: on the grader's own scale, where it has one: a reward, points of a judge.
        reason: why there is no score, or what is to be known of it; fixed words, no text of a prompt or answer.
    """

    score: float | None
    raw: float | None = None
    reason: str | None = None


class Grader(Protocol):
    """A `Grader` grades answers. The same identity gives the same grades."""

    @property
    def identity(self) -> str:
        """The sha256 of everything that a grade depends on: kind, options, versions, weights."""

    def grade(self, answers: Sequence[AnswerToGrade]) -> list[Grade]:
        """Return one grade an answer, in order. What is wrong with one answer or its reference is a reason, no error."""


class UngradableError(Exception):
    """An answer cannot be graded; its text is the reason, and holds no text of the answer."""


def grader_identity(spec: DataclassInstance, **more: Any) -> str:
    """Return the sha256 of a grader's options and of what else its grades depend on; more: JSON types alone."""
    document = {"grading": GRADING, "options": asdict(spec), **more}
    return sha256_hex(json.dumps(document, sort_keys=True, ensure_ascii=True).encode())


def merge_labels(grades: Mapping[str, Grade], labels: Mapping[str, float]) -> dict[str, Grade]:
    """Return the grades of one prompt, candidate by candidate, with its owner's labels in the place of a grader's.

    Raises:
        InvalidInputError: a label is no number in [0, 1].
    """
    for name, label in labels.items():
        if isinstance(label, bool) or not isinstance(label, (int, float)) or not 0 <= label <= 1:
            raise InvalidInputError(f"labels: expected a number in [0, 1] for each candidate; that of {name!r} is none")
    return {**grades, **{name: Grade(float(label), reason="own label") for name, label in labels.items()}}
