"""A Python that has what the core depends on and no other package, without an environment of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib

from tests.support.places import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CORE = frozenset(re.match(r"[\w-]+", requirement)[0] for requirement in PROJECT["dependencies"])

_HIDE = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in {{*sys.stdlib_module_names, *{sorted(CORE)}, "ipr_engine", "benchmarks"}}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
"""


def run_code(code: str, *, cwd: os.PathLike[str]) -> subprocess.CompletedProcess[str]:
    """Run Python code where every package but the standard library, the core's dependencies and ours is missing."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", _HIDE + code]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def run_ipr(*arguments: str, cwd: os.PathLike[str]) -> subprocess.CompletedProcess[str]:
    """Run `ipr` there."""
    return run_code(f"from ipr_engine.cli import main; sys.exit(main({list(arguments)!r}))", cwd=cwd)
