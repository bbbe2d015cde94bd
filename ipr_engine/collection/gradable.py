"""A `Gradable` is one answer of a ledger, beside what it was asked, for a grader."""

from __future__ import annotations

from dataclasses import dataclass, field

from ipr_engine.grading.grade import AnswerToGrade


@dataclass(frozen=True, kw_only=True)
class Gradable:
    """A `Gradable` is an answer to grade.

    Attributes:
        key, question, candidate, sample: of its cell in the ledger. reference: as the ledger writes it. answer: what a grader takes.
    """

    key: bytes
    question: int
    candidate: str
    sample: int
    reference: str | None = field(repr=False)
    answer: AnswerToGrade
