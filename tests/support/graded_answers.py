"""Answers to grade, in one line each."""

from __future__ import annotations

from typing import Any

from ipr_engine.grading.grade import AnswerToGrade, Grade
from ipr_engine.grading.make_grader import make_grader


def to_grade(answer: str, reference: Any = None, question: str = "What is it?") -> AnswerToGrade:
    body = {"messages": [{"role": "user", "content": question}]}
    return AnswerToGrade(prompt=question, body=body, answer=answer, reference=reference)


def graded(spec: Any, answer: str, reference: Any = None) -> Grade:
    return make_grader(spec).grade([to_grade(answer, reference)])[0]
