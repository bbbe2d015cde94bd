"""The number that an answer ends up with, as people and models write numbers."""

from __future__ import annotations

import pytest

from ipr_engine.grading.grader_specs import NumericSpec
from ipr_engine.grading.number_answers import answered_number
from tests.support.graded_answers import graded


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ("so 18.", 18),
        ("3 + 4 = 7\n#### 1,234", 1234),
        ("\\boxed{\\frac{1}{2}} of 7", 0.5),
        ("\\boxed{1{,}234}", 1234),
        ("Answer: 3/4 of 5", 0.75),
        ("1 1/2 cups", 1.5),
        ("2½", 2.5),
        ("$1,234.50 in total", 1234.5),
        ("#### -$5", -5),
        ("1.5 million people", 1.5e6),
        ("1,00,000", 1e5),
        ("1\u202f234", 1234),
        ("3.2 \\times 10^{5}", 3.2e5),
        ("6e3", 6000),
        ("−7 °C", -7),
        ("5-3", 3),
        ("5 m²", 5),
        ("in 2020, 100 of 1,2,3", 3),
        ("The **answer is 12**.\n\nLet me know by 2024", 12),
        ("Answer: 17 * 23 = 391", 391),
        ("The final answer is: 12 - 5 = 7 apples", 7),
        ("#### 2 * 3 = 3 * 2 = 6", 6),
        ("Answer: x = 5, as x + 1 is 6", 5),
        ("Answer: 8. Note that 2 + 2 = 4", 8),
        ("Answer: 5 = five", 5),
        ("Answer: No. 5", 5),
        ("<think>9 or 8</think> 7", 7),
        ("١٢٣ or ٣٤", 34),
        ("１２３", 123),
        ("1e999999 is not 4", 4),
        ("9" * 5000 + " is not 4", 4),
        ("3/0", None),
        ("none", None),
        ("", None),
    ],
)
def test_the_number_of_an_answer(answer, value):
    found = answered_number(answer)
    assert (None if found is None else found.value) == value


@pytest.mark.parametrize(
    ("answer", "reference", "score"),
    [
        ("It costs 18 dollars", 18, 1),
        ("It costs 18.01 dollars", "18", 0),
        ("50%", "0.5", 1),
        ("50%", "50", 1),
        ("0.5", "50%", 1),
        ("50", "50%", 1),
        ("17", "Half of 34 is 17.\n#### 17", 1),
        ("7", ["6", "7"], 1),
        ("8888889", "8888888", 0),
        ("8,888,888.0", 8888888, 1),
        ("0.3333333", "0.33333333", 1),
        ("3333333.31", "3333333.3", 1),
        ("123456789012345678", 123456789012345679, 0),
        ("123,456,789,012,345,679", 123456789012345679, 1),
        ("9007199254740993e1", "90071992547409920", 0),
        ("1/3", "0.3333333333", 1),
    ],
)
def test_a_number_is_right_within_the_tolerance(answer, reference, score):
    assert graded(NumericSpec(), answer, reference).score == score


def test_the_tolerance_is_relative_above_one_and_absolute_below():
    spec = NumericSpec(tolerance=0.01)
    assert [graded(spec, text, 200).score for text in ("202", "202.1")] == [1, 0]
    assert [graded(spec, text, 0.1).score for text in ("0.109", "0.111")] == [1, 0]


@pytest.mark.parametrize(
    ("answer", "reference", "score"),
    [
        ("123456789012345678", 123456789012345679, 0),
        ("0.12345678901234567", "0.12345678901234568", 0),
        ("0.5", "1/2", 1),
        ("2⅓", "7/3", 1),
        ("0.3 million", 300000, 1),
    ],
)
def test_numbers_are_compared_exactly_where_no_tolerance_is_left(answer, reference, score):
    assert graded(NumericSpec(tolerance=0), answer, reference).score == score


def test_a_decimal_comma_is_read_where_it_is_said():
    assert graded(NumericSpec(decimal_comma=True), "1.234,5", 1234.5).score == 1


def test_an_answer_without_a_number_is_wrong_and_a_reference_without_one_is_told():
    assert graded(NumericSpec(), "no idea", 4) == (0.0, None, "no number in the answer")
    assert graded(NumericSpec(), "4", "four") == (None, None, "reference: expected a number")


@pytest.mark.parametrize("piece", ["11,", "111,", "1/", "1 ", "\\frac{", "answer ", "#", "-", "9", "\\boxed{"])
def test_a_huge_answer_of_any_piece_is_read_in_one_pass(piece):
    answered_number(piece * 20_000)  # quadratic patterns would take minutes
