"""The wheel, installed away from the source tree, does the main job."""

import json
import os
import shutil
import subprocess
import sys
import zipfile

import pytest

from tests.support import skips
from tests.support.places import ROOT

MOST_BYTES = 12_000_000
BENCHES = {"cli", "encoders", "harness", "load", "peers"}  # what `ipr bench` runs, of the folder benchmarks


@pytest.fixture(scope="module")
def wheel(request, tmp_path_factory):
    """Built from a copy of the tree, so that nothing of an earlier build gets into it."""
    if not request.config.getoption("--all-extras"):
        pytest.skip(f"{skips.EXTRA}: a wheel is built under --all-extras only, since that compiles everything again")
    folder, tree = tmp_path_factory.mktemp("wheel"), tmp_path_factory.mktemp("tree")
    listed = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split("\0")[:-1]:
        if (ROOT / name).is_file() and not name.startswith("docs/"):
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tree / name)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(tree)]
    subprocess.run(pip, check=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def site(wheel, tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture
def ipr(site, tmp_path):
    """Runs the command line of the installed wheel, away from the tree."""

    def run(*arguments, code=0):
        environment = {**os.environ, "PYTHONPATH": str(site)}
        done = subprocess.run(
            [sys.executable, "-m", "ipr_engine", *arguments],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        return done

    return run


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


def test_the_wheel_holds_the_package_alone_and_of_the_benchmarks_what_ipr_bench_runs(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"ipr_engine"}
    parts = {tuple(name.split("/")[1:3]) for name in names if name.startswith("ipr_engine/benchmarks/")}
    assert parts == {("benchmarks", "__init__.py"), *(("benchmarks", name) for name in BENCHES)}
    assert not [name for name in names if name.split("/")[1] in ("studies", "tests", "csrc", "loadtest")]


def test_the_installed_wheel_routes(site, tmp_path):
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


def test_the_installed_wheel_has_its_own_kernels(site, tmp_path):
    code = "import ipr_engine.kernels.plan as plan; print(plan.__file__)"
    environment = {**os.environ, "PYTHONPATH": str(site)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(site / "ipr_engine" / "kernels" / "plan.py")


@pytest.mark.parametrize("bench", ["load", "soak", "encoder", "compare"])
def test_every_bench_of_the_installed_wheel_says_its_options(bench, ipr):
    assert f"usage: ipr bench {bench}" in ipr("bench", bench, "--help").stdout


def test_the_installed_wheel_puts_load_on_its_engine(ipr, tmp_path):
    short = ("--seconds", "0.1", "--warm-up", "0.02", "--lengths", "8", "--json")
    document = json.loads(ipr("bench", "load", *short, "--record", "runs.jsonl").stdout)
    [run] = document["runs"]
    assert run["requests"] > 0
    assert run["commit"] is None  # of an installed package nobody knows it
    assert json.loads((tmp_path / "runs.jsonl").read_text()) == run


def test_a_study_of_an_installed_package_says_where_studies_are(ipr, tmp_path):
    done = ipr("study", "headline", "--outcomes", str(tmp_path), "--out", str(tmp_path / "out"), code=1)
    assert "ipr study: the studies are part of a clone of this project, not of an installed package" in done.stderr
