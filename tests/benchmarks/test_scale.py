"""Large sources made of small ones: the same arguments give the same bytes, and the commands are measured on them."""

import importlib
import json
import subprocess
import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from ipr_engine.data import load_outcomes, write_outcomes
from tests.support import skips
from tests.support.places import ROOT
from tests.support.seeds import seeded
from tests.support.training_data import write_source

pytest.importorskip("pyarrow", reason=skips.PYARROW)
PROMPTS = [
    "Which skin surface will produce the most heat when George rubs his hands?\n\nAnswer with one letter: dry or wet palms?",
    "Write a function that counts the substrings whose digits add up to their length, and explain each step.",
    "Mary was more reliable than Rachel, but to be fair she had the better foundation as a child; who is meant?",
    "Prove that a group of prime order is cyclic, and say for which step the order has to be a prime number.",
]  # every second one is hard


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """A source of three candidates, the dearest first, which is the best one on hard prompts."""
    folder = tmp_path_factory.mktemp("scale")
    made = load_outcomes(write_source(folder / "made", ["a", "b", "c"], PROMPTS))
    hard = np.array([name == "task1" for name in made.datasets])
    chance = np.where(hard[:, None], [0.7, 0.4, 0.1], [0.98, 0.95, 0.9])
    quality = (seeded("scale").random(chance.shape) < chance).astype(float)
    return write_outcomes(replace(made, quality=quality), folder / "real")


@pytest.fixture
def make_source(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("benchmarks.scale.edited_source").make_source


def test_one_seed_makes_one_source_and_another_seed_another(make_source, real, tmp_path):
    made = [make_source(real, 300, tmp_path / name, seed=seed) for name, seed in (("a", 0), ("b", 0), ("c", 1))]
    first, again, other = ((folder / "prompts.parquet").read_bytes() for folder in made)
    assert first == again != other
    assert (made[0] / "outcomes.parquet").read_bytes() == (made[1] / "outcomes.parquet").read_bytes()


def test_prompts_are_edited_so_that_few_are_near_duplicates(make_source, real, tmp_path):
    from ipr_engine.data.duplicates import duplicate_groups

    made = load_outcomes(make_source(real, 400, tmp_path / "made"))
    assert (len(made), made.models) == (400, ("a", "b", "c"))
    assert not any("George rubs" in prompt for prompt in made.prompts)  # blocks before the last are left out
    assert len(set(duplicate_groups(made.prompts, made.question_keys).tolist())) > 200
    assert json.loads((tmp_path / "made" / "candidates.json").read_text())["candidates"][0]["name"] == "a"


def test_commands_are_measured_each_in_a_process_of_its_own(real, tmp_path):
    arguments = [
        "run",
        "--rows",
        "300",
        "--real",
        str(real),
        "--out",
        str(tmp_path),
        "--only",
        "check",
        "--only",
        "split",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.scale", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    line = json.loads(done.stdout)
    assert set(line["seconds"]) == set(line["cpu_seconds"]) == set(line["peak_mib"]) == {"check", "split"}
    assert line["kept"] is True
    assert all(mib > 20 for mib in line["peak_mib"].values())


@pytest.mark.slow
def test_what_a_part_of_the_prompts_loses_is_measured(make_source, real, tmp_path, monkeypatch):
    pytest.importorskip("sklearn", reason=skips.EVAL)
    parts = importlib.import_module("benchmarks.scale.parts")
    bounds = {"MOST_COMPARED": 400, "SUPPORT_ROWS": 400, "MOST_TRAIN": 200, "CENTROIDS": 4}
    for name, value in bounds.items():
        monkeypatch.setattr(parts, name, value)
    few = {"estimators": ("plain", "advantage_rank1"), "repeats": 1}
    monkeypatch.setattr(parts, "compare_estimators", partial(parts.compare_estimators, **few))
    told: list[str] = []
    line = parts.measured_parts(make_source(real, 900, tmp_path / "made"), told.append)
    area = line["estimators"]["area_of_all"]
    assert max(area.values()) == line["estimators"]["400"]["area"] >= line["estimators"]["100"]["area"]
    assert line["support"]["100"] > line["support"]["400"] == 0
    assert list(line["knn"]) == ["50", "100", "200", "400"]
    assert len(told) == 10


@pytest.mark.slow
def test_all_commands_run_from_the_source_to_the_report(real, tmp_path):
    for module in ("sklearn", "threadpoolctl"):
        pytest.importorskip(module, reason=skips.EVAL)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "benchmarks.scale",
            "run",
            "--rows",
            "1500",
            "--real",
            str(real),
            "--out",
            str(tmp_path),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert list(json.loads(done.stdout)["peak_mib"]) == ["check", "split", "train", "calibrate", "eval"]
