"""The wheel, installed away from the source tree, does the main job."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile

import pytest

from ipr_engine import Engine
from ipr_engine.cli.demo import DEMO_PROMPTS
from ipr_engine.cli.main import COMMANDS
from tests.support import skips
from tests.support.core_alone import CORE
from tests.support.library_tokenizers import library_bundle
from tests.support.places import ROOT

MOST_BYTES = 12_000_000
BENCHES = {"cli", "encoders", "harness", "load", "peers"}  # what `ipr bench` runs, of the folder benchmarks


@pytest.fixture(scope="module")
def made(request, tmp_path_factory):
    """What `make wheel` printed and wrote, in a copy of the tree: nothing of an earlier build gets into it."""
    if not request.config.getoption("--all-extras"):
        pytest.skip(f"{skips.EXTRA}: a wheel is built under --all-extras only, since that compiles everything again")
    tree = tmp_path_factory.mktemp("tree")
    listed = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split("\0")[:-1]:
        if (ROOT / name).is_file() and not name.startswith("docs/"):
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tree / name)
    make = ["make", "wheel", f"PYTHON={sys.executable}"]
    done = subprocess.run(make, cwd=tree, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    [wheel] = (tree / "dist").glob("*.whl")
    return done.stdout + done.stderr, wheel


@pytest.fixture(scope="module")
def wheel(made):
    return made[1]


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
        "ipr_engine/default_bundle/default-2026",
        "ipr_engine/bundle/surface_lexicon.json",
        "ipr_engine/onboarding/public_models.json",
        "ipr_engine/kernels/decide.py",
        "ipr_engine/kernels/launch.json",
        "ipr_engine/kernels/bert/attention.py",
        "ipr_engine/kernels/bert/bert_tiles.json",
        "LICENSE",
        "NOTICE",
    ):
        assert any(name.endswith(wanted) for name in names), wanted


def test_the_wheel_holds_the_table_of_its_bundles_once(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tables = [name for name in names if "/default_bundle/" in name and name.endswith("/model.safetensors")]
    manifests = [name for name in names if "/default_bundle/" in name and name.endswith("/bundle.json")]
    assert (len(tables), len(manifests)) == (1, 2)


@pytest.mark.parametrize("name", ["default", "default-2026"])
def test_the_installed_wheel_loads_each_bundle_by_name(ipr, name):
    assert f"bundle='{name}'" in ipr("info", "--bundle", name).stdout


def test_the_wheel_holds_the_package_alone_and_of_the_benchmarks_what_ipr_bench_runs(wheel):
    names = [name for name in zipfile.ZipFile(wheel).namelist() if not name.endswith("/")]
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"ipr_engine"}
    parts = {tuple(name.split("/")[1:3]) for name in names if name.startswith("ipr_engine/benchmarks/")}
    assert parts == {("benchmarks", "__init__.py"), *(("benchmarks", name) for name in BENCHES)}
    assert not [name for name in names if name.split("/")[1] in ("studies", "tests", "csrc", "loadtest")]


def test_the_wheel_has_the_tag_that_auditwheel_tells(made):
    told, wheel = made
    [tag] = re.findall(r'following platform tag: "(\w+)"', " ".join(told.split()))
    assert wheel.name.endswith(f"-{tag}.whl")
    assert tag.startswith("manylinux_")


def test_the_wheel_depends_on_numpy_and_safetensors_alone(wheel):
    archive = zipfile.ZipFile(wheel)
    [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
    wanted = re.findall(r"^Requires-Dist: ([\w-]+)[^;\n]*$", archive.read(name).decode(), re.MULTILINE)
    assert set(wanted) == CORE


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


COMPILERS = ("cc", "c++", "gcc", "g++", "clang", "clang++")


@pytest.fixture(scope="module")
def fresh(wheel, tmp_path_factory):
    """Runs a program of a new environment that holds the wheel and what it depends on; no compiler is in reach."""
    place = tmp_path_factory.mktemp("fresh")
    subprocess.run([sys.executable, "-m", "venv", str(place / "venv")], check=True)
    away = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    environment = {name: value for name, value in os.environ.items() if name not in away}
    environment |= {"PATH": str(place / "venv" / "bin"), "CC": "/bin/false", "CXX": "/bin/false"}
    assert not [name for name in COMPILERS if shutil.which(name, path=environment["PATH"])]

    def run(program, *arguments, code=0):
        command = [str(place / "venv" / "bin" / program), *arguments]
        done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stdout + done.stderr
        return done

    run("pip", "install", "--quiet", "--constraint", str(ROOT / "constraints.txt"), str(wheel))
    return run


def test_a_fresh_environment_gets_three_packages(fresh):
    found = {package["name"].replace("-", "_") for package in json.loads(fresh("pip", "list", "--format=json").stdout)}
    assert found - {"pip", "setuptools"} == {"ipr_engine", *CORE}


def test_a_fresh_environment_decides_as_the_clone_does(fresh):
    code = "import ipr_engine; print(ipr_engine.__file__); print(ipr_engine.Engine.load().route('2 + 2?', tau=0.1).to_dict())"
    file, decided = fresh("python", "-c", code).stdout.splitlines()
    assert "site-packages" in file
    kept = Engine.load().route("2 + 2?", tau=0.1).to_dict()
    assert ast.literal_eval(decided) == ast.literal_eval(str(kept))


def test_ipr_of_a_fresh_environment_routes_and_shows_its_pages(fresh):
    assert (
        json.loads(fresh("ipr", "route", "2 + 2?", "--json").stdout)["decision"]["model"] in Engine.load().bundle.names
    )
    demo = fresh("ipr", "demo").stdout
    assert all(" ".join(prompt.split())[:12] in demo for prompt in DEMO_PROMPTS)
    assert "us per decision" in demo
    said = fresh("ipr", "--help").stdout
    assert all(re.search(rf"^    {command}\b", said, re.MULTILINE) for command in COMMANDS)


def test_ipr_of_a_fresh_environment_names_the_extra_that_is_missing(fresh, tmp_path):
    done = fresh("ipr", "route", "2 + 2?", "--bundle", str(library_bundle(tmp_path)), code=1)
    assert "pip install 'ipr_engine[tokenizers]'" in done.stderr
    assert "Traceback" not in done.stderr
