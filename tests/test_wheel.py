"""The wheel, installed away from the source tree, does the main job."""

import subprocess
import sys
import zipfile

import pytest

from tests.support import skips
from tests.support.places import ROOT

MOST_BYTES = 12_000_000


@pytest.fixture(scope="module")
def wheel(request, tmp_path_factory):
    if not request.config.getoption("--all-extras"):
        pytest.skip(f"{skips.EXTRA}: a wheel is built under --all-extras only, since that compiles everything again")
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(pip, check=True)
    return next(folder.glob("*.whl"))


def test_the_wheel_is_small_and_carries_types_bundle_and_licence(wheel):
    assert wheel.stat().st_size <= MOST_BYTES
    names = zipfile.ZipFile(wheel).namelist()
    for wanted in (
        "ipr_engine/py.typed",
        "ipr_engine/_C.pyi",
        "ipr_engine/default_bundle/CURRENT",
        "ipr_engine/kernels/decide.py",
        "ipr_engine/kernels/launch.json",
        "LICENSE",
        "NOTICE",
    ):
        assert any(name.endswith(wanted) for name in names), wanted
    assert not any(name.startswith(("tests/", "benchmarks/", "csrc/", "kernels/")) for name in names)


def test_the_installed_wheel_routes(wheel, tmp_path):
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    code = (
        "import ipr_engine; print(ipr_engine.__file__); print(ipr_engine.Engine.load().route('2 + 2?', tau=0.1).model)"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(site)!r}); {code}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    file, model = done.stdout.split()
    assert file.startswith(str(site))
    assert model
