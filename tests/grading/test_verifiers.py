"""Answers held against right ones: exact, contains, overlap, choice, regex, json; hostile answers too."""

from __future__ import annotations

import pytest

from ipr_engine.grading.grader_specs import ChoiceSpec, ContainsSpec, ExactSpec, JsonSpec, OverlapSpec, RegexSpec
from ipr_engine.grading.verifiers import chosen_letter
from tests.support.graded_answers import graded
from tests.support.skips import GRADE

pytest.importorskip("regex", reason=GRADE)


@pytest.mark.parametrize(
    ("answer", "reference", "score"),
    [
        ("The  Eiffel Tower.", "eiffel tower", 1),
        ("Ｐａｒｉｓ", "Paris", 1),
        ("Paris, France", "Paris", 0),
        ("rock'n'roll", "rocknroll", 1),
        ("3.5", "35", 0),
        ("-5", "5", 0),
        ("4", 4, 1),
        ("4", 4.0, 1),
        ("<think>Rome?</think>Paris", ["Lyon", "paris"], 1),
        ("", "Paris", 0),
    ],
)
def test_exact_ignores_case_blanks_punctuation_and_articles(answer, reference, score):
    assert graded(ExactSpec(), answer, reference).score == score


@pytest.mark.parametrize("spec", [ExactSpec(), ContainsSpec()])
@pytest.mark.parametrize(
    ("answer", "reference", "score"),
    [
        ("", "A", 0),
        ("The", "A", 0),
        ("!!!", "A", 0),
        ("A.", "A", 1),
        ("a", ["B", "A"], 1),
        ("The", "The", 1),
        ("", "?", 0),
        ("...", "?", 0),
        ("?", "?", 1),
        ("", ["A", "?"], 0),
    ],
)
def test_a_reference_of_articles_or_punctuation_alone_is_not_met_by_nothing(spec, answer, reference, score):
    assert graded(spec, answer, reference).score == score


@pytest.mark.parametrize("spec", [ExactSpec(), ContainsSpec(), OverlapSpec(), RegexSpec()])
@pytest.mark.parametrize("reference", ["", "  ", ["Paris", ""]])
def test_a_blank_reference_is_told_and_not_met_by_an_empty_answer(spec, reference):
    assert graded(spec, "", reference) == (None, None, "reference: an accepted answer is empty")


def test_overlap_takes_a_reference_of_articles_alone():
    assert [graded(OverlapSpec(), text, "The").raw for text in ("The", "", "Rome")] == [1.0, 0.0, 0.0]


def test_exact_ignores_what_it_is_told_to():
    assert graded(ExactSpec(ignore=()), "paris", "Paris").score == 0
    assert graded(ExactSpec(ignore=("case",)), "PARIS", "paris").score == 1
    assert graded(ExactSpec(ignore=("articles",)), "The", "A").score == 0


@pytest.mark.parametrize(
    ("answer", "reference", "score"),
    [
        ("It is the city of Paris, in France.", "Paris", 1),
        ("comparison", "Paris", 0),
        ("首都は東京です。", "東京", 1),
        ("He has 12 apples", "2", 0),
        ("Loď (Puppis)", ["Carina", "Puppis"], 1),
    ],
)
def test_contains_finds_whole_words(answer, reference, score):
    assert graded(ContainsSpec(), answer, reference).score == score


def test_overlap_forgives_inflection_and_is_no_score_yet():
    near, far = (graded(OverlapSpec(), text, "Kulová hvězdokupa") for text in ("v kulové hvězdokupě", "galaxie"))
    assert near.score is far.score is None
    assert near.raw > 0.5 > far.raw


@pytest.mark.parametrize("spec", [ExactSpec(), ContainsSpec(), OverlapSpec(), ChoiceSpec(), RegexSpec()])
@pytest.mark.parametrize("reference", [None, [], {"a": 1}, True, [None]])
def test_without_a_reference_that_can_be_used_there_is_a_reason(spec, reference):
    grade = graded(spec, "answer", reference)
    assert grade.score is None
    assert grade.reason.startswith("reference: ")


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"),
        ("(B)", "B"),
        ("**B**", "B"),
        ("The answer is (B).", "B"),
        ("The correct option is D because A is wrong", "D"),
        ("Answer: \\boxed{\\text{C}}", "C"),
        ("B. Paris is the capital", "B"),
        ("A good approach gives B", "B"),
        ("the answer is A and not B", "A"),
        ("Answer: A\n\nWait. Answer: C", "C"),
        ("A is right, B is wrong", None),
        ("The correct answer is B. Option A is wrong.", "B"),
        ("The correct answer is B. Answer A is wrong.", "B"),
        ("The answer would be option (C), choice D being wrong.", "C"),
        ("**Answer**: B\n\nOption A: no.", "B"),
        ("**Answer:** B", "B"),
        ("The correct option is B. Option A is wrong.", "B"),
        ("Option A is wrong, so option B", "B"),
        ("My answer: I would pick B.", "B"),
        ("The answer is I think C", "C"),
        ("Answer: A cat has four legs, so D", "D"),
        ("The answer is A for two reasons", "A"),
        ("Answer: A", "A"),
        ("Answer: A.", "A"),
        ("Answer: A only", "A"),
        ("None of them", None),
    ],
)
def test_the_option_of_an_answer(answer, letter):
    assert chosen_letter(answer, "ABCD") == letter


@pytest.mark.parametrize(
    ("answer", "letter"), [("The answer is I", "I"), ("Answer: I is right", "I"), ("I would say it is J", "J")]
)
def test_i_is_an_option_and_a_word(answer, letter):
    assert chosen_letter(answer, "ABCDEFGHIJ") == letter


def test_an_option_is_right_by_its_letter():
    assert graded(ChoiceSpec(letters="ABCD"), "(B)", "b").score == 1
    assert graded(ChoiceSpec(letters="ABCD"), "(E)", "B") == (0.0, None, "no option in the answer")
    assert graded(ChoiceSpec(letters="ABCD"), "(B)", "Paris").reason == "reference: expected a letter of ABCD"


def test_a_pattern_is_found_or_matches_the_whole():
    assert graded(RegexSpec(pattern=r"\d{4}"), "in 1984 it was").score == 1
    assert graded(RegexSpec(pattern=r"\d{4}", whole=True), "in 1984 it was").score == 0
    assert graded(RegexSpec(ignore_case=True), "PARIS", "paris|lyon").score == 1


def test_a_pattern_that_would_run_for_ever_is_ended():
    grade = graded(RegexSpec(pattern=r"^(a|a|aa)+$", seconds=0.2), "a" * 64 + "b")
    assert grade == (None, None, "the pattern took longer than seconds allows")


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ('{"a": 1, "b": [true, null]}', 1),
        ('Here:\n```json\n{"b": [true, null], "a": 1.0}\n```\nDone', 1),
        ('The JSON is {"a": 1, "b": [true, null]}, as asked.', 1),
        ('{"a": true, "b": [true, null]}', 0),
        ('{"a": 1}', 0),
        ('{"a": NaN}', 0),
        ("[" * 100_000, 0),
        ("nothing", 0),
    ],
)
def test_json_is_compared_by_value(answer, score):
    assert graded(JsonSpec(), answer, {"a": 1, "b": [True, None]}).score == score


def test_json_needs_its_keys():
    assert graded(JsonSpec(keys=("a",)), '{"a": 1}').score == 1
    assert graded(JsonSpec(keys=("a", "b")), '{"a": 1}') == (0.0, None, "a key is missing")
    assert graded(JsonSpec(), '{"a": 1}', '{"a": 1}').score == 1


@pytest.mark.parametrize(
    "piece",
    [
        "(",
        "A ",
        "```\n",
        "{",
        "option ",
        "answer(((",
        "answer is ",
        "answer:::",
        "answer \n",
        "\\boxed{",
        "the ",
        "ﷺ",
        "\ud800",
    ],
)
def test_a_huge_answer_of_any_piece_is_graded_in_one_pass(piece):
    for spec, reference in ((ExactSpec(), "x"), (ContainsSpec(), "x"), (ChoiceSpec(), "A"), (JsonSpec(), None)):
        assert graded(spec, piece * 20_000, reference).score in (0, 1)
