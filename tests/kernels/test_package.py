"""The folder kernels/ is ipr_engine.kernels without a link, and never takes the name of the published package `kernels`."""

import subprocess
import sys

import pytest

from tests.support import skips
from tests.support.places import ROOT


def run(code, *path):
    """With the repository's root first on sys.path, as `python -m pytest` has it."""
    setup = f"import sys; sys.path[:0] = {[str(ROOT), *map(str, path)]!r}; "
    return subprocess.run(
        [sys.executable, "-c", setup + code], capture_output=True, text=True, check=True
    ).stdout.strip()


def test_it_imports_as_part_of_the_package_and_loads_nothing_heavy():
    code = "import ipr_engine.kernels.plan, ipr_engine.kernels.run, ipr_engine.kernels.cubin; print(*sys.modules)"
    loaded = set(run(code).split())
    assert {"ipr_engine.kernels", "ipr_engine.kernels.cubin"} <= loaded
    assert not {"torch", "triton", "kernels"} & loaded


def test_a_clone_that_is_not_installed_has_its_own_kernels():
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    code = "import ipr_engine.kernels.plan as plan; print(plan.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd="/", capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(ROOT / "kernels" / "plan.py")


def test_the_published_package_is_found_behind_the_repository(tmp_path):
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels" / "__init__.py").write_text("__version__ = '9.9'\n")
    (tmp_path / "kernels" / "layer.py").write_text("X = 7\n")
    assert run("import kernels; from kernels.layer import X; print(kernels.__version__, X)", tmp_path) == "9.9 7"


def test_without_it_nothing_can_be_imported_from_the_name():
    code = """
import kernels
try:
    from kernels import get_kernel
except ImportError:
    print(kernels.__version__, len(kernels.__path__))
try:
    import kernels.decide
except ImportError:
    print("absent")
"""
    assert run(f"exec({code!r})").split() == ["0", "0", "absent"]


def test_transformers_takes_it_for_absent():
    pytest.importorskip("transformers", reason=skips.TORCH)
    assert run("from transformers.utils.import_utils import is_kernels_available as f; print(f())") == "False"
