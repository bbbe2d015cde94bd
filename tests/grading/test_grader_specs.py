"""Graders as a plan states them: each kind is read, made and named; what is wrong is told by its key."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from ipr_engine.documents.typed_document import read_typed
from ipr_engine.errors import InvalidInputError
from ipr_engine.grading.grade import AnswerToGrade, Grade, grader_identity, merge_labels
from ipr_engine.grading.grader_specs import ExactSpec, GraderSpec, JudgeSpec, NumericSpec, RegexSpec, RewardSpec
from ipr_engine.grading.make_grader import make_grader
from tests.support.places import ROOT
from tests.support.skips import GRADE, SERVE

pytest.importorskip("regex", reason=GRADE)


@dataclass(frozen=True)
class Plan:
    graders: Mapping[str, GraderSpec]


def read(**graders):
    return read_typed(Plan, {"graders": graders})


def wrong(**graders) -> str:
    made, mistakes = read(**graders)
    assert made is None
    return mistakes[0].text


def test_each_kind_is_read_from_a_plan():
    kinds = ("exact", "contains", "overlap", "numeric", "choice", "regex", "json", "math", "tests", "reward", "judge")
    made, mistakes = read(**{kind: {"kind": kind} for kind in kinds})
    assert not mistakes
    assert {name: spec.kind for name, spec in made.graders.items()} == {kind: kind for kind in kinds}


def test_the_plan_that_the_document_shows_is_read():
    yaml = pytest.importorskip("yaml", reason=SERVE)
    shown = re.search(r"```yaml\n(graders:.*?)```", (ROOT / "docs" / "grading.md").read_text(), re.DOTALL)
    made, mistakes = read_typed(Plan, yaml.safe_load(shown[1]))
    assert not mistakes
    assert made.graders["right"] == NumericSpec(tolerance=1e-6)
    assert made.graders["judged"].points == 5


def test_options_of_a_kind_are_read():
    made, _ = read(a={"kind": "numeric", "tolerance": 0.01}, b={"kind": "exact", "ignore": ["case"]})
    assert made.graders["a"] == NumericSpec(tolerance=0.01)
    assert made.graders["b"] == ExactSpec(ignore=("case",))


def test_a_kind_that_is_none_is_told_by_its_key():
    assert wrong(right={"kind": "numerical"}).startswith("graders.right.kind: expected one of exact, contains,")
    assert wrong(right={"tolerance": 1.0}).startswith("graders.right.kind: is missing; expected one of exact")


def test_an_option_of_another_kind_is_told_by_its_key():
    assert wrong(right={"kind": "exact", "tolerance": 1.0}) == (
        "graders.right.tolerance: is no key here; known: kind, ignore"
    )


def test_a_grader_that_is_no_object_is_told():
    assert wrong(right="exact") == "graders.right: expected an object with a kind"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"kind": "numeric", "tolerance": -1}, "graders.a.tolerance: expected a number >= 0"),
        ({"kind": "choice", "letters": "ab"}, "graders.a.letters: expected capitals"),
        ({"kind": "regex", "seconds": 0}, "graders.a.seconds: expected a number above 0"),
        ({"kind": "tests", "processes": 1}, "graders.a.processes: expected 2 or more"),
        ({"kind": "judge", "points": 1}, "graders.a.points: expected 2 or more"),
        ({"kind": "judge", "rubric": "corectness"}, "graders.a.rubric: expected correctness, helpfulness or a text"),
        ({"kind": "reward", "max_tokens": 0}, "graders.a.max_tokens: expected a number above 0"),
    ],
)
def test_an_option_out_of_range_is_told_by_its_key(options, told):
    assert wrong(a=options).startswith(told)


def test_a_judge_is_not_made_since_it_has_to_be_asked():
    with pytest.raises(InvalidInputError, match="kind: a judge is asked over the network"):
        make_grader(JudgeSpec())


def test_a_pattern_that_is_none_is_refused_when_the_grader_is_made():
    with pytest.raises(InvalidInputError, match="pattern: expected a pattern"):
        make_grader(RegexSpec(pattern="("))


def test_identities_differ_by_every_option():
    specs = (ExactSpec(), ExactSpec(ignore=("case",)), NumericSpec(), NumericSpec(tolerance=0.5), RewardSpec())
    assert len({grader_identity(spec) for spec in specs}) == len(specs)
    assert grader_identity(ExactSpec()) == grader_identity(ExactSpec())


def test_what_is_printed_of_an_answer_holds_none_of_its_text():
    shown = repr(AnswerToGrade(prompt="a secret", body={}, answer="another one"))
    assert "secret" not in shown
    assert "another" not in shown


def test_own_labels_win_over_grades():
    merged = merge_labels({"a": Grade(0.2), "b": Grade(None, reason="late")}, {"b": 1.0, "c": 0.5})
    assert {name: grade.score for name, grade in merged.items()} == {"a": 0.2, "b": 1.0, "c": 0.5}
    with pytest.raises(InvalidInputError, match="labels"):
        merge_labels({}, {"a": 1.5})
