"""math-verify in a process of its own: right and wrong answers, from a thread, and answers that would never end."""

from __future__ import annotations

import threading

import pytest

from ipr_engine.grading.grader_specs import MathSpec
from ipr_engine.grading.math_grader import MathGrader
from tests.support.graded_answers import to_grade
from tests.support.skips import GRADE

pytest.importorskip("math_verify", reason=GRADE)

CASES = [
    ("1/2", "so \\boxed{0.5}", 1),
    ("\\frac{1}{2}", "The answer is $\\frac{2}{4}$.", 1),
    ("x^2+2x+1", "$(x+1)^2$", 1),
    ("\\sqrt{2}", "<think>\\boxed{3}</think>\\boxed{2^{1/2}}", 1),
    ("$[0,1)$", "$[0,1)$", 1),
    (42, "I get 43", 0),
    ("42", "no idea", 0),
    ("3", "\\boxed{" * 2000, 0),
    (None, "4", None),
    ("5", "\\boxed{9^{9^{9^{9^9}}}}", None),
]


def test_answers_are_graded_as_mathematics_and_none_holds_up_the_others():
    grades = MathGrader(MathSpec(seconds=3)).grade([to_grade(answer, right) for right, answer, _ in CASES])
    assert [grade.score for grade in grades] == [score for _, _, score in CASES]
    assert grades[-1].reason == "math-verify took longer than seconds allows"


def test_it_grades_from_a_thread_too():
    grades = []
    thread = threading.Thread(target=lambda: grades.extend(MathGrader(MathSpec()).grade([to_grade("$4$", "4")])))
    thread.start()
    thread.join()
    assert grades[0].score == 1
