"""Away from the clone, with nothing of it but the package on sys.path: what an editable installation is."""

import importlib.util
import subprocess
import sys
import types

import pytest

from ipr_engine import _clone as clone
from ipr_engine.errors import BackendUnavailableError
from tests.support import skips
from tests.support.places import ROOT

EDITABLE = f"""
import sys, importlib.util, importlib.machinery
class Installed:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "ipr_engine":
            return importlib.util.spec_from_file_location(name, {str(ROOT / "ipr_engine" / "__init__.py")!r})
sys.meta_path.insert(0, Installed)
"""


def run(code, folder):
    return python(f"{EDITABLE}\n{code}", folder)


def python(code, folder):
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(folder)}
    command = [sys.executable, "-S", "-c", f"import sys; sys.path += {site()!r}\n{code}"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def site():
    """Where packages are installed, without the hooks of an installation of this one."""
    return [entry for entry in sys.path if entry.endswith("-packages")]


@pytest.mark.parametrize("name", ["benchmarks", "studies", "tests", "setup", "docs"])
def test_nothing_at_the_root_but_kernels_is_a_part_of_the_package(name, tmp_path):
    code = f"import ipr_engine; print(len(ipr_engine.__path__), importlib.util.find_spec('ipr_engine.{name}'))"
    assert run(code, tmp_path).stdout.strip() == "1 None"


def test_kernels_is_a_part_of_the_package_with_its_files(tmp_path):
    code = "from importlib.resources import files; import ipr_engine.kernels.plan as plan; print(plan.__file__)\n"
    code += "print((files('ipr_engine.kernels') / 'launch.json').is_file())"
    assert run(code, tmp_path).stdout.split() == [str(ROOT / "kernels" / "plan.py"), "True"]


def test_every_bench_is_found(tmp_path):
    done = run("from ipr_engine.cli import main; main(['bench', 'load', '--help'])", tmp_path)
    assert "usage: ipr bench load" in done.stdout, done.stderr


def test_every_study_is_found(tmp_path):
    code = "import importlib, studies; from ipr_engine.cli.study import STUDIES\n"
    code += "print(*(importlib.util.find_spec(f'studies.{name}').name for name in STUDIES), *sys.path)"
    done = run(f"from ipr_engine._clone import import_beside as beside; beside('studies')\n{code}", tmp_path)
    assert "studies.headline" in done.stdout.split(), done.stderr
    assert str(ROOT) not in done.stdout.split()


def test_a_study_finds_what_it_takes_from_the_benchmarks(tmp_path):
    pytest.importorskip("pyarrow", reason=skips.PYARROW)
    code = "from ipr_engine.cli import main; sys.exit(main(['study', 'rules', '--outcomes', 'none', '--out', 'out']))"
    done = run(code, tmp_path)
    assert (done.returncode, "outcomes: expected a folder" in done.stderr) == (1, True), done.stderr


def test_an_installed_package_has_no_folder_beside_it(monkeypatch, tmp_path):
    (tmp_path / "strangers").mkdir()
    (tmp_path / "strangers" / "__init__.py").write_text("raise AssertionError('another package of that name')\n")
    monkeypatch.setattr(clone, "ROOT", str(tmp_path))
    assert not clone.import_beside("strangers")
    assert importlib.util.find_spec("strangers") is None


def test_a_package_reached_through_links_finds_its_clone(tmp_path):
    """A strict editable installation is a folder of links to files."""
    for file in (ROOT / "ipr_engine").rglob("*"):
        if file.is_file() and "__pycache__" not in file.parts:
            link = tmp_path / "links" / file.relative_to(ROOT)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(file)
    code = "import ipr_engine.kernels.plan\nipr_engine.Engine.load()\n"
    code += "from ipr_engine.cli import main\nmain(['bench', 'load', '--help'])"
    done = python(f"import sys; sys.path.insert(0, {str(tmp_path / 'links')!r})\n{code}", tmp_path)
    assert "usage: ipr bench load" in done.stdout, done.stderr


def test_another_projects_pyproject_does_not_make_a_clone(monkeypatch, tmp_path):
    (tmp_path / "pyproject.toml").write_text("")
    for folder in ("strangers", "kernels"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").write_text("raise AssertionError('not ours')\n")
    monkeypatch.setattr(clone, "ROOT", str(tmp_path))
    assert not clone.import_beside("strangers")
    assert clone.KernelsBeside.find_spec("ipr_engine.kernels") is None


def test_another_package_of_that_name_in_the_process_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "benchmarks", types.ModuleType("benchmarks"))
    with pytest.raises(BackendUnavailableError, match=r"benchmarks: this process has imported another package"):
        clone.import_beside("benchmarks")
