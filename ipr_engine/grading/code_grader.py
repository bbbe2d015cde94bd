"""A `CodeGrader` runs the Python code of an answer against its reference's tests, in a sandbox; the score is the share that passes."""

from __future__ import annotations

import ast
import json
import re
import secrets
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ipr_engine.grading.grade import AnswerToGrade, Grade, UngradableError, grader_identity
from ipr_engine.grading.grader_specs import CodeSpec
from ipr_engine.grading.number_answers import final_part
from ipr_engine.grading.sandbox import Sandbox, SandboxLimits

HARNESS = Path(__file__).with_name("code_harness.py")
LONGEST = 1_000_000  # characters of code that are run
_BLOCK = re.compile(r"^[ \t]*```[ \t]*([\w+-]*)[^\n]*\n(.*?)(?:^[ \t]*```|\Z)", re.DOTALL | re.MULTILINE)
_PYTHON = {"python", "py", "python3"}
_BAD_REFERENCE = "reference: expected tests in Python, a list of them, or a list of objects of input and output"


class CodeGrader:
    """A `CodeGrader` grades the share of tests passed.

    The code is the longest block of an answer that is marked as Python, else its longest block of any kind, else all of it. Tests
    stop accidents, not code that is written to cheat them.
    """

    def __init__(self, spec: CodeSpec) -> None:
        """Try the sandbox.

        Raises:
            BackendUnavailableError: this machine has none.
        """
        self.identity = grader_identity(spec, python=sys.version)
        self._spec = spec
        limits = SandboxLimits(
            seconds=spec.seconds, memory_mb=spec.memory_mb, processes=spec.processes, file_mb=spec.file_mb
        )
        self._sandbox = Sandbox(limits)
        self._harness = HARNESS.read_text(encoding="utf-8")

    def grade(self, answers: Sequence[AnswerToGrade]) -> list[Grade]:
        """Return one grade an answer; `parallel` of them run at once."""
        with ThreadPoolExecutor(self._spec.parallel) as pool:
            return list(pool.map(self._grade, answers))

    def _grade(self, one: AnswerToGrade) -> Grade:
        try:
            tests = reference_tests(one.reference)
        except UngradableError as error:
            return Grade(None, reason=str(error))
        code = python_code(final_part(one.answer))
        if not code.strip() or len(code) > LONGEST:
            return Grade(0.0, reason="no code in the answer" if not code.strip() else "the code is too long")
        job = {
            "token": secrets.token_hex(16),
            "code": code,
            "tests": tests,
            "seconds": self._spec.seconds,
            "test_seconds": self._spec.test_seconds,
        }
        run = self._sandbox.run(self._harness, json.dumps(job).encode())
        try:
            said = json.loads(run.output)
        except ValueError:
            said = None
        if not isinstance(said, dict) or said.get("token") != job["token"]:
            return Grade(0.0, reason="the code ended its tests" if run.in_time else "the tests did not end in time")
        return Grade(sum(said["passed"]) / len(tests))


def python_code(answer: str) -> str:
    """Return the code of an answer: its longest block of Python, else of any kind, else the whole answer."""
    blocks: list[tuple[str, str]] = [(language.lower(), body) for language, body in _BLOCK.findall(answer)]
    marked = [body for language, body in blocks if language in _PYTHON]
    return max(marked or [body for _, body in blocks] or [answer], key=len)


def reference_tests(reference: Any) -> list[dict[str, Any]]:
    """Return the tests of a reference.

    Args:
        reference: Python source, of which each `assert` at its top and each function test_*() is a test, and all else, in order, runs
            before them; without any of these it is one test as a whole. Or a list of sources, one test each; or a list of objects
            {"input": text, "output": text} for a program that reads stdin.
    Raises:
        UngradableError: it is something else, empty, or no Python.
    """
    if isinstance(reference, str):
        return _tests_in(reference)
    if not isinstance(reference, (list, tuple)) or not reference:
        raise UngradableError(_BAD_REFERENCE)
    if all(isinstance(one, str) for one in reference):
        for one in reference:
            _parsed(one)
        return [{"setup": "", "test": one} for one in reference]
    texts = ("input", "output")
    if not all(isinstance(one, dict) and all(isinstance(one.get(name), str) for name in texts) for one in reference):
        raise UngradableError(_BAD_REFERENCE)
    return [{name: one[name] for name in texts} for one in reference]


def _tests_in(source: str) -> list[dict[str, Any]]:
    body = _parsed(source).body
    asserts = [node for node in body if isinstance(node, ast.Assert)]
    setup = "\n".join(ast.unparse(node) for node in body if not isinstance(node, ast.Assert))
    named = [node.name for node in body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
    tests: list[dict[str, Any]] = [{"setup": setup, "test": ast.unparse(node)} for node in asserts]
    tests += [{"setup": setup, "test": "", "call": name} for name in named]
    return tests or [{"setup": "", "test": source}]


def _parsed(source: str) -> ast.Module:
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise UngradableError("reference: its tests are no Python") from None
    if not tree.body:
        raise UngradableError("reference: its tests are empty")
    return tree
