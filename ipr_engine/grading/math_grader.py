"""A `MathGrader` asks math-verify whether an answer equals its reference, in a process that can be killed."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from ipr_engine._extras import need
from ipr_engine.errors import BackendUnavailableError
from ipr_engine.grading.bounded_process import run_bounded
from ipr_engine.grading.grade import AnswerToGrade, Grade, grader_identity
from ipr_engine.grading.grader_specs import MathSpec
from ipr_engine.grading.number_answers import final_part

HARNESS = Path(__file__).with_name("math_harness.py")
PACKAGES = ("math-verify", "latex2sympy2_extended", "sympy")
BATCH = 64  # answers of one process
START_S = 60.0  # for sympy to be imported
MEMORY_MB = 2048
LONGEST = 20_000  # characters from the end of an answer: patterns of math-verify take long on more
_WORDS = {
    "right": Grade(1.0),
    "wrong": Grade(0.0),
    "no answer": Grade(0.0, reason="no mathematics in the answer"),
    "no reference": Grade(None, reason="reference: no mathematics in it"),
    "late": Grade(None, reason="math-verify took longer than seconds allows"),
    "failed": Grade(None, reason="math-verify failed on this answer"),
}


class MathGrader:
    """A `MathGrader` grades 1 where an answer equals the reference as mathematics, else 0."""

    def __init__(self, spec: MathSpec) -> None:
        """Look the packages up.

        Raises:
            BackendUnavailableError: math-verify is missing.
        """
        try:
            versions = {name: metadata.version(name) for name in PACKAGES}
        except metadata.PackageNotFoundError:
            need("math_verify", "a grader of kind math", "grade")
            raise
        self.identity = grader_identity(spec, versions=versions)
        self._spec = spec

    def grade(self, answers: Sequence[AnswerToGrade]) -> list[Grade]:
        """Return one grade an answer.

        Raises:
            BackendUnavailableError: the process of math-verify does not start.
        """
        grades = [Grade(None, reason="reference: expected a text or a number")] * len(answers)
        asked = [i for i, one in enumerate(answers) if _is_text_or_number(one.reference)]
        for start in range(0, len(asked), BATCH):
            rows = asked[start : start + BATCH]
            pairs = [(str(answers[i].reference), final_part(answers[i].answer)[-LONGEST:]) for i in rows]
            for i, word in zip(rows, self._words(pairs), strict=True):
                grades[i] = _WORDS[word]
        return grades

    def _words(self, pairs: list[tuple[str, str]]) -> list[str]:
        job = {"pairs": pairs, "seconds": self._spec.seconds, "memory_mb": MEMORY_MB}
        run = run_bounded(
            [sys.executable, "-B", "-c", HARNESS.read_text(encoding="utf-8")],
            json.dumps(job).encode(),
            seconds=START_S + len(pairs) * (self._spec.seconds + 1),
            most_output=1 << 16,
            environment={"PATH": os.defpath, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        )
        try:
            said = json.loads(run.output)
        except ValueError:
            raise BackendUnavailableError(
                f"a grader of kind math: its process gave nothing (exit status {run.code}); see that math_verify can be imported"
            ) from None
        return [str(word) for word in said]


def _is_text_or_number(reference: object) -> bool:
    return isinstance(reference, (str, int, float)) and not isinstance(reference, bool)
