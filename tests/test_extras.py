"""What an error says to install can be installed: where the package is, and in a clone that runs without an installation."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from ipr_engine._extras import need, pip_extra, pip_package
from ipr_engine.errors import BackendUnavailableError
from tests.support.places import ROOT

HERE = f"{sys.executable} -m pip"
ASKS = "from ipr_engine._extras import pip_extra; print(pip_extra('records'))"


def run(*command: str, cwd: Path, **environment: str) -> str:
    told = {**os.environ, **environment}
    done = subprocess.run(command, cwd=cwd, env=told, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_pip_knows_the_extra_that_an_error_names_where_the_package_is_installed(tmp_path: Path) -> None:
    command = run(sys.executable, "-c", ASKS, cwd=tmp_path, PYTHONPATH=str(ROOT), PATH="/nowhere").strip()
    assert command == f"{HERE} install 'ipr_engine[records]'"
    # as the environment has it; nothing is downloaded, and nothing installed
    checks = (*shlex.split(command), "--dry-run", "--no-index", "--no-deps", "--disable-pip-version-check")
    assert "already satisfied: ipr_engine[records]" in run(*checks, cwd=tmp_path, PYTHONPATH="")


def test_a_clone_that_is_not_installed_is_named_by_its_place(tmp_path: Path) -> None:
    venv.create(tmp_path / "bare", with_pip=False)
    bare = str(tmp_path / "bare" / "bin" / "python")
    said = run(bare, "-c", ASKS, cwd=tmp_path, PYTHONPATH=str(ROOT)).strip()
    assert said == f"{bare} -m pip install -e '{ROOT}[records]'"


def test_pip_is_that_of_this_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pip").write_text("")
    (tmp_path / "pip").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert pip_package("one") == f"{HERE} install 'one'"  # another environment's comes first
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert pip_package("one") == "pip install 'one'"


def test_the_error_says_what_for_and_how() -> None:
    with pytest.raises(BackendUnavailableError) as missing:
        need("a_module_that_is_not", "this test", "records")
    assert str(missing.value).startswith(f"this test needs a_module_that_is_not: {pip_extra('records')} (")
    with pytest.raises(BackendUnavailableError, match="install 'something'"):
        need("a_module_that_is_not", "this test", package="something")
