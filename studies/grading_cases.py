"""A `GradingCase` is recorded answers with a grader's raw scores and the labels that stand for the truth, a row an answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine.data.table_files import read_table
from ipr_engine.grading.grade import AnswerToGrade
from ipr_engine.grading.grader_specs import ContainsSpec, OverlapSpec
from ipr_engine.grading.verifiers import Verifier

Array = npt.NDArray[np.float64]

JUDGES = {"GPT-4.1": "gpt-4.1-2025-04-14", "GPT-5.1": "gpt-5.1-2025-11-13"}


@dataclass(frozen=True, kw_only=True)
class GradingCase:
    """A `GradingCase` holds rows.

    Attributes:
        name: grader and truth, for tables. questions, models: (rows,) text. raw, labels: (rows,); labels in [0, 1].
    """

    name: str
    questions: npt.NDArray[Any]
    models: npt.NDArray[Any]
    raw: Array
    labels: Array


def judge_cases(folder: Path) -> list[GradingCase]:
    """Read two judges of the same answers: each is the grader once, and the truth once."""
    table = read_table(folder / "ratings.parquet")
    prompts, models, raters = (list(map(str, table.text(name))) for name in ("prompt_id", "model", "rater"))
    found: dict[tuple[str, str], dict[str, float]] = {}
    for prompt, model, rater, value in zip(prompts, models, raters, table.numbers("rating")[0], strict=True):
        found.setdefault((prompt, model), {})[rater] = float(value)
    both = {key: rated for key, rated in sorted(found.items()) if all(judge in rated for judge in JUDGES.values())}
    names = list(JUDGES)
    return [
        GradingCase(
            name=f"{folder.name}: {grader}, truth {truth}",
            questions=np.array([prompt for prompt, _ in both]),
            models=np.array([model for _, model in both]),
            raw=np.array([rated[JUDGES[grader]] for rated in both.values()]),
            labels=np.array([rated[JUDGES[truth]] for rated in both.values()]),
        )
        for grader, truth in (names, names[::-1])
    ]


def verifier_cases(folder: Path) -> list[GradingCase]:
    """Read answers with a right one and a grade: the project's verifiers are the graders, the grade is the truth."""
    table = read_table(folder / "responses.parquet")
    prompts, models, answers, targets = (
        list(map(str, table.text(name))) for name in ("prompt_id", "model", "response", "target")
    )
    to_grade = [
        AnswerToGrade(prompt="", body={}, answer=answer, reference=target)
        for answer, target in zip(answers, targets, strict=True)
    ]
    cases = []
    for name, spec in (("contains", ContainsSpec()), ("overlap", OverlapSpec())):
        grades = Verifier(spec).grade(to_grade)
        cases.append(
            GradingCase(
                name=f"{folder.name}: {name}, truth GPT-4o",
                questions=np.array(prompts),
                models=np.array(models),
                raw=np.array([grade.score if grade.raw is None else grade.raw for grade in grades], dtype=np.float64),
                labels=np.asarray(table.numbers("rating")[0], dtype=np.float64),
            )
        )
    return cases


def repeated(folder: Path) -> Sequence[tuple[str, str, float]]:
    """Read (prompt, model, score) of repeated answers."""
    table = read_table(folder / "responses.parquet")
    prompts, models = (list(map(str, table.text(name))) for name in ("prompt_id", "model"))
    return list(zip(prompts, models, map(float, table.numbers("rating")[0]), strict=True))
