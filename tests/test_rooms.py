"""The tests' house: rooms named as the code's, and no test file that reads another one."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.support.places import ROOT

TESTS = ROOT / "tests"
BESIDE = {"benchmarks", "csrc", "examples", "kernels", "studies"}  # rooms of code that stands beside the package
FILES = sorted(TESTS.rglob("*.py"))
ROOMS = sorted({file.parent.relative_to(TESTS) for file in FILES if file.name.startswith("test_")} - {Path()})


@pytest.mark.parametrize("room", ROOMS, ids=str)
def test_a_room_of_tests_is_a_room_of_the_code(room: Path) -> None:
    code = ROOT if room.parts[0] in BESIDE else ROOT / "ipr_engine"
    assert (code / room).is_dir(), f"tests/{room}: expected {(code / room).relative_to(ROOT)}"


def imported(file: Path) -> set[str]:
    """Names below `tests` that a file imports, as tests.module.name."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "tests":
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] == "tests"}
    return found


def test_what_tests_share_stands_in_support() -> None:
    strangers = {
        f"{file.relative_to(ROOT)} imports {name}"
        for file in FILES
        for name in imported(file)
        if not name.startswith("tests.support.")
    }
    assert not strangers, "expected imports of tests.support alone"
